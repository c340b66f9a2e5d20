"""From a YAML file and ``--set`` overrides to a :class:`Study`, with every complaint at its line.

YAML merge keys and top-level ``x-*`` blocks are the only means of sharing. Duplicate keys, which YAML parsers accept
silently, are refused. A scale (:mod:`.scales`) is chosen before anything else is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from m2rl_core.config.references import reference_problems
from m2rl_core.config.scales import SCALE, Scale, scaled
from m2rl_core.config.study import Study
from m2rl_core.config.yaml_file import Tree, YamlFile
from m2rl_core.errors import ConfigError, nearest
from m2rl_core.redaction import masked
from m2rl_core.validation import Problem, dotted, problems

__all__ = ["load_study", "settings"]


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """The study in a file, with references between its parts checked; its components are not.

    Args:
        path: of the YAML file; its local ``plugins`` are found relative to it and made absolute.
        overrides: ``KEY.KEY=VALUE`` with a YAML value, applied in order, and after the changes of a scale.

    Raises:
        ConfigError: one line per problem, each with its place.
    """
    path = Path(path)
    file = YamlFile(path, "study", keys="'name' and 'stages'")
    whole, chosen = _overridden(
        {key: value for key, value in file.tree.items() if not str(key).startswith("x-")},
        [text for text in overrides if _chooses_scale(text)],
    )
    tree, scale = scaled(whole, f"--set {chosen[-1].text}" if chosen else f"{path}:{file.line([SCALE])}")
    tree, given = _overridden(tree, [text for text in overrides if not _chooses_scale(text)])
    origins = _Origins(file, scale, given)
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        raise origins.refusal(problems(error, Study, tree)) from None
    if found := reference_problems(study):
        raise origins.refusal(found)
    return study.model_copy(update={"plugins": [str((path.parent / name).resolve()) for name in study.plugins]})


def settings(overrides: Sequence[str]) -> dict[str, Any]:
    """A component's own settings, made of ``KEY.KEY=VALUE`` with YAML values alone.

    Raises:
        ConfigError: one that does not read so.
    """
    return dict(_overridden({}, overrides)[0])


def _overridden(tree: Tree, overrides: Sequence[str]) -> tuple[Tree, list[_Override]]:
    given: list[_Override] = []
    for text in overrides:
        given.append(_Override.parse(text, tree))
        tree = _updated(tree, given[-1])
    return tree, given


@dataclass(frozen=True, slots=True)
class _Override:
    """One ``--set``."""

    text: str
    """For messages: without secrets."""
    keys: tuple[str, ...]
    value: object

    @classmethod
    def parse(cls, text: str, tree: Tree) -> _Override:
        """Read ``a.b=value`` against the tree that it will change, since its keys may contain dots."""
        path, equals, value = text.partition("=")
        keys = tuple(_split(path.strip(), tree))
        text = f"{path}{equals}{masked(value, keys[-1])}"
        if not equals or not all(keys):
            raise ConfigError(f"--set {text}: should read KEY.KEY=VALUE")
        try:
            read = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"--set {text}: the value is no YAML: {getattr(error, 'problem', error)}") from None
        shown = masked(read, keys[-1])
        return cls(text if shown == read else f"{path}={shown}", keys, read)


def _split(path: str, tree: object) -> Iterator[str]:
    known = [key for key in tree if isinstance(key, str)] if isinstance(tree, Mapping) else []
    for key in sorted(known, key=len, reverse=True):
        if path == key or path.startswith(f"{key}."):
            yield key
            if path != key:
                yield from _split(path[len(key) + 1 :], tree[key] if isinstance(tree, Mapping) else None)
            return
    head, dot, rest = path.partition(".")
    yield head
    if dot:
        yield from _split(rest, None)


def _updated(tree: Tree, override: _Override) -> Tree:
    """``tree`` with the override's value; copied along its path, since YAML aliases share what is below."""
    match override.keys:
        case ("stages" | "domains" as section, name, _, *_) if isinstance(known := tree.get(section), Mapping):
            if name not in known:
                place = f"--set {override.text}: {section} has no '{name}'"
                raise ConfigError(f"{place}.{nearest(name, known)}", allowed=[str(key) for key in known])

    def put(node: object, keys: tuple[str, ...]) -> object:
        if not keys:
            return override.value
        node = {"use": node} if isinstance(node, str) else {} if node is None else node
        if not isinstance(node, Mapping):
            above = dotted(override.keys[: len(override.keys) - len(keys)])
            raise ConfigError(f"--set {override.text}: {above} has no keys", found=node)
        return {**node, keys[0]: put(node.get(keys[0]), keys[1:])}

    result = put(tree, override.keys)
    assert isinstance(result, dict)
    return result


def _chooses_scale(override: str) -> bool:
    return override.partition("=")[0].strip() == SCALE


@dataclass(frozen=True, slots=True)
class _Origins:
    """What a study was made of: its values stand in the file, in a scale of it, or on the command line."""

    file: YamlFile
    scale: Scale | None
    overrides: Sequence[_Override]

    def refusal(self, found: Sequence[Problem]) -> ConfigError:
        """All problems, each after its place; those of a block that several stages merge stand together."""
        return self.file.refusal(found, self._place)

    def _place(self, problem: Problem) -> str:
        for override in reversed(self.overrides):
            if problem.path[: len(override.keys)] == override.keys:
                return f"--set {override.text}"
        if self.scale is not None and self.scale.changes(problem.path):
            return f"{self.file.path}:{self.file.line((*self.scale.place, *problem.path))}"
        return self.file.place(problem)
