"""What a stage function gets: its settings and inputs, a journal to write to, and checkpoints to come back to."""

from m2rl_core.run.journal import ROLLOUTS
from m2rl_core.run.stage_run import NodeView, StageRun
from m2rl_core.run.states import Components

__all__ = ["ROLLOUTS", "Components", "NodeView", "StageRun"]
