"""Figure 1 of the paper for any study: how its models come from each other, from left to right.

Columns begin at the top, and models that come from each other one by one stand below each other in one of them, so that
a narrow screen, which shows two columns at once, begins with something to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from m2rl_core.config import InitStage, MergeStage, ModelStage, RlStage, SftStage, is_cascade
from m2rl_core.report.arms import way_of
from m2rl_core.report.evidence import Evidence, done, stage_of

WIDTH, HEIGHT, ACROSS, DOWN = 144, 42, 52, 12
"""Of a box, and the space between boxes."""

Maker = ModelStage | InitStage | SftStage | RlStage | MergeStage


@dataclass(frozen=True, slots=True)
class Box:
    """One model of the study."""

    name: str
    detail: str
    way: str
    """``mix``, ``merge``, ``distil`` or nothing."""
    x: float
    y: float
    done: bool


@dataclass(frozen=True, slots=True)
class Arrow:
    """From a model to one that is made of it."""

    path: str
    """SVG path data."""
    teaches: bool


@dataclass(frozen=True, slots=True)
class Graph:
    """A drawing, to be written down by a template."""

    boxes: list[Box]
    arrows: list[Arrow]
    width: float
    height: float


def graph(evidence: Evidence) -> Graph:
    """Lay the models out in columns: each stands right of everything that it is made of, or below it."""
    makers = {n: s for n, s in evidence.study.stages.items() if isinstance(s, Maker)}
    sources = {name: dict(_sources(stage)) for name, stage in makers.items()}
    for name in sorted({source for found in sources.values() for source in found} - sources.keys()):
        sources = {name: {}, **sources}
    columns = _columns(sources)
    height = max(map(len, columns), default=0) * (HEIGHT + DOWN) - DOWN
    places = {
        name: (column * (WIDTH + ACROSS), row * (HEIGHT + DOWN))
        for column, names in enumerate(columns)
        for row, name in enumerate(names)
    }
    boxes = [_box(evidence, name, *place) for name, place in places.items()]
    arrows = [
        Arrow(_path(places[source], places[name]), teaches)
        for name, found in sources.items()
        for source, teaches in found.items()
    ]
    return Graph(boxes, arrows, len(columns) * (WIDTH + ACROSS) - ACROSS, height)


def _sources(stage: Maker) -> Iterator[tuple[str, bool]]:
    """(stage, whether it only teaches) of everything that a stage's model is made of; a merge's base is left out."""
    if isinstance(stage, SftStage | RlStage):
        yield stage_of(stage.init), False
    if isinstance(stage, RlStage):
        yield from ((stage_of(model), True) for model in stage.teachers.values())
    if isinstance(stage, MergeStage):
        yield from ((stage_of(model), False) for model in stage.experts)


def _columns(sources: dict[str, dict[str, bool]]) -> list[list[str]]:
    """Models by the longest way that leads to them, in the order of the study; those at the start of which there is
    but one each share the first column."""
    depth: dict[str, int] = {}

    def measure(name: str) -> int:
        if name not in depth:
            depth[name] = max((1 + measure(source) for source in sources[name]), default=0)
        return depth[name]

    columns: list[list[str]] = [[] for _ in range(1 + max(map(measure, sources), default=-1))]
    for name in sources:
        columns[depth[name]].append(name)
    line = [names[0] for names in takewhile(lambda names: len(names) == 1, columns)]
    return [line, *columns[len(line) :]] if line else columns


def _box(evidence: Evidence, name: str, x: float, y: float) -> Box:
    nodes = evidence.of_stage(name)
    way = "merge" if isinstance(evidence.stage(name), MergeStage) else way_of(evidence, name) or ""
    return Box(name, _detail(evidence, name), way, x, y, bool(nodes) and all(map(done, nodes)))


def _detail(evidence: Evidence, name: str) -> str:
    match evidence.study.stages.get(name):
        case RlStage() as stage:
            return f"{_learning(evidence, name, stage)}, {stage.steps} steps"
        case SftStage():
            return "fine-tuning"
        case InitStage():
            return "fresh model"
        case MergeStage() as stage:
            return "merge" if stage.merger["use"] == name else f"merge: {stage.merger['use']}"
        case _:
            return "given model"


def _learning(evidence: Evidence, name: str, stage: RlStage) -> str:
    if stage.teachers:
        return "distil"
    if is_cascade(evidence.study, name):
        return "cascade"
    return "mixed" if len(stage.domains) > 1 else "expert"


def _path(source: tuple[float, float], target: tuple[float, float]) -> str:
    """From the right side of one box to the left side of another, or down to the next one."""
    if source[0] == target[0]:
        return f"M{source[0] + WIDTH / 2:g} {source[1] + HEIGHT:g}V{target[1]:g}"
    x0, y0 = source[0] + WIDTH, source[1] + HEIGHT / 2
    x1, y1 = target[0], target[1] + HEIGHT / 2
    bend = ACROSS * 0.6
    return f"M{x0:g} {y0:g}C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1:g} {y1:g}"
