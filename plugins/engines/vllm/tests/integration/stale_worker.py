"""A worker that forgets to pack the tied head again: what the check after every update must find."""

from __future__ import annotations

import m2rl_engine_vllm.worker as worker
from m2rl_engine_vllm.worker import Extension

__all__ = ["Extension"]

worker.repack = lambda model: None
