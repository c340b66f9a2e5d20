"""The stage graph as a drawing: where its boxes stand and where its arrows lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from m2rl_core.config import Study
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.graph import ACROSS, DOWN, HEIGHT, WIDTH, Graph, graph

BOTH = ["math", "science"]
RL = {"kind": "rl", "init": "sft", "algorithm": "grpo"}


def drawn(**stages: dict[str, Any]) -> Graph:
    plan = {"name": "toy", "domains": {d: d for d in BOTH}, "stages": stages}
    return graph(Evidence(Study.model_validate(plan), [], Path()))


def places(found: Graph) -> dict[str, tuple[float, float]]:
    """Box → (column, row)."""
    return {box.name: (box.x / (WIDTH + ACROSS), box.y / (HEIGHT + DOWN)) for box in found.boxes}


def test_what_comes_one_by_one_stands_in_one_column_and_columns_begin_at_the_top() -> None:
    found = drawn(
        init={"kind": "init", "domains": BOTH},
        sft={"kind": "sft", "init": "init", "domains": BOTH, "conversations": 640},
        math={**RL, "domains": ["math"]},
        science={**RL, "domains": ["science"]},
        average={"kind": "merge", "base": "sft", "experts": BOTH, "merger": "average"},
    )
    assert places(found) == {"init": (0, 0), "sft": (0, 1), "math": (1, 0), "science": (1, 1), "average": (2, 0)}
    assert (found.width, found.height) == (3 * WIDTH + 2 * ACROSS, 2 * HEIGHT + DOWN)
    down, across = found.arrows[0].path, found.arrows[1].path
    assert down == f"M{WIDTH / 2:g} {HEIGHT}V{HEIGHT + DOWN}"
    assert across.startswith(f"M{WIDTH} {HEIGHT + DOWN + HEIGHT / 2:g}C")
    assert across.endswith(f"{WIDTH + ACROSS} {HEIGHT / 2:g}")


def test_models_that_all_come_from_elsewhere_stand_in_one_column() -> None:
    found = drawn(one={"kind": "model", "path": "./one"}, other={"kind": "model", "path": "./other"})
    assert places(found) == {"one": (0, 0), "other": (0, 1)}


def test_a_cascade_alone_is_a_line_downwards() -> None:
    found = drawn(
        sft={"kind": "model", "path": "./sft"},
        first={**RL, "domains": ["math"]},
        second={**RL, "init": "first", "domains": ["science"]},
    )
    assert places(found) == {"sft": (0, 0), "first": (0, 1), "second": (0, 2)}
