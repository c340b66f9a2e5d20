"""Rows of the RL blend's schema (``nvidia/Nemotron-3-Nano-RL-Training-Blend``), as domains read them, and of SFT data.

They come from local .jsonl and .parquet files, from a folder written by ``save_to_disk`` or, pinned to a commit, from
the hub. Importing this package imports neither ``datasets`` nor ``pyarrow``: reading all but JSON lines does.
"""

from m2rl_core.rows.blend import gold, messages, request, rows
from m2rl_core.rows.conversations import UnusableError, conversation
from m2rl_core.rows.questions import Questions
from m2rl_core.rows.sources import is_commit, is_hub_id, local_files, numbered, on_hub

__all__ = [
    "Questions",
    "UnusableError",
    "conversation",
    "gold",
    "is_commit",
    "is_hub_id",
    "local_files",
    "messages",
    "numbered",
    "on_hub",
    "request",
    "rows",
]
