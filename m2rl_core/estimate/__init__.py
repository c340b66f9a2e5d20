"""What a study will ask of its devices: memory and time of every training stage, by arithmetic alone.

Read in this order: :mod:`.device` (what a device can do: every assumption about it), :mod:`.shape` (the sizes of a
model), :mod:`.models` (which sizes the models of a study have), :mod:`.lengths` (the assumption about data),
:mod:`.load` (what a stage asks of a device), :mod:`.head` (what the ops on the head hold), :mod:`.memory`,
:mod:`.advice` (what to change where that does not fit), :mod:`.sampling` (what the engine holds and how long it draws),
:mod:`.seconds`, :mod:`.stages` (all of it for a study), :mod:`.merges` (disk and time of merges).

The formulas follow the core's own code and are tested against it: live bytes of real training steps, parameter by
parameter counts of transformers' models. Nothing here imports torch, loads a weight or asks a network.
"""

from m2rl_core.estimate.device import Device, Machine, machine
from m2rl_core.estimate.load import Load
from m2rl_core.estimate.memory import Memory, peak
from m2rl_core.estimate.merges import MergeCost, merge_costs
from m2rl_core.estimate.models import shape_of
from m2rl_core.estimate.seconds import Seconds
from m2rl_core.estimate.shape import Shape
from m2rl_core.estimate.stages import Estimate, assumptions, estimate

__all__ = [
    "Device",
    "Estimate",
    "Load",
    "Machine",
    "Memory",
    "MergeCost",
    "Seconds",
    "Shape",
    "assumptions",
    "estimate",
    "machine",
    "merge_costs",
    "peak",
    "shape_of",
]
