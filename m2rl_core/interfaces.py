"""What a plugin may be: one typed Protocol per kind of component.

A component is a class with a ``name``, a frozen ``Config`` and a ``reference``, built as ``cls(config)``. Plugins may
subclass these Protocols to inherit the defaults, or just have the same shape. pluggy is used at start-up only (see
:mod:`m2rl_core.hookspecs`); afterwards these objects do the work directly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from m2rl_core.types import (
    Batch,
    Block,
    Composition,
    Conversation,
    Correction,
    Divergence,
    Findings,
    Message,
    Prompt,
    Reward,
    Sample,
    Sampling,
    Stats,
    Suite,
    Trajectory,
    Turn,
    Way,
)

if TYPE_CHECKING:
    from torch import Tensor


__all__ = [
    "Advantage",
    "Algorithm",
    "Analyzer",
    "Component",
    "ComponentConfig",
    "Domain",
    "Engine",
    "Episode",
    "Importance",
    "Lab",
    "Loss",
    "Merger",
    "Mixture",
    "Pass",
    "Preset",
    "SingleTurn",
    "SkippablePass",
]


class ComponentConfig(BaseModel):
    """Base of every component's ``Config``: frozen; an unknown key and a number that is not finite are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings under one name, as ``{use: ties, preset: released-code}``."""

    settings: Mapping[str, Any]
    """Of the component's ``Config``."""
    note: str
    """What they stand for, and where they differ from the defaults and from what others do, in a sentence each."""


class Component(Protocol):
    """What all components share. Built as ``cls(config)`` with a validated ``Config``.

    A mixture, an advantage, an importance rule or a loss that remembers something from step to step has two methods
    more, ``save_state(folder)`` and ``load_state(folder)``: what it writes there is part of the stage's checkpoints.
    One that needs more of a machine than packages has a class method ``diagnose() -> Iterable[Diagnosis]``, which tries
    it for ``m2rl doctor`` and leaves nothing behind.

    Draws of its own come from :func:`m2rl_core.seeding.derive`, or from the generators of Python, NumPy or torch.
    """

    name: ClassVar[str]
    """The name that a study's ``use:`` says."""
    reference: ClassVar[str]
    """Paper section or URL that defines this component."""

    @property
    def Config(self) -> type[ComponentConfig]:
        """A nested class with the component's settings (a property here only because type checkers want it so)."""
        ...


# ── domains ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Episode(Protocol):
    """One prompt being worked on. The core samples turns and hands each to :meth:`reply`."""

    max_turns: int
    """Most assistant turns; the episode then ends, and is verified as it stands."""
    history: Literal["keep", "drop"]
    """``drop`` removes earlier turns' reasoning from the context and trains every turn as its own sequence."""

    async def reply(self, text: str) -> list[Message]:
        """What the environment answers to an assistant turn (reasoning included); ``[]`` ends the episode."""
        ...

    async def close(self) -> None:
        """Free what the episode holds; called once, also after a failure."""
        ...


class SingleTurn:
    """The episode of a domain without an environment: it ends with the first answer."""

    max_turns = 1
    history: Literal["keep", "drop"] = "keep"

    async def reply(self, text: str) -> list[Message]:
        return []

    async def close(self) -> None:
        return None


