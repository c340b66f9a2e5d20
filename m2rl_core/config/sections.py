"""What the parts of a study file are made of: frozen sections, shares, components; and the sections that are no stages.

Defaults are the paper's values (section or table cited) or marked "paper silent". An unknown key is an error. This
module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    WithJsonSchema,
    model_validator,
)

from m2rl_core.types import Reasoning

__all__ = [
    "Counts",
    "DomainSection",
    "EvidenceSection",
    "ModelSection",
    "OptimSection",
    "Schedule",
    "Section",
    "SftOptimSection",
    "Share",
    "Shares",
    "Use",
    "spelled_out",
]


def spelled_out(value: object) -> object:
    """``NAME`` as ``{use: NAME}``.

    Raises:
        ValueError: a mapping that names nothing.
    """
    value = {"use": value} if isinstance(value, str) else value
    if isinstance(value, Mapping) and not isinstance(value.get("use"), str):
        raise ValueError("needs a component's name, as in '{use: NAME}'")
    return value


def _shape(value: object) -> str:
    return "shares" if isinstance(value, Mapping) else "names"


Use = Annotated[
    dict[str, Any],
    BeforeValidator(spelled_out),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"use": {"type": "string"}}, "required": ["use"]},
            ]
        }
    ),
]
"""``{use: NAME, **config}``; a bare name is read as ``{use: NAME}``."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]

Schedule = Literal["constant", "linear", "cosine"]
"""Course of the learning rate after its warm-up."""

Shares = Annotated[
    Annotated[list[str], Tag("names")] | Annotated[dict[str, PositiveFloat], Tag("shares")], Discriminator(_shape)
]
"""Names, or names with a weight each."""

Counts = Annotated[
    Annotated[list[str], Tag("names")] | Annotated[dict[str, PositiveInt], Tag("shares")], Discriminator(_shape)
]
"""Names, or names with a number each."""


class Section(BaseModel):
    """Base of every part of a study file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelSection(Section):
    """``model:`` — where the study starts from and how weights are held."""

    base: str | None = None
    """A Hugging Face folder or hub id, available to stages as ``base``."""
    revision: str | None = None
    """Commit of ``base``, where that is a hub id."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the matrix products; master weights and optimizer are always float32."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    optimizer_offload: bool = False
    """Keep AdamW's moments in host memory: 8 bytes per parameter less on the GPUs together, the same numbers."""
    trust_remote_code: bool = False
    """Run the code that a model's folder brings along. Only for models whose code you have read."""


class DomainSection(Section):
    """``domains.NAME`` — the keys of the core; all other keys go to the domain's own ``Config``."""

    use: str
    """Name of a domain component."""
    reasoning: Reasoning = "required"
    """Format gate of the reward: exactly one ``</think>``, graded on what follows (section 3.1)."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The domain's own keys. A study file writes them beside ``use``."""

    @model_validator(mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        """``{use, reasoning, **config}`` → the core's keys beside ``config``; a bare name is ``{use: NAME}``."""
        if isinstance(value, str):
            return {"use": value}
        if not isinstance(value, Mapping) or "config" in value:
            return value
        own = {key: item for key, item in value.items() if key in cls.model_fields}
        return own | {"config": {key: item for key, item in value.items() if key not in own}}


class OptimSection(Section):
    """AdamW, as in section A and the released code's scripts."""

    weight_decay: float = 0.1
    """Of matrices, decoupled from the gradient; norms and biases do not decay."""
    beta1: Share = 0.9
    """Share of the old mean that a step keeps."""
    beta2: Share = 0.98
    """Share of the old mean of squares that a step keeps."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the mean of squares."""
    clip: PositiveFloat = 1.0
    """Largest global gradient norm. Paper silent; the released code's value."""


class SftOptimSection(OptimSection):
    """AdamW for supervised fine-tuning, as in section A."""

    beta2: Share = 0.95
    """Share of the old mean of squares that a step keeps."""


class EvidenceSection(Section):
    """``evidence:`` of a merge stage — the token sequences that tell a merger what each expert relies on."""

    samples: PositiveInt = 64
    """Sequences of each expert: a sample of each of the latest so many prompts that its rl stage has drawn, or the
    first so many of its conversations. Paper silent."""
    conversations: dict[str, str] = Field(default_factory=dict)
    """Expert → a file of JSON lines, ``{"messages": [...], "tools": [...]}``; for experts without an rl stage."""
    tokens_per_device: PositiveInt = 36864
    """Most packed tokens, filling included, of one forward and backward pass."""
