"""What ``m2rl check`` says of memory and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple

from rich.table import Table
from rich.text import Text

from m2rl_core.cli.tables import empty, show
from m2rl_core.estimate import Estimate, Machine, MergeCost, Seconds, assumptions

__all__ = ["show_estimates", "show_merges"]

MEMORY = ("weights", "grads", "optim", "activ.", "head", "engine", "KV", "teacher")
"""Columns for the fields of :class:`~m2rl_core.estimate.Memory`, in their order."""
SECONDS = ("rollout", "score", "train", "step [s]", "teachers")
"""Columns for :class:`~m2rl_core.estimate.Seconds`: what a run's clock tells apart, their sum, the teachers' share."""
NOTHING = "·"


def show_estimates(
    found: Sequence[Estimate], machine: Machine, *, seeds: int, stated: Mapping[str, float] | None = None
) -> None:
    """Print a table of memory, one of time, and what is to be said about them; nothing without training stages.

    Args:
        stated: stage → the GPU hours that the paper states for it.
    """
    if not found:
        return
    if any(each.memory for each in found):
        show(
            memory_table(found, machine),
            time_table(found, machine, seeds, stated or {}),
            Text(assumptions(machine) + "\n", "dim"),
        )
    show(*remarks(found))


def show_merges(found: Sequence[MergeCost], machine: Machine) -> None:
    """Print what merges read, write and take; nothing without merges."""
    known = [each for each in found if not each.unknown]
    if known:
        table = empty(
            "merge",
            numbers=["models", "readings", "read [GB]", "written [GB]", "at a time [GB]", "time"],
            title=f"Disk and time of merges, at {machine.device.reading / 1e9:g} GB/s",
        )
        for each in known:
            sizes = [Text(_gigabytes(size)) for size in (each.readings * each.read, each.written, each.most)]
            cells = [Text(str(each.models)), Text(str(each.readings)), *sizes, Text(_span(each.seconds))]
            table.add_row(Text(each.stage, "bold"), *cells)
        show(table)
    unknown: dict[str, list[str]] = {}
    for each in found:
        if each.unknown:
            unknown.setdefault(each.unknown, []).append(each.stage)
    show(*(Text(f"{', '.join(names)}: {text}.", "yellow") for text, names in unknown.items()))


def memory_table(found: Sequence[Estimate], machine: Machine) -> Table:
    """Bytes on each device at the fullest moment of a step, in one unit for all."""
    totals = [each.memory.total for each in found if each.memory]
    unit, name = (1e6, "MB") if max(totals, default=2e9) < 2e9 else (1e9, "GB")
    room = machine.device.memory
    rows = {}
    for each in found:
        if each.memory is not None:
            style = "bold" if each.memory.total <= room else "bold red"
            cells = [Text(_amount(value, unit)) for value in astuple(each.memory)]
            rows[each.stage] = [Text(_count(each.parameters)), *cells, Text(_amount(each.memory.total, unit), style)]
    title = f"Memory of each device in {name}: {machine}, with {room / unit:,.0f} each"
    return _table(title, ("parameters", *MEMORY, "total"), found, rows)


def time_table(found: Sequence[Estimate], machine: Machine, seeds: int, stated: Mapping[str, float]) -> Table:
    """Seconds of one step, and what all steps come to, beside what the paper states."""
    rows = {each.stage: list(map(Text, _times(each, each.seconds))) for each in found if each.seconds is not None}
    for name, cells in rows.items():
        cells.insert(-1, Text(f"{stated[name]:,.1f}" if name in stated else NOTHING))
    columns = ("steps", *SECONDS, "all steps", "paper's GPU hours", "device-hours")
    table = _table(f"Time on {machine}", columns, found, rows)
    known = sum(each.device_hours or 0 for each in found) * seeds
    name = "together" if seeds == 1 else f"{seeds} seeds"
    table.add_row(name, *[""] * (len(table.columns) - 2), Text(_figure(known), "bold"))
    return table


def _times(each: Estimate, seconds: Seconds) -> list[str]:
    cells = [_figure(part) for part in (seconds.rollout, seconds.score, seconds.train)]
    share = f"{seconds.teachers_share:.0%} of it" if seconds.teachers_share else NOTHING
    last = (_figure(seconds.total), share, _span(each.steps * seconds.total))
    return [f"{each.steps:,}", *cells, *last, _figure(each.device_hours or 0)]


def _table(title: str, columns: Sequence[str], found: Sequence[Estimate], rows: Mapping[str, list[Text]]) -> Table:
    """A row per stage, without the columns in which no stage has anything."""
    kept = [i for i in range(len(columns)) if any(cells[i].plain != NOTHING for cells in rows.values())]
    table = empty("stage", numbers=[columns[i] for i in kept], title=title)
    for each in found:
        cells = [rows[each.stage][i] for i in kept] if each.stage in rows else [Text("unknown", "yellow")]
        table.add_row(Text(each.stage, "bold"), *cells)
    return table


def remarks(found: Sequence[Estimate]) -> list[Text]:
    """What stops a stage, and what is not known; stages with the same remark share it."""
    stages: dict[str, list[str]] = {}
    for each in found:
        for text in (each.unknown, *each.problems):
            if text:
                stages.setdefault(text, []).append(each.stage)
    return [Text(f"{', '.join(names)}: {text}.", "yellow") for text, names in stages.items()]


def _count(number: int) -> str:
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.2f}M"


def _amount(count: float, unit: float) -> str:
    if not count:
        return NOTHING
    return f"{count / unit:,.1f}" if count >= unit / 20 else "<0.1"


def _gigabytes(size: int) -> str:
    return _figure(size / 1e9) if size >= 5e5 else "<0.001"


def _figure(number: float) -> str:
    """With three digits, more only where they stand before the point."""
    if not number:
        return NOTHING
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _span(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{_figure(seconds / unit)} {name}"
    return f"{_figure(seconds)} s"
