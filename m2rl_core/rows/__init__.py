"""Rows of the blend's schema (``nvidia/Nemotron-3-Nano-RL-Training-Blend``), as domains read them.

They come from local .jsonl and .parquet files or, pinned to a commit, from the hub. Importing this package imports
neither ``datasets`` nor ``pyarrow``: reading parquet or the hub does.
"""

from m2rl_core.rows.blend import gold, messages, rows
from m2rl_core.rows.sources import is_commit, is_hub_id, on_hub

__all__ = ["gold", "is_commit", "is_hub_id", "messages", "on_hub", "rows"]