class Domain(Component, Protocol):
    """A dataset and a verifier, and an environment where it is multi-turn."""

    @property
    def remote(self) -> bool:
        """True: :meth:`verify_remote` is awaited in the core's process instead of running :meth:`verify` in a worker.

        A class variable, or a property where the settings decide.
        """
        return False

    @property
    def verify_seconds(self) -> float:
        """Limit of one verification, in CPU seconds and, doubled, in wall seconds; a worker beyond it is killed.

        A class variable, or a property where the settings decide.
        """
        return 10.0

    @property
    def splits(self) -> bool:
        """True where an episode may drop earlier reasoning, so that one sample is trained as several sequences.

        Ratios of whole sequences are then refused: they would be those of parts.
        """
        return False

    def check(self) -> None:
        """Look for what would stop a stage later, such as a row without gold. Nothing by default.

        Called by ``m2rl check`` and before every run, so it must be quick and must not use the network.

        Raises:
            DataError: it names the row.
        """
        return  # a docstring alone would make the method abstract

    @property
    def suites(self) -> Mapping[str, Suite]:
        """Evaluation sets by name; :meth:`prompts` takes the same names."""
        ...

    def prompts(self, split: str) -> Iterable[Prompt]:
        """The prompts of ``"train"`` or of a suite, always in the same order.

        Raises:
            DataError: a row without gold or with contradicting fields; it names the row. An iterator that goes on
                with the next row when it is asked again (a ``map`` does) lets ``m2rl verify --gold`` list them all.
        """
        ...

    def demonstrations(self) -> Iterable[Conversation]:
        """Conversations for supervised fine-tuning; may be endless. None by default."""
        return ()

    def open(self, prompt: Prompt) -> Episode:
        """Start an episode. Single turn by default."""
        return SingleTurn()

    def verify(self, trajectory: Trajectory) -> Reward:
        """Judge a trajectory: a plain function over plain data that runs in a killable worker without torch.

        Raising means that the verifier failed, which is not the model's fault.
        """
        ...

    def gold(self, prompt: Prompt) -> str | None:
        """A right answer to ``prompt`` made of its own gold, reasoning excluded, by which data sets are checked.

        ``None``, the default: the gold is no answer and cannot be made one, e.g. unit tests.
        """
        return None

    async def verify_remote(self, trajectory: Trajectory) -> Reward:
        """Judge a trajectory through a service; only called where :attr:`remote` is True.

        Asked once more after it has raised or returned a failed verdict, so asking twice must do no harm.
        """
        raise TypeError(f"domain '{self.name}' is remote but has no verify_remote")


# ── engines ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@runtime_checkable
class Engine(Component, Protocol):
    """Draws tokens. Driven by one event-loop thread that the core owns; token ids in, token ids out."""

    async def start(self, model: Path, *, max_tokens: int, trust_remote_code: bool = False) -> None:
        """Load the Hugging Face folder ``model`` as policy version 0; no context will exceed ``max_tokens``.

        Args:
            trust_remote_code: the study lets code run that lies in the folder; without it, none may.
        """
        ...

    async def generate(self, ids: list[int], sampling: Sampling, n: int) -> list[Turn]:
        """Draw ``n`` continuations of ``ids``. A sample's tokens do not depend on what else is being drawn."""
        ...

    async def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take new weights (Hugging Face names) and label tokens drawn from now on with ``version``."""
        ...

    async def rest(self) -> None:
        """Nothing will be drawn until the next call of another method: give memory back, if that is worth it."""
        ...

    async def close(self) -> None: ...


# ── algorithms ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Advantage(Component, Protocol):
    """Turns the rewards of one group into a credit per token."""

    needs: frozenset[str]
    """Per-token scores that must be there first: any of ``old_logps``, ``reference_logps``, ``teacher_logps``."""

    def __call__(self, group: list[Sample]) -> list[Tensor]:
        """Float32 [L] for each sample; every sample here has a verdict."""
        ...


class Importance(Component, Protocol):
    """Corrects for tokens that another distribution than the trained policy's has drawn."""

    needs: frozenset[str]
    separable: bool = False
    """True: a token's weight depends on nothing but that token, and whether it is kept not on finite ``old_logps``.

    With one update per step it is then asked for weights within the backward pass, which finds ``old_logps``, and no
    pass is made for them before."""

    def __call__(self, batch: Batch) -> Correction:
        """Weights and keeps for ``batch``, all of whose tokens are trained; runs before the first backward.

        ``batch`` is a whole minibatch; for a ``separable`` rule also a part, within a backward pass."""
        ...


class Loss(Component, Protocol):
    """A policy loss per token."""

    separable: bool
    """True: token by token, so it may be called on chunks; False: it needs whole sequences (``batch.sequence_T``)."""
    vanishes: bool = False
    """True: zero advantage means zero loss and gradient, so a sample without advantage is counted, not computed."""
    needs: frozenset[str]
    """Per-token scores as for :class:`Advantage`, or ``entropy``."""
    divergence: Divergence | None = None
    """A full-vocabulary divergence from the sample's teacher, delivered as ``batch.divergence_T``.

    Only for ``separable`` losses."""

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        """The unreduced loss [T] of trained tokens with log-probs ``logps`` [T] under the policy being trained."""
        ...


