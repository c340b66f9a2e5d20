"""The nouns of the system: plain data that every other module passes around.

Shape suffixes, explained here and nowhere else:

====  =============================================  ====  ==========================================
_P    prompts of one step                            _N    sequences of one packed batch
_G    samples of one group (one prompt)              _E    experts of one merge
_S    samples of one step                            _L    tokens of one sample
_T    tokens of one packed batch (rows × columns)    V, H  vocabulary and hidden size, in comments
====  =============================================  ====  ==========================================

Index ``t`` always means *token t given the tokens before it*. This module imports no torch, so that verifier
processes and ``m2rl plugins`` start fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Required, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Batch",
    "Block",
    "Claim",
    "ClaimVerdict",
    "Composition",
    "Conversation",
    "Correction",
    "Diagnosis",
    "Divergence",
    "Expected",
    "Figure",
    "Findings",
    "Finish",
    "Group",
    "Health",
    "Message",
    "Piece",
    "Prompt",
    "Reasoning",
    "Reduction",
    "Reward",
    "Sample",
    "Sampling",
    "Stats",
    "Suite",
    "Table",
    "Trajectory",
    "Turn",
    "Verdict",
    "Way",
]

Verdict = Literal["right", "wrong", "failed"]
Health = Literal["ok", "note", "broken"]
Reasoning = Literal["required", "optional", "off"]
Finish = Literal["stop", "length", "abort"]
Reduction = Literal["sequence", "token", "constant"]
ClaimVerdict = Literal["holds", "fails", "undecided", "not measurable"]
Expected = tuple[Literal["above", "below"], float]
"""On which side of a limit a statistic should lie."""
Way = Literal["mix", "merge", "distil"]
"""How a model comes to combine several domains."""


class Message(TypedDict, total=False):
    """One chat message, in the shape that ``transformers`` chat templates take."""

    role: Required[str]
    content: Required[str]
    name: str
    tool_calls: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question of a domain, with all that its verifier needs."""

    id: str
    """Unique within the domain and stable over versions of the code, e.g. ``train/2/000017``."""
    domain: str
    messages: tuple[Message, ...]
    ground_truth: Any = None
    """Plain JSON data. ``None`` only where the verifier needs none."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the tools that the chat template shows to the model."""
    weight: float = 1.0
    """Share of this prompt in its suite's score: a suite of nested means (BFCL) is a weighted mean of prompts."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One demonstration for supervised fine-tuning; the loss falls on the assistant's turns."""

    id: str
    domain: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One finished episode as a verifier sees it: plain data, no tokens."""

    prompt: Prompt
    messages: tuple[Message, ...]
    """Everything after the prompt: assistant turns with their reasoning, tool and user messages."""
    answer: str
    """What the last assistant turn says after its reasoning; the core has already applied the format gate."""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Reward:
    """A verifier's word on one trajectory.

    ``value`` lies in [0, 1]; ``None`` means that the *verifier* failed, which is never a reward of 0
    (such a sample leaves its group).
    """

    value: float | None
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value is not None and not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a reward lies in [0, 1] or is None, found {self.value!r}")

    @property
    def verdict(self) -> Verdict:
        """``right`` for a full reward, ``wrong`` below, ``failed`` where the verifier could not tell."""
        if self.value is None:
            return "failed"
        return "right" if self.value == 1.0 else "wrong"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine draws tokens. Noise is a hash of (seed, sample, position) and of nothing else."""

    max_tokens: int
    """Most tokens to draw in this call."""
    temperature: float = 1.0
    """0 means greedy; log-probs are then those of temperature 1."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means off."""
    stop_ids: tuple[int, ...] = ()
    seed: int = 0
    """One number per (stage seed, step, prompt)."""
    sample: int = 0
    """Index of the first of the samples drawn; the others follow."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What an engine drew for one sample: three lists of the same length."""

    ids: list[int]
    logps: list[float]
    """Log-probabilities [nats] under the distribution that was sampled from (temperature applied)."""
    versions: list[int]
    """Version of the policy that drew each token."""
    finish: Finish


