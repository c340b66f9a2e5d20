"""From evaluation records to rewards per prompt and sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FEWEST = 4
"""Verdicts of every model that noise can be corrected with: two halves, each with a part to choose on and a part to
value."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the base, the experts and one arm scored on one suite, on the prompts that all of them have answered."""

    prompts: Sequence[str]
    base_IK: Floats
    """Rewards [prompts, samples]; NaN for a failed verdict."""
    experts_EIK: Sequence[Floats]
    arm_IK: Floats

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def enough(self) -> Answers:
        """Only the prompts of which every model has :data:`FEWEST` verdicts."""
        arrays = (self.base_IK, *self.experts_EIK, self.arm_IK)
        known_I = np.all([np.isfinite(each).sum(1) >= FEWEST for each in arrays], axis=0)
        prompts = [prompt for prompt, known in zip(self.prompts, known_I, strict=True) if known]
        return Answers(prompts, self.base_IK[known_I], [e[known_I] for e in self.experts_EIK], self.arm_IK[known_I])


def rewards(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Prompt → its rewards, in the order of the records, without failed verdicts."""
    found: dict[str, list[float]] = {}
    for record in records:
        known = found.setdefault(record["prompt"], [])
        if record["reward"] is not None:
            known.append(float(record["reward"]))
    return found


def aligned(
    base: Mapping[str, Sequence[float]],
    experts: Sequence[Mapping[str, Sequence[float]]],
    arm: Mapping[str, Sequence[float]],
) -> Answers:
    """Rewards by prompt of all models as arrays, of prompts with a verdict everywhere, in the base's order."""
    everyone = [base, *experts, arm]
    prompts = [p for p in base if all(each.get(p) for each in everyone)]
    arrays = [_array([each[p] for p in prompts]) for each in everyone]
    return Answers(prompts, arrays[0], arrays[1:-1], arrays[-1])


def _array(rows: Sequence[Sequence[float]]) -> Floats:
    """[rows, longest], filled up with NaN."""
    found = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for row, values in zip(found, rows, strict=True):
        row[: len(values)] = values
    return found
