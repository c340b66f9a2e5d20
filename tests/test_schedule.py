"""Learning rates against hand cases."""

from __future__ import annotations

import pytest

from m2rl_core.config import SftStage
from m2rl_core.schedule import lr_at


def stage(schedule: str) -> SftStage:
    given = {"kind": "sft", "init": "base", "domains": ["math"], "conversations": 512, "lr": 1.0, "floor": 0.1}
    return SftStage.model_validate({**given, "schedule": schedule, "warmup": 0.2})


def test_warm_up_rises_linearly_to_the_peak() -> None:
    assert [lr_at(stage("constant"), step, 10) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("schedule", "middle"), [("constant", 1.0), ("linear", 0.55), ("cosine", 0.55)])
def test_from_peak_through_the_middle_to_the_floor(schedule: str, middle: float) -> None:
    lrs = [lr_at(stage(schedule), step, 11) for step in range(2, 11)]
    assert lrs[0] == pytest.approx(1.0)
    assert lrs[4] == pytest.approx(middle)
    assert lrs[-1] == pytest.approx(1.0 if schedule == "constant" else 0.1)
