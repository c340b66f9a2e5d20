"""How vLLM is started: the same arguments for a child of this process and for a server."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2rl_engine_vllm.config import VllmConfig

__all__ = ["BACKEND", "EXTENSION", "FIXED", "arguments", "environment", "flags"]

BACKEND = "m2rl-files"
"""Under this name :mod:`.worker` registers with vLLM's ``WeightTransferEngineFactory``."""
EXTENSION = "m2rl_engine_vllm.worker.Extension"
"""Imported by every vLLM worker, which registers the backend there."""
BATCHED_TOKENS = 8192
"""Most tokens of one forward pass, where prompts are prefilled in parts."""
FIXED: Mapping[str, Any] = {
    "enable_prefix_caching": True,
    "logprobs_mode": "processed_logprobs",
    "generation_config": "vllm",
    "load_format": "safetensors",
}
"""What m2rl relies on: log-probs after the temperature, no settings but ours, weights from safetensors only."""


def arguments(config: VllmConfig, model: Path, context: int, *, cuda: bool) -> dict[str, Any]:
    """vLLM's ``AsyncEngineArgs`` for the Hugging Face folder ``model`` and contexts of up to ``context`` tokens."""
    return {
        **FIXED,
        "model": str(model),
        "dtype": config.dtype,
        "max_model_len": context,
        "max_num_seqs": config.rows,
        # on a CPU, vLLM 0.32 dies where a prompt with a seed is prefilled in parts, so a pass must take the longest
        "enable_chunked_prefill": cuda,
        "max_num_batched_tokens": BATCHED_TOKENS if cuda else max(context, BATCHED_TOKENS),
        "gpu_memory_utilization": config.memory,
        "kv_cache_memory_bytes": None if config.cache_gib is None else int(config.cache_gib * 2**30),
        "enforce_eager": config.eager,
        "enable_sleep_mode": cuda and config.placement == "colocated" and config.sleep != 0,
        "worker_extension_cls": EXTENSION,
        "weight_transfer_config": {"backend": BACKEND},
    }


def flags(values: Mapping[str, Any]) -> list[str]:
    """The same as options of ``vllm serve``."""
    found: list[str] = []
    for name, value in values.items():
        option = name.replace("_", "-")
        if value is True or value is False:
            found.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            found += [f"--{option}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return found


def environment(*, cuda: bool) -> dict[str, str]:
    """Variables that vLLM needs; what is set already stays as it is."""
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    }
    if not cuda:
        # threads are not bound to cores, which the trainer uses too; no process for the worker alone
        wanted |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    return {name: value for name, value in wanted.items() if name not in os.environ}
