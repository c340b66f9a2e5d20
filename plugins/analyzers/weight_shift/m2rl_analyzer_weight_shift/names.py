"""Which weights a tensor holds, told by its Hugging Face name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from m2rl_core.errors import DataError

LABELS: Mapping[str, str] = {
    "q": "Q",
    "k": "K",
    "v": "V",
    "o": "O",
    "down": "FFN-down",
    "up": "FFN-up",
    "gate": "FFN-gate",
}
"""Weight type → its heading, in the order of the paper's Table 5."""

PARTS: Mapping[str, tuple[str, ...]] = {"attention": ("q", "k", "v", "o"), "FFN": ("down", "up", "gate")}
"""What Figure 3 averages over."""

_PROJECTION = re.compile(
    r"(?:(?:model|language_model)\.)*layers\.(\d+)\.(?:.+\.)?(q|k|v|o|down|up|gate)_proj\.weight"
)  # a vision tower's layers have another beginning, and are other weights


class Place(NamedTuple):
    """One weight type of one layer; all experts of a mixture-of-experts layer are one place."""

    layer: int
    kind: str


def places(names: Iterable[str]) -> dict[str, Place | None]:
    """Where each tensor belongs; ``None`` for embeddings, norms, biases and whatever else.

    Raises:
        DataError: not one tensor is a projection of a transformer layer by its name.
    """
    found = {name: _place(name) for name in names}
    if not any(found.values()):
        raise DataError(
            "weight-shift does not know this model's weight types: no tensor has the name of a projection",
            found=", ".join(list(found)[:3]),
            allowed="names like model.layers.17.self_attn.q_proj.weight: q, k, v, o, down, up and gate",
            then="convert the checkpoint to the names of Llama and Qwen; fused projections must be split",
        )
    return found


def _place(name: str) -> Place | None:
    match = _PROJECTION.fullmatch(name)
    return Place(int(match[1]), match[2]) if match else None
