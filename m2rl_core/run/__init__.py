"""What a stage function gets: its settings and inputs, a journal to write to, and checkpoints to come back to."""

from m2rl_core.run.journal import ROLLOUTS
from m2rl_core.run.stage_run import NodeView, StageRun

__all__ = ["ROLLOUTS", "NodeView", "StageRun"]
