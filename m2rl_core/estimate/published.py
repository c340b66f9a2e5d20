"""Sizes of the published models that the studies here start from, for estimates before anything is downloaded."""

from __future__ import annotations

from dataclasses import replace

from m2rl_core.estimate.shape import Shape

__all__ = ["PUBLISHED"]

_SMALL = Shape(
    hidden=1024, layers=28, heads=16, kv_heads=8, head_dim=128, ffn=3072, vocab=151_936, context=32_768
)  # fmt: skip
_MIDDLE = replace(_SMALL, hidden=2048, ffn=6144)
_LARGE = replace(_SMALL, hidden=2560, layers=36, heads=32, ffn=9728)

PUBLISHED = {
    f"Qwen/Qwen3-{size}{kind}": replace(shape, context=context)
    for size, shape in (("0.6B", _SMALL), ("1.7B", _MIDDLE), ("4B", _LARGE))
    for kind, context in (("-Base", 32_768), ("", 40_960))
}
"""Hub id → what its config.json says."""
