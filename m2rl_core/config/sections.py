"""The sections of a study file as typed, frozen data: :class:`Study` and one model per kind of stage.

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
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from m2rl_core.types import Reasoning

__all__ = [
    "AnalyzeStage",
    "AnyStage",
    "DomainSection",
    "EvalStage",
    "InitStage",
    "MergeStage",
    "ModelSection",
    "ModelStage",
    "OptimSection",
    "ReportStage",
    "RlStage",
    "Section",
    "SftStage",
    "Stage",
    "Study",
    "TrainStage",
    "Use",
    "schema",
]


def _spelled_out(value: object) -> object:
    """``NAME`` as ``{use: NAME}``."""
    value = {"use": value} if isinstance(value, str) else value
    if isinstance(value, Mapping) and not isinstance(value.get("use"), str):
        raise ValueError("needs a component's name, as in '{use: NAME}'")
    return value


def _shape(value: object) -> str:
    return "shares" if isinstance(value, Mapping) else "names"


Use = Annotated[
    dict[str, Any],
    BeforeValidator(_spelled_out),
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

SMALLEST_VOCAB = 256 + 3 + 4
"""Bytes, special tokens and marks that the tokenizer of :mod:`m2rl_core.init` holds, whatever it is trained on."""

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
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the matrix products; master weights and optimizer are always float32."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""


class DomainSection(Section):
    """``domains.NAME`` — the keys of the core; all other keys go to the domain's own ``Config``."""

    use: str
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
    beta1: Share = 0.9
    beta2: Share = 0.98
    eps: PositiveFloat = 1e-8
    clip: PositiveFloat = 1.0
    """Largest global gradient norm. Paper silent; the released code's value."""


class Stage(Section):
    """What all stages share."""

    tokens_per_device: PositiveInt = 36864
    """Most packed tokens, filling included, of one forward and backward pass."""


class ModelStage(Section):
    """``kind: model`` — a model trained elsewhere."""

    kind: Literal["model"]
    path: str
    """A Hugging Face folder or hub id."""
    revision: str | None = None


class InitStage(Section):
    """``kind: init`` — a fresh small Qwen3 model and a BPE tokenizer trained on the domains' demonstrations."""

    kind: Literal["init"]
    domains: list[str]
    vocab: Annotated[int, Field(ge=SMALLEST_VOCAB)] = 512
    hidden: PositiveInt = 128
    layers: PositiveInt = 4
    heads: Annotated[PositiveInt, Field(validate_default=True)] = 4
    """A divisor of ``hidden`` that leaves each head an even size, for its rotary embedding."""
    kv_heads: Annotated[PositiveInt, Field(validate_default=True)] = 2
    """A divisor of ``heads``."""
    ffn: PositiveInt = 384
    context: PositiveInt = 1024
    """Longest sequence, tokens."""

    @field_validator("heads")
    @classmethod
    def _share_hidden(cls, heads: int, found: ValidationInfo) -> int:
        hidden: int = found.data.get("hidden", 2 * heads)  # refused already where it is missing
        size, rest = divmod(hidden, heads)
        if rest:
            raise ValueError(f"heads should divide hidden, which is {hidden} (allowed: multiples of {2 * heads})")
        if size % 2:
            raise ValueError(
                f"heads should have an even size, not {size}: hidden is {hidden} (allowed: multiples of {2 * heads})"
            )
        return heads

    @field_validator("kv_heads")
    @classmethod
    def _share_heads(cls, kv_heads: int, found: ValidationInfo) -> int:
        heads: int = found.data.get("heads", kv_heads)  # refused already where it is missing
        if heads % kv_heads:
            allowed = ", ".join(str(number) for number in range(1, heads + 1) if heads % number == 0)
            raise ValueError(f"kv_heads should divide heads, which is {heads} (allowed: {allowed})")
        return kv_heads


class TrainStage(Stage):
    """What all stages that train share; each has defaults of its own where the paper's values differ."""

    init: str
    """The model that training starts from."""
    domains: Shares
    """Names (equal shares), or names with their share of the conversations or of each step's prompts."""
    lr: PositiveFloat
    """Peak learning rate."""
    schedule: Schedule = "constant"
    warmup: Share = 0.0
    """Share of the steps."""
    floor: Share = 0.0
    """Final learning rate as a share of the peak."""
    optim: OptimSection = OptimSection()
    checkpoint_every: PositiveInt
    """Steps between two checkpoints, from which a killed run continues."""


