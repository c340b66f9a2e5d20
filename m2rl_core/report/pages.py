"""The report as files: one HTML page that needs no network, Markdown, a CSV per table and an SVG per figure.

Whatever comes from a study or a model is text to the templates, which escape it; only drawings that were made here are
inserted as markup. The page's Content-Security-Policy forbids loads, and every script but the sample browser's.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from m2rl_core.files import atomic_folder, write_text
from m2rl_core.report.arms import Margin
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.figures import PALETTE, draw, missing, standalone
from m2rl_core.report.graph import HEIGHT, WIDTH, graph
from m2rl_core.report.samples import MOST, browsed, embedded
from m2rl_core.report.section import Section
from m2rl_core.report.tables import markdown, number, numeric_columns, plain, shown, to_csv
from m2rl_core.report.verdict import Verdict

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
COLOURS = {"mix": PALETTE[0], "merge": PALETTE[1], "distil": PALETTE[2], "": PALETTE[7]}


@dataclass(frozen=True, slots=True)
class Strip:
    """A margin as positions [%] on an axis with zero in the middle."""

    label: str
    decided: bool
    low: float
    width: float
    value: float


def write_pages(
    evidence: Evidence,
    verdict: Verdict,
    sections: Sequence[Section],
    *,
    claims: Section | None = None,
    samples: int = MOST,
) -> None:
    """Write ``index.html``, ``report.md``, ``tables/`` and ``figures/`` below ``evidence.out``, in place of older ones.

    Args:
        claims: what comes right after the verdict.
        samples: most samples to browse.

    Raises:
        UserError: jinja2 or matplotlib is not installed.
        RunError: the disk is full.
    """
    pages = environment()
    everything = [*([claims] if claims else []), verdict.section, *sections]
    figures = {name: figure for section in everything for name, figure in section.figures.items()}
    drawings = {name: draw(figure, name) for name, figure in figures.items()}
    drawings["graph"] = pages.get_template("graph.svg.j2").render(
        graph=graph(evidence), width=WIDTH, height=HEIGHT, colours=COLOURS
    )
    tables = {name: table for section in everything for name, table in section.tables.items()}
    _write_folder(evidence.out / "tables", {f"{name}.csv": to_csv(table) for name, table in tables.items()})
    _write_folder(evidence.out / "figures", {f"{name}.svg": standalone(svg) for name, svg in drawings.items()})
    script, chosen = (TEMPLATES / "browser.js").read_text(encoding="utf-8"), browsed(evidence, samples)
    content = {
        "script": script,
        "script_hash": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "samples": embedded(chosen) if chosen else "",
        "study": evidence.study,
        "about": about(evidence),
        "verdict": verdict,
        "claims": claims,
        "strips": strips(verdict.margins),
        "sections": sections,
        "drawings": drawings,
        "version": version("m2rl-core"),
    }
    for name in ("index.html", "report.md"):
        write_text(evidence.out / name, pages.get_template(f"{name}.j2").render(content))


def environment() -> Environment:
    """The templates; everything that they are given is escaped, in Markdown by the filter ``plain``.

    Raises:
        UserError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise missing(error) from error
    pages = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is None or not name.endswith(".md.j2"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    pages.filters |= {"plain": plain, "shorten": _shorten}
    pages.globals |= {"shown": shown, "numeric_columns": numeric_columns, "markdown": markdown}
    return pages


def about(evidence: Evidence) -> str:
    """What the study is, in one line."""
    _, suites = evidence.planned
    items = sum(len(next((g[s].items for g in evidence.grids.values() if s in g), ())) for s in suites)
    seeds = len(evidence.seeds)
    parts = [f"Study {evidence.study.name}", _count(seeds, "seed"), _count(len(evidence.study.domains), "domain")]
    return " · ".join([*parts, _count(len(suites), "suite"), _count(items, "prompt")])


def strips(margins: Sequence[Margin]) -> list[Strip]:
    """All margins on one axis; those without an interval are left out."""
    shown = [m for m in margins if math.isfinite(m.gap.low)]
    reach = 1.08 * max((abs(edge) for m in shown for edge in (m.gap.low, m.gap.high)), default=1.0) or 1.0
    return [
        Strip(
            f"{m.left.way} − {m.right.way}",
            m.gap.decided,
            round(50 + 50 * m.gap.low / reach, 2),
            round(50 * (m.gap.high - m.gap.low) / reach, 2),
            round(50 + 50 * m.gap.value / reach, 2),
        )
        for m in shown
    ]


def _count(n: int, noun: str) -> str:
    return f"{number(n, 0)} {noun}{'' if n == 1 else 's'}"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _write_folder(folder: Path, files: Mapping[str, str]) -> None:
    with atomic_folder(folder) as new:
        for name, text in files.items():
            (new / name).write_text(text, encoding="utf-8")
