"""Scales of a study: named sets of changes, such as ``smoke`` for a run that only shows that everything works.

::

    scales:
      smoke:
        stages:
          sft:  {conversations: 640}
          math: {steps: 2}

``--set scale=smoke``, or ``scale: smoke`` in the file, chooses one. Its mappings are merged into the study's, and
everything else replaces what is there; other ``--set`` come after it. The study is then called NAME-SCALE, unless the
scale says otherwise, so that a trial leaves the folder of the whole study alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from m2rl_core.config.yaml_file import Tree
from m2rl_core.errors import ConfigError, nearest
from m2rl_core.validation import Keys

__all__ = ["SCALE", "SCALES", "Scale", "scaled"]

SCALE, SCALES = "scale", "scales"


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale that was chosen."""

    name: str
    tree: Tree
    """Its changes."""

    @property
    def place(self) -> Keys:
        """Where its changes stand in the study's file."""
        return SCALES, self.name

    def changes(self, path: Keys) -> bool:
        """Whether it says anything of the study's value at ``path``."""
        node: object = self.tree
        for key in path:
            if not isinstance(node, Mapping):
                return True  # a part of what has replaced the study's value
            if key not in node:
                return False
            node = node[key]
        return True


def scaled(tree: Tree, place: str) -> tuple[Tree, Scale | None]:
    """The study in ``tree`` at the scale that it names, and that scale.

    Args:
        place: where the scale is named, for messages.

    Raises:
        ConfigError: there is no such scale, or it changes a stage or domain that is not there.
    """
    study = {key: value for key, value in tree.items() if key not in (SCALE, SCALES)}
    if tree.get(SCALE) is None:
        return study, None
    name, scales = str(tree[SCALE]), _mapping(tree.get(SCALES), place, SCALES)
    _need(name, scales, f"{place}: there is no scale '{name}'", "declare it below 'scales:'")
    scale = Scale(name, _mapping(scales[name], place, f"{SCALES}.{name}"))
    for section in ("stages", "domains"):
        known = _mapping(study.get(section), place, section)
        for each in _mapping(scale.tree.get(section), place, f"{SCALES}.{name}.{section}"):
            _need(each, known, f"{place}: {SCALES}.{name}: {section} has no '{each}'")
    return _merged({**study, "name": f"{study.get('name', '')}-{name}"}, scale.tree), scale


def _need(name: str, known: Tree, what: str, then: str = "") -> None:
    if name not in known:
        names = [str(each) for each in known]
        raise ConfigError(f"{what}.{nearest(name, names)}", allowed=names, then="" if names else then)


def _mapping(value: object, place: str, what: str) -> Tree:
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{place}: {what} should be a mapping", found=value)
    return value or {}


def _merged(tree: Tree, changes: Tree) -> Tree:
    """``tree`` with the changes; copied along their paths, since YAML aliases share what is below."""
    result = dict(tree)
    for key, value in changes.items():
        below = tree.get(key)
        result[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result