class SftStage(TrainStage):
    """``kind: sft`` — supervised fine-tuning on the domains' demonstrations, loss on assistant turns."""

    kind: Literal["sft"]
    conversations: PositiveInt
    """Conversations seen in one epoch."""
    epochs: PositiveInt = 1
    """Section A: one epoch."""
    batch: PositiveInt = 512
    """Conversations per update. Section A."""
    lr: PositiveFloat = 5e-5
    """Peak learning rate. Section A."""
    schedule: Schedule = "cosine"
    """Paper silent; the released code's value."""
    warmup: Share = 0.1
    """Share of the updates. Section A."""
    floor: Share = 0.1
    """Final learning rate as a share of the peak. Paper silent; the released code's value."""
    max_length: PositiveInt = 32768
    """Longer conversations are an error. Paper silent."""
    optim: OptimSection = OptimSection(beta2=0.95)
    checkpoint_every: PositiveInt = 100

    @model_validator(mode="after")
    def _fits(self) -> SftStage:
        if self.max_length > self.tokens_per_device:
            raise ValueError(
                f"sequences of max_length {self.max_length} exceed tokens_per_device {self.tokens_per_device}"
            )
        if self.epochs * self.conversations < self.batch:
            raise ValueError(
                f"{self.epochs * self.conversations} conversations are less than one batch of {self.batch}"
            )
        return self

    @property
    def updates(self) -> int:
        """Optimizer updates of the whole stage; conversations that fill no batch are left out."""
        return self.epochs * self.conversations // self.batch


class RlStage(TrainStage):
    """``kind: rl`` — reinforcement learning; with ``teachers``, multi-teacher on-policy distillation."""

    kind: Literal["rl"]
    algorithm: Use
    mixture: Use | None = None
    """Shares that change over time; ``None``: those of ``domains``."""
    teachers: dict[str, str] = Field(default_factory=dict)
    """Domain → model."""
    steps: PositiveInt = 400
    """Table 2."""
    prompts: PositiveInt = 128
    """Prompts per step. Table 2."""
    group: PositiveInt = 16
    """Samples per prompt. Table 2."""
    updates: PositiveInt = 1
    """Optimizer updates per step. Section A: one gradient update per 2048 rollouts."""
    max_tokens: PositiveInt = 32768
    """Most tokens that an episode may draw. Section A."""
    temperature: PositiveFloat = 1.0
    """Section A."""
    top_p: Share = 1.0
    lr: PositiveFloat = 2e-6
    """Section A."""
    keep_every: PositiveInt | None = None
    """Also keep the model of every so many steps, addressable as ``STAGE@STEP``."""
    checkpoint_every: PositiveInt = 20
    verifier_failures: Share = 0.02
    """Share of failed verdicts in one step above which the stage stops."""

    @model_validator(mode="after")
    def _fits(self) -> RlStage:
        if self.max_tokens > self.tokens_per_device:
            raise ValueError(
                f"samples of max_tokens {self.max_tokens} exceed tokens_per_device {self.tokens_per_device}"
            )
        return self


class MergeStage(Section):
    """``kind: merge`` — combine the weights of experts."""

    kind: Literal["merge"]
    base: str | None = None
    """The anchor; its tokenizer and configuration are the result's. Default: the experts' common ``init``."""
    experts: list[str]
    merger: Use
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the result; ``None``: the anchor's."""


class EvalStage(Section):
    """``kind: eval`` — Avg@k of models on suites; one node of the graph per (model, suite)."""

    kind: Literal["eval"]
    models: list[str] = ["*"]
    """Names of models; ``*`` is every model of the study, ``math@200`` a kept step."""
    suites: Counts = Field(default_factory=list)
    """Names, or names with their k; empty: every suite of the study's domains."""
    max_tokens: PositiveInt = 32768
    verifier_failures: Share = 0.02
    """Share of failed verdicts among samples drawn together above which the stage stops."""
    limit: PositiveInt | None = None
    """Only the first so many prompts of each suite."""


class AnalyzeStage(Section):
    """``kind: analyze`` — run one analyzer over the study."""

    kind: Literal["analyze"]
    analyzer: Use
    models: list[str] = ["*"]


class ReportStage(Section):
    """``kind: report`` — tables and figures of everything before it."""

    kind: Literal["report"]


AnyStage = Annotated[
    ModelStage | InitStage | SftStage | RlStage | MergeStage | EvalStage | AnalyzeStage | ReportStage,
    Field(discriminator="kind"),
]


class Study(Section):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: int = 17
    seeds: list[int] | None = None
    """Several: the whole graph is repeated for each, and the report pools them."""
    model: ModelSection = ModelSection()
    engine: Use = {"use": "embedded"}
    domains: dict[str, DomainSection] = Field(default_factory=dict)
    stages: dict[str, AnyStage]
    plugins: list[str] = Field(default_factory=list)
    """Local files or folders that offer components, e.g. ``./my_domain.py``."""

    @field_validator("seeds")
    @classmethod
    def _several(cls, seeds: list[int] | None) -> list[int] | None:
        if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
            raise ValueError("should name at least one seed, and none twice")
        return seeds


def schema() -> dict[str, Any]:
    """The JSON Schema of a study file, as a user writes it: with shorthands and ``x-*`` blocks."""
    found = Study.model_json_schema()
    domain = found["$defs"]["DomainSection"]
    del domain["properties"]["config"]
    domain["additionalProperties"] = True
    found["properties"]["domains"]["additionalProperties"] = {
        "anyOf": [{"type": "string"}, {"$ref": "#/$defs/DomainSection"}]
    }
    found["patternProperties"] = {"^x-": {}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
