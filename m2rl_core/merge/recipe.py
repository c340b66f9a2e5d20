"""A merge as a file: models, a merger, and perhaps tensors that are merged otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from m2rl_core.config import Section, Setting, Use, YamlFile
from m2rl_core.errors import ConfigError
from m2rl_core.validation import Keys, Problem, dotted, problems

__all__ = ["Loaded", "Part", "Recipe", "folder", "read_recipe", "stated"]

_LOAD = "A model of the hub is loaded first."
_GATHER = "m2rl_core.merge.gather.gather_evidence makes one."


class Part(Section):
    """Tensors that are merged otherwise than the rest."""

    tensors: Annotated[list[str], Field(min_length=1)]
    """Names, or patterns such as ``*.self_attn.*``."""
    merger: Use


class Recipe(Section):
    """Everything that a merge needs but the place of its result."""

    merger: Use
    base: str | None = None
    """Folder of the anchor; its tokenizer and configuration are the result's."""
    experts: Annotated[dict[str, str], Field(min_length=1)]
    """Name → folder."""
    evidence: dict[str, str] = Field(default_factory=dict)
    """Expert → folder of what the merger needs beyond its weights."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the result; ``None``: the anchor's."""
    parts: list[Part] = Field(default_factory=list)
    """A tensor belongs to the first part that names it, and to ``merger`` where none does."""
    sweep: dict[str, Annotated[list[Setting], Field(min_length=1)]] = Field(default_factory=dict)
    """Setting of the merger → values: a model of every combination, in one reading of the inputs."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe, and what its file has to do with it."""

    recipe: Recipe
    """With absolute folders."""
    owner: Callable[[Keys], str]
    """Where a key of the recipe stands, for messages: ``FILE:LINE: KEY``."""
    notes: Sequence[str] = ()
    """What the reader should know."""


def read_recipe(file: YamlFile) -> Loaded:
    """The recipe in a file of our own form, whose folders start from the file's. ``x-*`` blocks are for sharing.

    Raises:
        ConfigError: one line per problem, each with its place.
    """
    tree = {key: value for key, value in file.tree.items() if not str(key).startswith("x-")}
    try:
        read = Recipe.model_validate(tree)
    except ValidationError as error:
        raise file.refusal(problems(error, Recipe, tree)) from None
    found: list[Problem] = []
    named: Mapping[Keys, str] = {("experts", name): path for name, path in read.experts.items()}
    if read.base is not None:
        named = {("base",): read.base, **named}
    folders = {keys: folder(text, keys, file, found) for keys, text in named.items()}
    evidence = {name: folder(text, ("evidence", name), file, found, _GATHER) for name, text in read.evidence.items()}
    if found:
        raise file.refusal(found)
    experts = {name: folders["experts", name] for name in read.experts}
    placed = read.model_copy(update={"base": folders.get(("base",)), "experts": experts, "evidence": evidence})
    return Loaded(placed, lambda keys: f"{file.path}:{file.line(keys)}: {dotted(keys)}")


def stated(tree: Mapping[str, Any]) -> Loaded:
    """The recipe that ``tree`` says as a file of our own form would; folders start from the working directory.

    Raises:
        ConfigError: one line per problem.
    """
    try:
        read = Recipe.model_validate(dict(tree))
    except ValidationError as error:
        found = problems(error, Recipe, dict(tree), owner="recipe")
        raise ConfigError("\n".join(map(str, found))) from None
    base = None if read.base is None else _absolute(read.base)
    placed = {key: {name: _absolute(at) for name, at in getattr(read, key).items()} for key in ("experts", "evidence")}
    return Loaded(read.model_copy(update={"base": base, **placed}), lambda keys: f"recipe.{dotted(keys)}")


def _absolute(folder: str) -> str:
    """So that the recipe on the card means the same from anywhere."""
    return str(Path(folder).expanduser().absolute())


def folder(text: str, keys: Keys, file: YamlFile, found: list[Problem], remedy: str = _LOAD) -> str:
    """The folder that a recipe names ``text``, absolute; where there is none, ``found`` gets a problem."""
    path = (file.path.parent / Path(text).expanduser()).absolute()
    if not path.is_dir():
        hint = "Folders start from the recipe's own." if text.startswith(".") else remedy
        found.append(Problem(keys, f"there is no folder {path}. {hint}"))
    return str(path)
