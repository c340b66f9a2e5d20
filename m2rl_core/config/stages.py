"""One model per kind of stage. Defaults are the paper's values (section or table cited) or marked "paper silent"."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from m2rl_core.config.blend import BlendSource
from m2rl_core.config.search import SearchSection
from m2rl_core.config.sections import (
    Counts,
    EvidenceSection,
    OptimSection,
    Schedule,
    Section,
    SftOptimSection,
    Share,
    Shares,
    Use,
)

__all__ = [
    "AnalyzeStage",
    "AnyStage",
    "EvalStage",
    "InitStage",
    "MergeStage",
    "ModelStage",
    "ReportStage",
    "RlStage",
    "SftStage",
    "Stage",
    "TrainStage",
]

SMALLEST_VOCAB = 256 + 3 + 4
"""Bytes, special tokens and marks that the tokenizer of :mod:`m2rl_core.init` holds, whatever it is trained on."""


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
    """Commit of ``path``, where that is a hub id."""
    domains: list[str] = Field(default_factory=list)
    """What reinforcement learning has trained it on, for analyses and the report: one for an expert, several for a
    mixed model."""


class InitStage(Section):
    """``kind: init`` — a fresh small Qwen3 model and a BPE tokenizer trained on the domains' demonstrations."""

    kind: Literal["init"]
    domains: list[str]
    """Whose demonstrations the tokenizer is trained on."""
    vocab: Annotated[int, Field(ge=SMALLEST_VOCAB)] = 512
    """Tokens, special ones included."""
    hidden: PositiveInt = 128
    """Width of the residual stream."""
    layers: PositiveInt = 4
    """Transformer blocks."""
    heads: Annotated[PositiveInt, Field(validate_default=True)] = 4
    """A divisor of ``hidden`` that leaves each head an even size, for its rotary embedding."""
    kv_heads: Annotated[PositiveInt, Field(validate_default=True)] = 2
    """A divisor of ``heads``."""
    ffn: PositiveInt = 384
    """Width within a block's feed-forward part."""
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
    """Course of the learning rate after its warm-up. Section A: constant."""
    warmup: Share = 0.0
    """Share of the steps."""
    floor: Share = 0.0
    """Final learning rate as a share of the peak."""
    optim: OptimSection = OptimSection()
    """AdamW's settings."""
    checkpoint_every: PositiveInt
    """Steps between two checkpoints, from which a killed run continues."""


