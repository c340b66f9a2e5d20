"""Several settings of one merger in one reading of the inputs: a merger of mergers, with an output for each.

Blocks are read once for all of them, and so is every statistic that comes out the same: passes of one type with equal
settings that have seen equal statistics before. Passes that differ are measured side by side in the same reading, so
that a sweep reads as often as the one of its mergers that reads most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from m2rl_core.errors import ConfigError, boundary
from m2rl_core.interfaces import ComponentConfig, Merger, Pass, SkippablePass
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Sweep", "output_of"]

_View = Mapping[str, tuple[str, int]]
"""Statistic, by the name that a merger gave it → (the bundle that gathers it, its place there)."""
_Place = tuple[int, bool, int]
"""(reading, whether it ends that reading, place among the others of it) of a pass."""


class Sweep(Merger):
    """Each output is, bit for bit, what its merger would make alone.

    Args:
        members: output → the merger that makes it; all of one class, each with one output.

    Raises:
        ConfigError: none, a merger of several outputs, or mergers that want different pieces of a tensor.
    """

    name: ClassVar[str] = "sweep"
    reference: ClassVar[str] = "several settings of one merger, side by side"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, members: Mapping[str, Merger]) -> None:
        self.members = dict(members)
        if not members:
            raise ConfigError("a sweep needs at least one setting of its merger")
        for label, member in members.items():
            if list(member.outputs()) != [""]:
                raise ConfigError(f"{label}: merger '{member.name}' has several outputs, so it cannot be swept")
        pieces = {member.granularity: label for label, member in members.items()}
        if len(pieces) > 1:
            found = ", ".join(f"{piece} for {label}" for piece, label in pieces.items())
            raise ConfigError("these settings need different pieces of a tensor: sweep them apart", found=found)
        self.granularity: Literal["block", "rows", "tensor"] = next(iter(pieces))
        self.needs_base = any(member.needs_base for member in members.values())
        self.needs = frozenset().union(*(member.needs for member in members.values()))
        self._bundles, self._views = _bundled(list(members.values()))

    def check(self, experts: Sequence[str]) -> None:
        """As :meth:`~m2rl_core.interfaces.Merger.check`, of every member; its output comes first in what is raised."""
        for label, member in self.members.items():
            try:
                member.check(experts)
            except ValueError as error:
                raise ValueError(f"{label}: {error}") from error

    def outputs(self) -> Sequence[str]:
        return tuple(self.members)

    def passes(self) -> Sequence[Pass]:
        return self._bundles

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        merged: list[Tensor] = []
        for (label, member), view in zip(self.members.items(), self._views, strict=True):
            own = replace(block, told={})
            with boundary(f"merger '{member.name}' with {label}", f"merging {block.name}"):
                merged += member.merge(own, _seen(view, stats))
            block.told.update({f"{label}/{name}": value for name, value in own.told.items()})
        return merged

    def diagnostics(self, experts: Sequence[str], stats: Stats) -> Mapping[str, float]:
        """Of all members, each under its output: ``OUTPUT/NAME``."""
        return {
            f"{label}/{name}": value
            for (label, member), view in zip(self.members.items(), self._views, strict=True)
            for name, value in member.diagnostics(experts, _seen(view, stats)).items()
        }

    def remarks(self, experts: Sequence[str], found: Mapping[str, float]) -> Iterator[str]:
        """Of all members, after their output's name."""
        for label, member in self.members.items():
            yield from (f"{label}: {text}" for text in member.remarks(experts, output_of(label, found)))


def output_of(label: str, found: Mapping[str, float]) -> dict[str, float]:
    """What was told of one output of a sweep."""
    return {name.removeprefix(f"{label}/"): value for name, value in found.items() if name.startswith(f"{label}/")}


@dataclass(frozen=True, slots=True)
class _Part:
    """A pass, and the statistics that were there before it."""

    inner: Pass
    view: _View

    def known(self, stats: Stats) -> Any | None:
        return self.inner.known(_seen(self.view, stats)) if isinstance(self.inner, SkippablePass) else None

    def same(self, other: _Part) -> bool:
        """Whether both must find the same."""
        if type(self.inner) is not type(other.inner) or self.view != other.view:
            return False
        try:
            return bool(_settings(self.inner) == _settings(other.inner))
        except (TypeError, ValueError, RuntimeError):  # settings that do not compare, e.g. tensors
            return False


@dataclass(slots=True)
class _Bundle:
    """Passes that are measured together; their statistics are one, a list."""

    name: str
    scope: Literal["model", "tensor"]
    parts: list[_Part] = field(default_factory=list)

    def add(self, part: _Part) -> int:
        """Its place in the list; that of one that finds the same, if there is one."""
        for place, other in enumerate(self.parts):
            if part.same(other):
                return place
        self.parts.append(part)
        return len(self.parts) - 1

    def measure(self, block: Block, stats: Stats) -> list[Any]:
        return [part.inner.measure(block, _seen(part.view, stats)) for part in self.parts]

    def known(self, stats: Stats) -> list[Any] | None:
        """Of all of them or of none, since one reading serves them all."""
        found = [part.known(stats) for part in self.parts]
        return None if any(each is None for each in found) else found

    def combine(self, left: list[Any], right: list[Any]) -> list[Any]:
        return [part.inner.combine(*both) for part, *both in zip(self.parts, left, right, strict=True)]


def _bundled(members: Sequence[Merger]) -> tuple[list[_Bundle], list[_View]]:
    """All passes in the order of their readings, and which of them each member sees when it merges."""
    placed = [dict(_places(member.passes())) for member in members]
    views: list[dict[str, tuple[str, int]]] = [{} for _ in members]
    bundles: list[_Bundle] = []
    for place in sorted({place for passes in placed for place in passes}):
        bundle = _Bundle(f"passes {len(bundles)}", "model" if place[1] else "tensor")
        for passes, view in zip(placed, views, strict=True):
            if place in passes:
                view[passes[place].name] = bundle.name, bundle.add(_Part(passes[place], dict(view)))
        bundles.append(bundle)
    return bundles, list(views)


def _places(passes: Sequence[Pass]) -> Iterator[tuple[_Place, Pass]]:
    """Each pass with its place: a model-wide one ends a reading, the others are finished tensor by tensor."""
    reading = place = 0
    for each in passes:
        ends = each.scope == "model"
        yield (reading, ends, 0 if ends else place), each
        reading, place = (reading + 1, 0) if ends else (reading, place + 1)


def _settings(each: Pass) -> dict[str, Any]:
    """What a pass depends on beside its class: its attributes."""
    slots = [name for cls in type(each).__mro__ for name in getattr(cls, "__slots__", ())]
    return {**getattr(each, "__dict__", {}), **{name: getattr(each, name, None) for name in slots}}


def _seen(view: _View, stats: Stats) -> dict[str, Any]:
    """The statistics under the names that a merger gave them."""
    return {name: stats[bundle][place] for name, (bundle, place) in view.items()}
