"""From a recipe of mergekit's to one of ours with its semantics, or a refusal that names the key and its line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from m2rl_core.config import YamlFile
from m2rl_core.errors import ConfigError, nearest
from m2rl_core.merge.mergekit.file import Depths, MergekitFile, Settings, value_at, varies
from m2rl_core.merge.mergekit.methods import METHODS, At, Merger, UnmappedError
from m2rl_core.merge.mergekit.notes import notes
from m2rl_core.merge.mergekit.refusals import unsupported
from m2rl_core.merge.recipe import Loaded, Part, Recipe, folder
from m2rl_core.validation import Keys, Problem, dotted, problems
from m2rl_core.weights import Checkpoint

__all__ = ["read_mergekit"]


def read_mergekit(file: YamlFile) -> Loaded:
    """The recipe in a file of mergekit's form, whose folders start from the file's.

    Raises:
        ConfigError: one line per problem, each with its place.
        DataError: a model of which the recipe needs the tensors' names has no readable weights.
    """
    try:
        read = MergekitFile.model_validate(file.tree)
    except ValidationError as error:
        raise file.refusal(problems(error, MergekitFile, file.tree)) from None
    if found := unsupported(read):
        raise file.refusal(found)
    recipe = _Reading(file, read).recipe()

    def owner(keys: Keys) -> str:
        """Whatever merger a method has become, the user wrote the method."""
        return f"{file.path}:{file.line(('merge_method',))}: {read.merge_method}: {dotted(keys)}"

    return Loaded(recipe, owner, notes(read))


@dataclass(frozen=True, slots=True)
class _Given:
    """Settings, and where they stand."""

    keys: Keys
    settings: Settings


@dataclass(frozen=True, slots=True)
class _Input:
    """A model that is merged, with settings of its own."""

    folder: str
    given: _Given


class _Reading:
    """One file on its way; each refusal is raised where it is found."""

    def __init__(self, file: YamlFile, read: MergekitFile) -> None:
        self.file, self.read, self.method = file, read, METHODS[read.merge_method]
        self.shared = [_Given(keys, settings) for keys, settings in read.shared]
        self.base, inputs = self._placed()
        self._refuse_unknown([*self.shared, *(each.given for each in inputs)])
        self.experts = self._experts(inputs)
        self._refuse_excerpts()

    def recipe(self) -> Recipe:
        """Ours; the merger of most tensors is the recipe's, the others' are parts of it."""
        groups: dict[str, tuple[Merger, list[str]]] = {}
        for tensor in self._names if self._varies else [""]:
            merger = self._merger(tensor)
            groups.setdefault(json.dumps(merger), (merger, []))[1].append(tensor)
        (most, _), *others = sorted(groups.values(), key=lambda group: -len(group[1]))
        named = dict(zip(_labels([each.folder for each in self.experts]), self.experts, strict=True))
        return Recipe(
            merger=most,
            base=self.base if self.method.base == "anchor" else None,
            experts={name: each.folder for name, each in named.items()},
            dtype=self.read.out_dtype or self.read.dtype,
            parts=[Part(tensors=tensors, merger=merger) for merger, tensors in others],
        )

    # ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _placed(self) -> tuple[str | None, list[_Input]]:
        """The base's folder, and the models that the file lists."""
        found: list[Problem] = []
        inputs: list[_Input] = []
        for keys, source in self.read.sources:
            place = folder(source.model, (*keys, "model"), self.file, found)
            if place in [each.folder for each in inputs]:
                found.append(Problem((*keys, "model"), f"{place} is there twice."))
            inputs.append(_Input(place, _Given((*keys, "parameters"), source.parameters)))
        keys, name = self.read.base
        base = None if name is None else folder(name, keys, self.file, found)
        if found:
            raise self.file.refusal(found)
        return base, inputs

    def _experts(self, inputs: Sequence[_Input]) -> list[_Input]:
        """What is merged, in the order that our merger takes it: a base that is merged like the others comes first."""
        others = [each for each in inputs if each.folder != self.base]
        if self.base is None or self.method.base == "anchor":
            return others
        listed = [each for each in inputs if each.folder == self.base]
        return [*(listed or [_Input(self.base, _Given((), {}))]), *others]

    def _refuse_excerpts(self) -> None:
        """Slices are models, as long as each is all of one."""
        found = [
            Problem((*keys, "layer_range"), f"all of a model's layers are merged, [0, {self._depths.layers}], not some")
            for keys, source in self.read.sources
            if source.layer_range is not None and source.layer_range != (0, self._depths.layers)
        ]
        if found:
            raise self.file.refusal(found)

    @cached_property
    def _names(self) -> list[str]:
        """Of the tensors."""
        with Checkpoint.open(Path(self.experts[0].folder)) as checkpoint:
            return list(checkpoint.tensors)

    @cached_property
    def _depths(self) -> Depths:
        return Depths(self._names)

    # ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _refuse_unknown(self, everything: Sequence[_Given]) -> None:
        known = [*self.method.each, *self.method.shared]
        allowed = f" Allowed: {', '.join(known)}."
        found = [
            Problem((*given.keys, key), f"unknown key.{nearest(key, known) or allowed}")
            for given in everything
            for key in given.settings
            if key not in known
        ]
        if found:
            raise self.file.refusal(found)

    @cached_property
    def _varies(self) -> bool:
        """Whether any setting depends on the tensor."""
        return varies(given.settings for given in [*self.shared, *(each.given for each in self.experts)])

    def _merger(self, tensor: str) -> Merger:
        """What merges a tensor."""
        depth = self._depths.of(tensor) if self._varies else 0.0

        def value(key: str, default: float | None, own: Sequence[_Given] = ()) -> float:
            found = value_at([given.settings for given in [*own, *self.shared]], key, tensor, depth)
            if found is None and default is None:
                raise self._refusal(key, "this key is required" + (f" for '{tensor}'." if tensor else "."), own)
            return found if found is not None else default or 0.0

        shared = {key: value(key, default) for key, default in self.method.shared.items()}
        each_E = {
            key: [value(key, default, [expert.given]) for expert in self.experts]
            for key, default in self.method.each.items()
        }
        try:
            return self.method.merger(At(shared, each_E))
        except UnmappedError as error:
            where = f" (at '{tensor}')" if tensor else ""
            own = self.experts if error.expert is None else [self.experts[error.expert]]
            raise self._refusal(error.key, f"{error}{where}.", [each.given for each in own]) from None

    def _refusal(self, key: str, text: str, own: Sequence[_Given]) -> ConfigError:
        """Where ``key`` is said, or else could have been."""
        places = [given.keys for given in [*own, *self.shared] if key in given.settings]
        missing = own[0].keys if len(own) == 1 and own[0].keys else ("parameters",)
        return self.file.refusal([Problem((*(places[0] if places else missing), key), text)])


def _labels(folders: Sequence[str]) -> Iterator[str]:
    """Short names: each folder's own, or all of its path where two would be called the same."""
    names = [Path(each).name for each in folders]
    yield from (name if names.count(name) == 1 else each for name, each in zip(names, folders, strict=True))
