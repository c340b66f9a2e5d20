"""A recipe's file, of our form or of mergekit's."""

from __future__ import annotations

from pathlib import Path

from m2rl_core.config import YamlFile
from m2rl_core.merge.mergekit import read_mergekit
from m2rl_core.merge.recipe import Loaded, read_recipe

__all__ = ["load_recipe"]


def load_recipe(path: Path) -> Loaded:
    """The recipe in a file; one with a ``merge_method`` is mergekit's. Folders start from the file's.

    Raises:
        ConfigError: one line per problem, each with its place.
        DataError: a model that mergekit's recipe must be read against has no readable weights.
    """
    file = YamlFile(path, "recipe", keys="'merger' and 'experts'")
    return read_mergekit(file) if "merge_method" in file.tree else read_recipe(file)
