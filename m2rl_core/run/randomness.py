"""The generators that a process has once: Python's, NumPy's, torch's.

m2rl draws from none of them; every draw of its own comes from a hash of what it is for. A model's dropout or a plugin
may, so they begin with a hash of the stage's seed and are part of every state. This module imports neither library.
"""

from __future__ import annotations

import base64
import json
import random
import sys
from pathlib import Path
from typing import Any

__all__ = ["Randomness"]

FILE = "generators.json"


class Randomness:
    """A part of a stage's state."""

    def seed(self, seed: int) -> None:
        """Begin anew, in every library that the stage has imported by now."""
        random.seed(seed)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(seed % 2**32)
        if torch := sys.modules.get("torch"):
            torch.manual_seed(seed)

    def save_state(self, folder: Path) -> None:
        version, inner, gauss = random.getstate()
        found: dict[str, Any] = {"python": [version, list(inner), gauss]}
        if numpy := sys.modules.get("numpy"):
            name, keys, *rest = numpy.random.get_state()
            found["numpy"] = [name, keys.tolist(), *rest]
        if torch := sys.modules.get("torch"):
            found["torch"] = _text(torch.get_rng_state())
            if torch.cuda.is_initialized():
                found["cuda"] = [_text(state) for state in torch.cuda.get_rng_state_all()]
        (folder / FILE).write_text(json.dumps(found))

    def load_state(self, folder: Path) -> None:
        found = json.loads((folder / FILE).read_text())
        version, inner, gauss = found["python"]
        random.setstate((version, tuple(inner), gauss))
        if (numpy := sys.modules.get("numpy")) and "numpy" in found:
            numpy.random.set_state(tuple(found["numpy"]))
        if (torch := sys.modules.get("torch")) and "torch" in found:
            torch.set_rng_state(_state(torch, found["torch"]))
            if len(found.get("cuda", ())) == torch.cuda.device_count() > 0:
                torch.cuda.set_rng_state_all([_state(torch, text) for text in found["cuda"]])


def _text(state: Any) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _state(torch: Any, text: str) -> Any:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
