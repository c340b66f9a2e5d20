"""A recipe's file, of our form or of mergekit's, and the merge that it describes."""

from __future__ import annotations

from pathlib import Path

from m2rl_core.config import YamlFile, candidate, grid_points, settings_label
from m2rl_core.interfaces import Merger
from m2rl_core.merge.card import Diagnostics
from m2rl_core.merge.mergekit import read_mergekit
from m2rl_core.merge.models import merge_models
from m2rl_core.merge.parts import Parted
from m2rl_core.merge.recipe import Loaded, read_recipe
from m2rl_core.merge.stage import usual_threads
from m2rl_core.merge.stream import Report
from m2rl_core.merge.sweep import Sweep
from m2rl_core.registry import Registry

__all__ = ["load_recipe", "merge_recipe"]


def load_recipe(path: Path) -> Loaded:
    """The recipe in a file; one with a ``merge_method`` is mergekit's. Folders start from the file's.

    Raises:
        ConfigError: one line per problem, each with its place.
        DataError: a model that mergekit's recipe must be read against has no readable weights.
    """
    file = YamlFile(path, "recipe", keys="'merger' and 'experts'")
    return read_mergekit(file) if "merge_method" in file.tree else read_recipe(file)


def merge_recipe(
    loaded: Loaded, registry: Registry, *, out: Path, threads: int | None = None, report: Report | None = None
) -> Diagnostics:
    """Do what a recipe says; ``threads``, ``report`` and errors as for :func:`~m2rl_core.merge.merge_models`.

    Args:
        out: the new model's folder; of a sweep, that of the folders of the models, each named by its settings.

    Raises:
        ComponentError: a merger that no plugin offers.
    """
    recipe = loaded.recipe
    merger = _merger(loaded, registry)
    return merge_models(
        merger,
        base=None if recipe.base is None else Path(recipe.base),
        experts={name: Path(folder) for name, folder in recipe.experts.items()},
        out={name: out / name for name in merger.outputs()} if recipe.sweep else out,
        evidence={name: Path(folder) for name, folder in recipe.evidence.items()},
        dtype=recipe.dtype,
        parts=[
            Parted(part.tensors, registry.create("merger", part.merger, loaded.owner(("parts", index, "merger"))))
            for index, part in enumerate(recipe.parts)
        ],
        threads=usual_threads() if threads is None else threads,
        report=report,
    )


def _merger(loaded: Loaded, registry: Registry) -> Merger:
    recipe, owner = loaded.recipe, loaded.owner(("merger",))
    if not recipe.sweep:
        return registry.create("merger", recipe.merger, owner)
    points = [(point, candidate(registry, recipe.merger, point, owner)) for point in grid_points(recipe.sweep)]
    return Sweep({settings_label(point): registry.create("merger", use, owner) for point, use in points})