@dataclass(frozen=True, slots=True)
class Suite:
    """A named evaluation set of a domain."""

    source: str
    """Where the prompts come from: ``generated``, a path, or a hub id."""
    description: str = ""
    revision: str = ""
    k: int = 1
    """Samples per prompt: the suite's score is Avg@k."""
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    """``None``: the evaluation stage's own limit."""
    reasoning: Reasoning = "optional"
    """A base model must be measurable, so suites do not demand reasoning unless they say so."""
    missing: str = ""
    """What to do before it can be evaluated; empty as a rule. Where no suite is named, such a one is left out."""


@dataclass(slots=True)
class Sample:
    """One sampled episode: what is trained on is exactly what was sampled.

    The four ``_L`` lists have one entry per token, prompt included. ``starts`` says where sequences begin: one
    sequence as a rule; one per turn where earlier reasoning is dropped from the context.
    """

    prompt: Prompt
    index: int
    """Position in its group."""
    ids_L: list[int]
    sampled_L: list[bool]
    """True where the policy drew the token: those are trained on. Prompt, tool and template tokens are False."""
    logps_L: list[float]
    """The sampler's log-probs; 0 where nothing was sampled."""
    versions_L: list[int]
    """The sampler's policy version; -1 where nothing was sampled."""
    trajectory: Trajectory
    finish: Finish
    reward: Reward = Reward(None, "not verified")
    starts: list[int] = field(default_factory=lambda: [0])
    advantage_L: Tensor | None = None
    old_logps_L: Tensor | None = None
    reference_logps_L: Tensor | None = None
    teacher_logps_L: Tensor | None = None
    coef_L: Tensor | None = None
    """Importance weight · keep / denominator: the summed loss of a minibatch is Σ coef · loss."""

    @property
    def length(self) -> int:
        """Tokens that the policy drew."""
        return sum(self.sampled_L)


@dataclass(slots=True)
class Group:
    """The samples of one prompt in one step."""

    prompt: Prompt
    samples_G: list[Sample]
    dropped: bool = False
    """True where another prompt has taken its place: it is recorded and counted, but not trained on."""

    @property
    def usable(self) -> list[Sample]:
        """Samples with a verdict."""
        return [s for s in self.samples_G if s.reward.value is not None]

    @property
    def zero_variance(self) -> bool:
        """True where all rewards are exactly equal: such a group carries no group-relative signal."""
        return len({s.reward.value for s in self.usable}) < 2


@dataclass(frozen=True, slots=True)
class Composition:
    """What an algorithm is made of. Parts are ``{use: NAME, ...}``, as in a study.

    Several advantages, or losses, are added up, each times the ``weight`` beside its ``use`` (1 where there is none).
    """

    advantage: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    loss: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    importance: Mapping[str, Any] | None = None
    """``None``: no correction."""
    reduction: Reduction = "sequence"
    """Denominator of the loss: each sample's tokens and the samples (the released code), all tokens (DAPO), or a
    constant per sample (Dr. GRPO)."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """A divergence from a teacher over the whole vocabulary, asked for by a loss and fused by the core."""

    kind: Literal["reverse", "forward", "js"]
    """``reverse`` is KL(student ‖ teacher), ``forward`` KL(teacher ‖ student), ``js`` generalised Jensen–Shannon."""
    beta: float = 0.5
    """Weight of the teacher in the mixture; ``js`` only."""
    top_k: int = 0
    """Only the teacher's k likeliest tokens and one bucket for the rest; 0 means the whole vocabulary."""


class Piece(NamedTuple):
    """One packed sequence: tokens ``start`` to ``stop`` of sample ``sample`` of the minibatch, placed at ``at``."""

    sample: int
    start: int
    stop: int
    at: int = -1
    """Index of its first token in the batch's flat ``_T`` fields."""


