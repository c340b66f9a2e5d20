"""Analyzers at work: the laboratory that answers what they ask, and the stage ``kind: analyze``.

Read in this order: :mod:`.stage`, :mod:`.lab` (what is at hand), :mod:`.draws` (samples, drawn once), :mod:`.scoring`
and :mod:`.gradients` (models as they score and train).
"""

from m2rl_core.analyze.lab import Laboratory
from m2rl_core.analyze.stage import analyze

__all__ = ["Laboratory", "analyze"]
