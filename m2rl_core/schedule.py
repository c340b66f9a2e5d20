"""Learning rate as a pure function of the step."""

from __future__ import annotations

import math

from m2rl_core.config import TrainStage

__all__ = ["lr_at"]


def lr_at(stage: TrainStage, step: int, steps: int) -> float:
    """Learning rate at ``step`` of ``steps``: linear warm-up, then constant, linear or cosine down to ``floor``."""
    warm = round(stage.warmup * steps)
    if step < warm:
        return stage.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm - 1)
    left = {"constant": 1.0, "linear": 1.0 - done, "cosine": (1.0 + math.cos(math.pi * done)) / 2}[stage.schedule]
    return stage.lr * (stage.floor + (1.0 - stage.floor) * left)