class SftStage(TrainStage):
    """``kind: sft`` — supervised fine-tuning on the domains' demonstrations or on a blend, loss on assistant turns."""

    kind: Literal["sft"]
    domains: Shares = Field(default_factory=list)
    """Names (equal shares), or names with their share of the conversations; none where there is a ``blend``."""
    blend: dict[str, BlendSource] = Field(default_factory=dict)
    """Instead of the domains' demonstrations: rows from several sources, each under a name, as in Table 1. They are
    streamed, and what they come to is written beside the stage once."""
    conversations: PositiveInt
    """Conversations seen in one epoch. Of a larger blend, so many in the order of its shuffling."""
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
    """Longer demonstrations are an error; longer conversations of a blend are cut, and counted. Paper silent."""
    rollouts: dict[str, str] = Field(default_factory=dict)
    """Domain → rl stage of the same vocabulary whose right samples, the latest first, are its demonstrations:
    distillation off policy. Other domains show their own demonstrations."""
    threads: PositiveInt = 1
    """CPU threads of each process. Without a GPU a stage takes so many of the study's places: worth it where nothing
    else can run meanwhile. Sums in another order round otherwise, so it belongs to the result."""
    optim: SftOptimSection = SftOptimSection()
    """AdamW's settings."""
    checkpoint_every: PositiveInt = 100
    """Updates between two checkpoints, from which a killed run continues."""

    @model_validator(mode="after")
    def _learns_from_one_kind(self) -> SftStage:
        if bool(self.domains) == bool(self.blend):
            raise ValueError("takes the demonstrations of domains or a blend (allowed: one of domains and blend)")
        if self.blend and self.rollouts:
            raise ValueError("rollouts are demonstrations of domains, and a blend has none (allowed: one of both)")
        return self

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
    """``kind: rl`` — reinforcement learning; with ``teachers``, multi-teacher on-policy distillation.

    One whose ``init`` is another rl stage goes on where that ended, with an optimizer of its own: domains in sequence
    are a cascade. Teachers at its end repair what it forgot.
    """

    kind: Literal["rl"]
    algorithm: Use
    """The name of an algorithm, or ``{use: NAME}`` with its settings and parts of one's own choice."""
    mixture: Use | None = None
    """Shares that the data decide (``proportional``), or the rewards (``worst-task``); null: those of
    ``domains``."""
    teachers: dict[str, str] = Field(default_factory=dict)
    """Domain → model."""
    steps: PositiveInt = 400
    """Table 2."""
    prompts: PositiveInt = 128
    """Prompts per step. Table 2."""
    group: PositiveInt = 16
    """Samples per prompt. Table 2."""
    refill: NonNegativeInt = 0
    """How often a step's groups of equal rewards are replaced by new prompts of their domains, as in DAPO's dynamic
    sampling. Paper silent; the released code samples once."""
    staleness: Literal[0, 1] = 0
    """Steps that rollouts are ahead of training: with 1, a second process draws the groups of the next step while this
    one is trained on, with weights one step old; needs an importance rule. The paper's code samples first."""
    updates: PositiveInt = 1
    """Optimizer updates per step. Section A: one gradient update per 2048 rollouts."""
    max_tokens: PositiveInt = 32768
    """Most tokens that an episode may draw. Section A."""
    temperature: PositiveFloat = 1.0
    """Of sampling, and of the log-probs that are trained on. Section A."""
    top_p: Share = 1.0
    """Below 1 is refused: it would train on tokens of another distribution than the policy's."""
    lr: PositiveFloat = 2e-6
    """Peak learning rate. Section A."""
    keep_every: PositiveInt | None = None
    """Also keep the model of every so many steps, addressable as ``STAGE@STEP``."""
    checkpoint_every: PositiveInt = 20
    """Steps between two checkpoints, from which a killed run continues."""
    verifier_failures: Share = 0.02
    """Share of failed verdicts in one step above which the stage stops."""

    @model_validator(mode="after")
    def _fits(self) -> RlStage:
        if self.max_tokens > self.tokens_per_device:
            raise ValueError(
                f"samples of max_tokens {self.max_tokens} exceed tokens_per_device {self.tokens_per_device}"
            )
        if self.updates > self.prompts * self.group:
            raise ValueError(f"{self.updates} updates have more than the {self.prompts * self.group} samples of a step")
        if self.refill and self.group == 1:
            raise ValueError("refill needs a group of at least 2: rewards of one sample are always equal")
        return self


class MergeStage(Section):
    """``kind: merge`` — combine the weights of experts."""

    kind: Literal["merge"]
    base: str | None = None
    """The anchor; its tokenizer and configuration are the result's. Default: the experts' common ``init``."""
    experts: list[str]
    """Names of models of one architecture and vocabulary."""
    merger: Use
    """The name of a merger, or ``{use: NAME}`` with its settings."""
    evidence: EvidenceSection | None = None
    """For mergers that need more than weights."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the result; null: the anchor's."""
    search: SearchSection | None = None
    """Choose among settings of the merger."""


class EvalStage(Section):
    """``kind: eval`` — Avg@k of models on suites; one node of the graph per (model, suite)."""

    kind: Literal["eval"]
    models: list[str] = ["*"]
    """Names of models; ``*`` is every model of the study, ``math@200`` a kept step."""
    suites: Counts = Field(default_factory=list)
    """Names, or names with their k; empty: every suite of the study's domains."""
    max_tokens: PositiveInt = 32768
    """Most tokens that an answer may have."""
    verifier_failures: Share = 0.02
    """Share of failed verdicts among samples drawn together above which the stage stops."""
    limit: PositiveInt | None = None
    """Only the first so many prompts of each suite."""


class AnalyzeStage(Stage):
    """``kind: analyze`` — run one analyzer over the study."""

    kind: Literal["analyze"]
    analyzer: Use
    """The name of an analyzer, or ``{use: NAME}`` with its settings."""
    models: list[str] = ["*"]
    """Names of models; ``*`` is every model of the study, ``math@200`` a kept step."""
    verifier_failures: Share = 0.02
    """Share of failed verdicts among samples drawn together above which the stage stops."""


class ReportStage(Section):
    """``kind: report`` — tables and figures of everything before it."""

    kind: Literal["report"]


AnyStage = Annotated[
    ModelStage | InitStage | SftStage | RlStage | MergeStage | EvalStage | AnalyzeStage | ReportStage,
    Field(discriminator="kind"),
]
