"""mergekit's recipes, read with mergekit's semantics where our mergers can have them."""

from m2rl_core.merge.mergekit.reading import read_mergekit

__all__ = ["read_mergekit"]
