"""Merging: the weights of experts become one model, streamed, exact and checked.

Memory does not grow with the models: blocks of a few hundred thousand weights are read into reused buffers, computed in
float32, rounded once and written in place. Nothing is written before the inputs have been found to belong together
(:mod:`m2rl_core.merge.checks`), and what is written becomes visible only when it is whole.
"""

from m2rl_core.merge.card import Diagnostics
from m2rl_core.merge.models import merge_models
from m2rl_core.merge.parts import Parted
from m2rl_core.merge.reading import load_recipe, merge_recipe
from m2rl_core.merge.recipe import Loaded, Part, Recipe, stated
from m2rl_core.merge.stage import merge
from m2rl_core.merge.sweep import Sweep

__all__ = [
    "Diagnostics",
    "Loaded",
    "Part",
    "Parted",
    "Recipe",
    "Sweep",
    "load_recipe",
    "merge",
    "merge_models",
    "merge_recipe",
    "stated",
]
