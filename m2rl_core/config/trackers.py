"""``trackers:`` — where a study's numbers are shown beside TensorBoard. A tracker changes no result and is in no key.

Nothing leaves the machine unless a tracker's settings, or the library's own environment variables, say where to.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from m2rl_core.config.sections import Section, spelled_out
from m2rl_core.errors import ConfigError

__all__ = ["AnyTracker", "TrackioSection", "WandbSection", "check_trackers"]


class TrackioSection(Section):
    """``{use: trackio}`` — https://huggingface.co/docs/trackio; ``trackio show`` opens what it has stored."""

    use: Literal["trackio"]
    project: str | None = None
    """Null: the study's name."""
    space: str | None = None
    """The Hugging Face Space to send to, ``OWNER/NAME``; null: the folder ``trackio`` of the local cache, or what
    ``TRACKIO_DIR``, ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` says."""


class WandbSection(Section):
    """``{use: wandb}`` — Weights & Biases, https://docs.wandb.ai."""

    use: Literal["wandb"]
    project: str | None = None
    """Null: the study's name."""
    entity: str | None = None
    """User or team; null: the default of whoever is logged in."""
    mode: Literal["offline", "online"] = "offline"
    """``offline`` writes to ``wandb/`` in the stage's folder, which ``wandb sync`` sends. ``online`` sends at once;
    the key is ``WANDB_API_KEY``'s or that of ``wandb login``."""


AnyTracker = Annotated[
    Annotated[TrackioSection | WandbSection, Field(discriminator="use")], BeforeValidator(spelled_out)
]
"""``{use: NAME, ...}``; a bare name is read as ``{use: NAME}``."""


def check_trackers(trackers: Sequence[TrackioSection | WandbSection]) -> None:
    """See to it that the packages of all trackers are there, each once; nothing is imported.

    Raises:
        ConfigError: one is not installed, or named twice.
    """
    names = [each.use for each in trackers]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ConfigError(f"trackers[{index}]: '{name}' is there already", then="keep one of the two")
        if find_spec(name) is None:
            raise ConfigError(
                f"trackers[{index}]: the package '{name}' is not installed", then=f"pip install 'm2rl-core[{name}]'"
            )
