"""Weights on disk: Hugging Face folders of safetensors, read and written piece by piece.

A :class:`Checkpoint` knows where every tensor lies and reads any range of it into a buffer that the caller reuses; a
:class:`Writer` lays the shards out first and is then filled in place, in any order and by any thread. Neither maps
files, so memory holds what the caller's buffers hold and no more. Only safetensors are accepted: a pickle can run code.
:class:`SharedWeights` hands weights to another process.
"""

from m2rl_core.weights.checkpoint import DTYPES, Checkpoint, Stored, stream_named
from m2rl_core.weights.companions import copy_companions
from m2rl_core.weights.fingerprints import LEAF, Fingerprint, fingerprint, leaves
from m2rl_core.weights.shared import Place, SharedWeights
from m2rl_core.weights.threads import in_order, torch_threads, workers
from m2rl_core.weights.writer import Layout, Writer

__all__ = [
    "DTYPES",
    "LEAF",
    "Checkpoint",
    "Fingerprint",
    "Layout",
    "Place",
    "SharedWeights",
    "Stored",
    "Writer",
    "copy_companions",
    "fingerprint",
    "in_order",
    "leaves",
    "stream_named",
    "torch_threads",
    "workers",
]