@dataclass(slots=True)
class Batch:
    """Packed sequences on the policy's device. Every ``_T`` field is flat [T] in row order, T = rows × columns."""

    shape: tuple[int, int]
    """(rows, columns) that the model is run with."""
    ids_T: Tensor
    position_T: Tensor
    """Position within the sequence: 0 starts a sequence."""
    sequence_T: Tensor
    """Index of the packed sequence; -1 on the filling at a row's end."""
    trained_T: Tensor
    """bool: tokens that carry a loss."""
    sampler_logps_T: Tensor
    version_T: Tensor
    domain_N: list[str]
    pieces_N: list[Piece]
    """Which sample each sequence is of, and where it lies in this batch."""
    teacher: str | None = None
    """Name of the one teacher of all sequences here, where a loss needs a teacher's hidden states."""
    coef_T: Tensor | None = None
    advantage_T: Tensor | None = None
    old_logps_T: Tensor | None = None
    reference_logps_T: Tensor | None = None
    teacher_logps_T: Tensor | None = None
    entropy_T: Tensor | None = None
    """Set by the policy for losses that need ``entropy`` [nats]; carries a gradient."""
    divergence_T: Tensor | None = None
    """Set by the policy for losses with a ``divergence`` [nats]; carries a gradient."""

    def take(self, index: Tensor | slice) -> Batch:
        """The same batch with every ``_T`` field reduced to the tokens in ``index``, in that order."""
        chosen = {
            f.name: value[index]
            for f in dataclasses.fields(self)
            if f.name.endswith("_T") and (value := getattr(self, f.name)) is not None
        }
        return dataclasses.replace(self, **chosen)


@dataclass(slots=True)
class Correction:
    """An importance rule's answer for one batch. ``weight`` and ``keep`` are separate on purpose."""

    weight_T: Tensor
    """float32 factor on each token's loss; carries no gradient."""
    keep_T: Tensor
    """bool: a token that is not kept leaves the denominator too."""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Block:
    """A contiguous piece of one tensor, of the base and of every expert, in float32."""

    name: str
    """Hugging Face name of the tensor."""
    offset: int
    """Index of the first element within the flattened tensor."""
    shape: tuple[int, ...]
    """Shape of this piece: flat for ``block`` granularity, whole rows for ``rows``, the tensor's own for ``tensor``."""
    base: Tensor | None
    """The anchor's piece; ``None`` for a merge without an anchor."""
    experts_E: Tensor
    """[E, *shape]."""
    names_E: tuple[str, ...] = ()
    """The experts' names in the study, in the order of ``experts_E``."""
    evidence: Mapping[str, Tensor] = field(default_factory=dict)
    """What the merger ``needs`` beyond weights, float32, one entry per expert.

    ``fisher`` [E, *shape]: this piece of the Fisher information's diagonal. ``gram`` [E, I, I], always whole, for the
    weight [O, I] of a linear layer: the mean of x·xᵀ over the inputs x that it saw; not there for other tensors. It is
    read again with every block, so that mergers which need it do well to take whole tensors.
    """
    told: dict[str, float] = field(default_factory=dict)
    """What a merger tells of this block while it merges it, e.g. ``density/math``; see
    :meth:`~m2rl_core.interfaces.Merger.diagnostics`."""

    @property
    def anchor(self) -> Tensor:
        """The base, where there must be one.

        Raises:
            ValueError: there is none.
        """
        if self.base is None:
            raise ValueError(f"{self.name}: a task vector needs a base model")
        return self.base

    @property
    def deltas_E(self) -> Tensor:
        """The task vectors' pieces, experts minus base, [E, *shape].

        Raises:
            ValueError: there is no base.
        """
        return self.experts_E - self.anchor


Stats = Mapping[str, Any]
"""What earlier passes found: pass name → combined statistic, of the whole model or of the block's own tensor."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a report. Cells are text or numbers; ``None`` shows as missing."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as data; the report draws it."""

    title: str
    kind: Literal["lines", "bars", "heatmap", "scatter"]
    x: Sequence[str | float]
    series: Mapping[str, Sequence[float | None]]
    """Name → values along ``x``; the rows of a heat map."""
    x_label: str = ""
    y_label: str = ""
    note: str = ""
    beneath: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """Second values of a heat map's cells, written below the first with their signs; rows as of ``series``."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement of the paper, tested on this study."""

    statement: str
    section: str
    statistic: float | None
    interval: tuple[float, float] | None
    verdict: ClaimVerdict
    note: str = ""
    expected: Expected | None = None
    """Where the statistic's whole interval has to lie for the claim to hold; on the other side it fails. ``None`` where
    more than the statistic decides."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What an analyzer found."""

    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    claims: Sequence[Claim] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that is needed of a machine, as it was when it was tried: a row of ``m2rl doctor``."""

    what: str
    health: Health
    """``note``: something is missing that is not needed, or works within limits."""
    found: str
    then: str = ""
    """What to do about it, best a command."""