class Algorithm(Component, Protocol):
    """A named composition, so that a study uses an algorithm by name or takes it apart.

    By convention its ``Config`` has the fields of :class:`~m2rl_core.types.Composition`, each holding changes to the
    default part: ``algorithm: {use: NAME, advantage: {std: false}}``.
    """

    def compose(self) -> Composition: ...


class Mixture(Component, Protocol):
    """Shares of the domains in a step. The core realises them exactly over time."""

    def check(self, domains: Collection[str]) -> None:
        """Refuse a stage whose domains the settings do not fit. Nothing by default.

        Called when a study is checked.

        Raises:
            ValueError: it begins with the setting, as ``shares: …``.
        """
        return

    def weights(self, step: int, sizes: Mapping[str, int], rewards: Mapping[str, float]) -> Mapping[str, float]:
        """A positive weight per domain. Asked for once per step, in their order.

        Args:
            step: the step to be drawn.
            sizes: training prompts of each domain.
            rewards: running mean reward of each domain that has had a verdict already: up to the step before, or the
                one before that where rollouts are a step ahead.
        """
        ...


# ── mergers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Pass(Protocol):
    """One reading of all weights that gathers a statistic.

    It depends on nothing but its class, its attributes and earlier statistics: where several settings of a merger are
    merged in one reading, passes that agree in these are measured once.
    """

    name: str
    scope: Literal["model", "tensor"]
    """One statistic for the whole model, or one per tensor."""

    def measure(self, block: Block, stats: Stats) -> Any:
        """The block's own statistic; ``stats`` holds those of earlier passes.

        It must not share memory with the block, whose buffers are used again.
        """
        ...

    def combine(self, left: Any, right: Any) -> Any:
        """Of two neighbouring pieces; the core combines in block order, whatever the number of threads."""
        ...


@runtime_checkable
class SkippablePass(Pass, Protocol):
    """A pass whose result earlier ones may already tell, so that its reading is left out."""

    def known(self, stats: Stats) -> Any | None:
        """What measuring everything would find, as far as anyone can tell; ``None`` where it must be measured.

        Args:
            stats: of earlier passes, those of the pass's own scope.
        """
        ...


class Merger(Component, Protocol):
    """A pure function over blocks of weights. Built as ``cls(config)``, and with its ``parts`` by their names."""

    parts: ClassVar[Mapping[str, str]] = {}
    """Settings that name other components → their kind, as ``{"then": "merger"}``; they are built first."""
    presets: ClassVar[Mapping[str, Preset]] = {}
    """Name → settings that ``{use: NAME, preset: …}`` stands for. Mergers of the paper's Table 4 have ``paper`` and
    ``released-code``."""
    granularity: Literal["block", "rows", "tensor"]
    """What a block is: any piece of a tensor, whole rows, or a whole tensor."""
    needs_base: bool
    needs: frozenset[str] = frozenset()
    """Evidence beyond the weights, delivered as ``block.evidence``: ``fisher`` or ``gram``, see
    :class:`~m2rl_core.types.Block`."""

    def check(self, experts: Sequence[str]) -> None:
        """Refuse experts that the settings do not fit, e.g. another number of them than of weights. None by default.

        Called when a study is checked, and again before a merge reads anything.

        Args:
            experts: names in the study, in the order of :attr:`~m2rl_core.types.Block.experts_E`.

        Raises:
            ValueError: what does not fit, in words for the user.
        """
        return  # a docstring alone would make the method abstract

    def outputs(self) -> Sequence[str]:
        """Names of the models that one merge writes; more than one for a sweep."""
        return ("",)

    def passes(self) -> Sequence[Pass]:
        """Readings that must come before the merge, in order."""
        return ()

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """One float32 tensor of ``block.shape`` per output. Must not change the block, but for what is ``told``."""
        ...

    def diagnostics(self, experts: Sequence[str], stats: Stats) -> Mapping[str, float]:
        """What is worth telling of one tensor, e.g. ``density/math``. The core reports means, weighted by size.

        What only a merge finds out goes into :attr:`~m2rl_core.types.Block.told` instead, block by block.
        """
        return {}

    def remarks(self, experts: Sequence[str], found: Mapping[str, float]) -> Iterable[str]:
        """What is allowed and yet seldom meant, a sentence each, for the card and the terminal.

        Args:
            found: what the merger has told, over all its tensors.
        """
        return ()


