"""Tensors that are merged otherwise than the rest of a model: who merges what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from m2rl_core.errors import ConfigError, nearest
from m2rl_core.interfaces import Merger
from m2rl_core.merge.checks import Model

__all__ = ["Parted", "Share", "check_parts", "shares"]


class Parted(NamedTuple):
    """A merger for some tensors."""

    tensors: Sequence[str]
    """Names, or patterns such as ``*.self_attn.*``."""
    merger: Merger


@dataclass(frozen=True, slots=True)
class Share:
    """The tensors that one merger merges."""

    merger: Merger
    names: list[str]
    tensors: Sequence[str] = ()
    """What its part says; empty for the share of all other tensors."""


def check_parts(merger: Merger, parts: Sequence[Parted]) -> None:
    """Refuse mergers that cannot share a model: each needs one output, statistics of single tensors, and weights alone.

    Raises:
        ConfigError: naming the merger.
    """
    for each in [merger, *(part.merger for part in parts)] if parts else ():
        if list(each.outputs()) != [""]:
            raise ConfigError(
                f"merger '{each.name}' makes several models, and merges only some tensors",
                found=", ".join(each.outputs()),
            )
        if each.needs:
            raise ConfigError(
                f"merger '{each.name}' needs evidence beyond the weights, and merges only some tensors",
                found=", ".join(sorted(each.needs)),
            )
        if wide := [found.name for found in each.passes() if found.scope == "model"]:
            raise ConfigError(
                f"merger '{each.name}' measures the whole model, and merges only some of its tensors",
                found=", ".join(wide),
                then="use settings that go tensor by tensor, such as 'scope: tensor'",
            )


def shares(merger: Merger, parts: Sequence[Parted], anchor: Model) -> list[Share]:
    """Every tensor's merger: that of the first part that names it, or else ``merger``, whose share comes first.

    Raises:
        ConfigError: a part that names no tensor.
    """
    rest, found = list(anchor.names), list[Share]()
    for part in parts:
        for pattern in part.tensors:
            _find(pattern, anchor)
        names = [name for name in rest if any(fnmatchcase(name, pattern) for pattern in part.tensors)]
        rest = [name for name in rest if name not in set(names)]
        found.append(Share(part.merger, names, part.tensors))
    return [Share(merger, rest), *found]


def _find(pattern: str, anchor: Model) -> None:
    names = anchor.checkpoint.tensors  # with an output layer that is left out, because it repeats the embeddings
    if not any(fnmatchcase(name, pattern) for name in names):
        raise ConfigError(f"parts: {anchor.label} has no tensor '{pattern}'.{nearest(pattern, names)}")
