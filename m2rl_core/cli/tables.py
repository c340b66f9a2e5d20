"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from m2rl_core import types
from m2rl_core.registry import KINDS, Plugin

if TYPE_CHECKING:
    from m2rl_core.config import AnyStage, Study
    from m2rl_core.paper.drift import Drift
    from m2rl_core.rescore import Flip
    from m2rl_core.study import Node

__all__ = ["claims", "drifts", "empty", "flips", "plugins", "show", "stages", "table"]

PIPE_WIDTH = 160
"""Columns where nobody's window limits them."""
TEXT_WIDTH = 100
"""Columns of what is read as sentences."""
_COLOURS = {"loaded": "green", "disabled": "dim", "waiting": "yellow", "incompatible": "red", "failed": "red"}
_DRIFT = {"same": "green", "different": "bold yellow", "paper silent": "dim"}


def show(*parts: Table | Text) -> None:
    """Print tables and texts to standard output."""
    console = Console()
    console = console if console.is_terminal else Console(width=PIPE_WIDTH)
    for part in parts:
        console.print(part, width=min(console.width, TEXT_WIDTH) if isinstance(part, Text) else None)


def plugins(found: Iterable[Plugin]) -> Table:
    """One row per component of a loaded plugin, or one per plugin."""
    table = empty("kind", "name", "distribution", "version", "status")
    for plugin in found:
        offers = [component.split(" ", 1) for component in plugin.components]
        for kind, name in offers or [_of_name(plugin.name)]:
            status = Text(plugin.status, style=_COLOURS.get(plugin.status, ""))
            table.add_row(kind, name, plugin.distribution, plugin.version, status)
    return table


def _of_name(name: str) -> list[str]:
    """``domain-math`` as kind and name: a convention that needs no import."""
    kind, _, rest = name.partition("-")
    return [kind, rest] if kind in KINDS and rest else ["", name]


def stages(study: Study, nodes: Sequence[Node]) -> Table:
    """The stages of a study in the order of their work. A stage of several nodes (seeds, evaluations) is one row."""
    table = empty("stage", "kind", "from", "steps", "state")
    for name in dict.fromkeys(node.stage for node in nodes):
        own = [node for node in nodes if node.stage == name]
        done = sum(node.done for node in own)
        state = Text("done", "green") if done == len(own) else Text("to run", "yellow")
        if len(own) > 1:
            state.append(f" ({done} of {len(own)} done)" if done < len(own) else f" ({len(own)})")
        stage = study.stages.get(name) or own[0].config
        table.add_row(Text(name, "bold"), own[0].kind, ", ".join(_sources(stage)), _steps(stage), state)
    return table


def _sources(stage: AnyStage) -> list[str]:
    from m2rl_core.config import AnalyzeStage, EvalStage, InitStage, ModelStage, ReportStage, references

    match stage:
        case ModelStage():
            return [stage.path]
        case InitStage():
            return [f"domain {domain}" for domain in stage.domains]
        case ReportStage():
            return ["everything"]
        case EvalStage() | AnalyzeStage() if "*" in stage.models:
            return ["all models"]
    return list(dict.fromkeys(model for _, model in references(stage)))


def _steps(stage: AnyStage) -> str:
    """How much work, and by which method."""
    from m2rl_core.config import AnalyzeStage, MergeStage, RlStage, SftStage
    from m2rl_core.registry import use_of

    match stage:
        case RlStage():
            return f"{stage.steps} × {stage.prompts} × {stage.group}"
        case SftStage():
            return f"{stage.updates} × {stage.batch}"
        case MergeStage():
            name, config = use_of(stage.merger)
            preset = f", {config['preset']}" if "preset" in config else ""
            return f"{name}{preset}{f', {stage.search.candidates} candidates' if stage.search else ''}"
        case AnalyzeStage():
            return use_of(stage.analyzer)[0]
    return ""


def drifts(found: Iterable[Drift]) -> Table:
    """One row per claim of the paper: what it says, what the study says, and whether that is the same."""
    from m2rl_core.paper.drift import shown

    found = list(found)
    counts = [f"{sum(each.verdict == verdict for each in found)} {verdict}" for verdict in _DRIFT]
    title = f"Drift from the paper: {', '.join(counts)}"
    table = empty("the paper", "section", "says", "this study", "", title=title)
    for each in found:
        claim, silent = each.claim, each.verdict == "paper silent"
        says = "" if silent else shown(claim.expected)
        role = "" if claim.role in ("study", "sft", "domain", "eval") else f" ({claim.role})"
        cells = (f"{claim.text}{role}", claim.section, says, each.found)
        table.add_row(*map(Text, cells), Text(each.verdict, _DRIFT[each.verdict]))
    return table


def flips(found: Iterable[Flip]) -> Table:
    """One row per reward that has changed."""
    table = empty("stage", "step", "domain", "prompt", "sample", "reward", "reason")
    for flip in found:
        then = flip.stored
        step = "" if then.step is None else str(then.step)
        change = f"{_value(then.reward.value)} → {_value(flip.reward.value)}"
        texts = (then.stage, step, then.domain, then.prompt, str(then.sample), change, flip.reward.reason)
        table.add_row(*map(Text, texts))  # as plain text: a reason may look like markup
    return table


def table(found: types.Table) -> Table:
    """A table of findings; numbers with four significant digits."""
    texts = [[_cell(cell) for cell in row] for row in found.rows]
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(found.title), title_justify="left")
    for column, name in enumerate(found.columns):
        words = any(isinstance(row[column], str) for row in found.rows)
        shown.add_column(Text(name), overflow="fold", justify="left" if words else "right")
    for row in texts:
        shown.add_row(*map(Text, row))
    return shown


def claims(found: Iterable[types.Claim]) -> Table:
    """One row per statement of the paper."""
    shown = empty("statement", "section", "statistic", "interval", "verdict", title="Claims")
    for claim in found:
        interval = "" if claim.interval is None else f"{claim.interval[0]:.3g} to {claim.interval[1]:.3g}"
        texts = (claim.statement, claim.section, _cell(claim.statistic), interval, claim.verdict)
        shown.add_row(*map(Text, texts))
    return shown


def _cell(value: str | float | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _value(reward: float | None) -> str:
    return "failed" if reward is None else f"{reward:g}"


def empty(*columns: str, numbers: Sequence[str] = (), title: str | None = None) -> Table:
    """A table without rows; ``numbers`` are further columns, aligned at the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right")
    return table