# ── analyzers ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Lab(Protocol):
    """What an analyzer may ask for. Models are named as in the study; ``math@200`` is step 200 of stage ``math``.

    A lab over bare folders has no study: what it lacks raises a ``DataError`` that says so. Of models, two at most are
    in memory at a time, so ask for all that one model can tell before going on to the next.
    """

    models: Mapping[str, Path]
    """Hugging Face folders of the models to look at, in the study's order. A step that a stage of the study has kept
    can be asked for too, though it is only listed where the stage ``analyze`` lists it."""
    experts: Mapping[str, str]
    """Domain → the model that was trained on it alone."""
    arms: Mapping[str, Way]
    """Model → how it combines domains; without kept steps."""
    start: str | None
    """The model that reinforcement learning departed from; ``None`` where that is not known."""

    def prompts(self, domain: str, split: str) -> Sequence[Prompt]:
        """The prompts of ``train`` or of a suite."""
        ...

    def scores(self, model: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Suite → the records of the model's evaluation, one per sample: ``domain``, ``prompt``, ``sample``,
        ``reward`` (``None`` where the verdict failed), ``weight``, ``tokens``, ``finish``, ``messages``, ``response``.
        """
        ...

    def metrics(self, stage: str) -> Sequence[Mapping[str, Any]]:
        """The lines of the stage's ``metrics.jsonl``."""
        ...

    def samples(self, stage: str, *, limit: int | None = None) -> Iterator[Sample]:
        """Rollouts that a stage stored, the first ``limit`` of them."""
        ...

    def generate(
        self, model: str, prompts: Sequence[Prompt], sampling: Sampling, n: int, *, verify: bool = True
    ) -> list[list[Sample]]:
        """Draw and verify ``n`` samples per prompt, in the order of the prompts; what was drawn before is read.

        Args:
            sampling: its seed makes the noise, together with each prompt's domain and id.
            verify: False for prompts that no domain's verifier can judge: a single turn, whose reward is ``None``;
                ``trajectory.answer`` is what follows the reasoning, empty where that is not closed.

        Raises:
            VerifierError: more verdicts failed than the stage allows.
        """
        ...

    def logps(self, model: str, samples: Sequence[Sample]) -> list[Tensor]:
        """Float32 [L] per sample: log-probs [nats] of its tokens under ``model`` at temperature 1; 0 where nothing was
        sampled."""
        ...

    def divergences(self, model: str, other: str, samples: Sequence[Sample], kind: Divergence) -> list[Tensor]:
        """Float32 [L] per sample: the full-vocabulary divergence [nats] of ``model`` from ``other`` at its tokens, at
        temperature 1; 0 where nothing was sampled.

        ``model`` is the student and ``other`` the teacher of ``kind``: ``reverse`` is KL(model ‖ other), ``forward``
        KL(other ‖ model).
        """
        ...

    def gradients(self, model: str, stage: str, groups: Sequence[list[Sample]]) -> Iterator[tuple[str, Tensor]]:
        """(name, float32 gradient) of the loss that ``stage`` trains with, at the weights of ``model``, over the groups
        as one minibatch; one parameter at a time, 0 where nothing has a gradient. The samples are left as they are."""
        ...

    def blocks(self, base: str, models: Sequence[str]) -> Iterator[Block]:
        """The weights of ``models`` (``experts_E``) beside those of ``base``, streamed in bounded memory, every tensor
        once and in order. A block is overwritten by the next one."""
        ...


class Analyzer(Component, Protocol):
    """Looks at a finished study and explains it."""

    def run(self, lab: Lab) -> Findings: ...
