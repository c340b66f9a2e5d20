"""The losses as components: each reads its scores from the batch and applies one of :mod:`formulas`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from m2rl_algorithm_grpo import formulas
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Batch, Divergence

if TYPE_CHECKING:
    from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


class PpoClip:
    """max(−ρA, −clip(ρ, 1 − low, 1 + high)·A) with ρ = π_θ / π_old, token by token.

    With one update per step ρ is 1 and the clip inert; the gradient is then that of −A · log π_θ.
    """

    name: ClassVar[str] = "ppo-clip"
    reference: ClassVar[str] = (
        "https://arxiv.org/abs/1707.06347 equation 7; clip-higher: https://arxiv.org/abs/2503.14476 section 3.1; "
        "dual clip: https://arxiv.org/abs/1912.09729 section Dual-clip PPO"
    )
    separable = True
    vanishes = True
    needs: frozenset[str] = frozenset({"old_logps"})
    divergence: Divergence | None = None

    class Config(ComponentConfig):
        low: float = Field(default=0.2, ge=0.0, lt=1.0)
        """Paper silent; the released code's value."""
        high: float = Field(default=0.28, ge=0.0)
        """Paper silent; the released code's value."""
        dual: float | None = Field(default=None, gt=1.0)
        """Most that −A is multiplied with where A < 0. Off: paper silent, the released code has none."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        advantage, old_logps = _scores(batch)
        ratio = (logps - old_logps).exp()
        if self.config.dual is None:
            return formulas.clipped(ratio, advantage, self.config.low, self.config.high)
        return formulas.dual_clipped(ratio, advantage, self.config.low, self.config.high, self.config.dual)


class Gspo:
    """PPO's clipped loss of the sequence's ratio (π_θ(y) / π_old(y))^(1/|y|), the same for each token of a sequence.

    Where a sequence's tokens share one coefficient the gradient is that of the sequence-level objective. Where they do
    not (an importance rule), each token's coefficient weighs its own gradient, as in the paper's GSPO-token.
    """

    name: ClassVar[str] = "gspo"
    reference: ClassVar[str] = "https://arxiv.org/abs/2507.18071 equations 5 and 7; gradient: GSPO-token, section 4.3"
    separable = False
    vanishes = True
    needs: frozenset[str] = frozenset({"old_logps"})
    divergence: Divergence | None = None

    class Config(ComponentConfig):
        low: float = Field(default=3e-4, ge=0.0, lt=1.0)
        """The GSPO paper's section 5.1."""
        high: float = Field(default=4e-4, ge=0.0)
        """The GSPO paper's section 5.1."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        advantage, old_logps = _scores(batch)
        log_ratio = formulas.sequence_log_ratio(logps, old_logps, batch.sequence_T, len(batch.pieces_N))
        return formulas.clipped(log_ratio.exp(), advantage, self.config.low, self.config.high)


class Cispo:
    """−sg(min(ρ, 1 + high))·A·log π_θ: the importance weight is clipped, so that no token's gradient is dropped.

    There is no lower bound, as in the paper, which set it out of reach and tuned ``high`` only.
    """

    name: ClassVar[str] = "cispo"
    reference: ClassVar[str] = "https://arxiv.org/abs/2506.13585 equations 4 and 5"
    separable = True
    vanishes = True
    needs: frozenset[str] = frozenset({"old_logps"})
    divergence: Divergence | None = None

    class Config(ComponentConfig):
        high: float = Field(default=4.0, ge=0.0)
        """The CISPO paper is silent; ScaleRL's largest weight 5 (https://arxiv.org/abs/2510.13786), TRL's advice."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        advantage, old_logps = _scores(batch)
        return formulas.weighted((logps - old_logps).exp(), advantage, logps, self.config.high)


class Sapo:
    """−(4/τ)·σ(τ(ρ − 1))·A: a smooth gate instead of a clip, steeper for negative advantages."""

    name: ClassVar[str] = "sapo"
    reference: ClassVar[str] = "https://arxiv.org/abs/2511.20347 equations 5 and 6"
    separable = True
    vanishes = True
    needs: frozenset[str] = frozenset({"old_logps"})
    divergence: Divergence | None = None

    class Config(ComponentConfig):
        positive: float = Field(default=1.0, gt=0.0)
        """Temperature where A > 0; the SAPO paper's value."""
        negative: float = Field(default=1.05, gt=0.0)
        """Temperature elsewhere; the SAPO paper's value."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        advantage, old_logps = _scores(batch)
        return formulas.gated((logps - old_logps).exp(), advantage, self.config.positive, self.config.negative)


class ReferenceKl:
    """An estimate of KL(π_θ ‖ π_ref) per token, to be added to a policy loss.

    Its gradient is what trains. On tokens that π_θ has drawn, that of ``k1`` and of ``k2`` is in expectation the
    gradient of KL(π_θ ‖ π_ref), that of ``k3`` the gradient of KL(π_ref ‖ π_θ): the same to first order around π_ref.
    ``k1`` has the gradient of ``k2``, because its own is zero in expectation.
    """

    name: ClassVar[str] = "reference-kl"
    reference: ClassVar[str] = (
        "http://joschu.net/blog/kl-approx.html; gradients: https://arxiv.org/abs/2510.01555; "
        "k3 in GRPO: https://arxiv.org/abs/2402.03300 equation 4"
    )
    separable = True
    vanishes = False
    needs: frozenset[str] = frozenset({"reference_logps"})
    divergence: Divergence | None = None

    class Config(ComponentConfig):
        estimator: Estimator = "k3"
        """GRPO's; the paper trains without a KL penalty."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.estimate = {"k1": formulas.k1, "k2": formulas.k2, "k3": formulas.k3}[config.estimator]

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.reference_logps_T is not None
        return self.estimate(logps - batch.reference_logps_T)


def _scores(batch: Batch) -> tuple[Tensor, Tensor]:
    """(advantages, old log-probs): what the core has filled in before a policy loss is called."""
    assert batch.advantage_T is not None
    assert batch.old_logps_T is not None
    return batch.advantage_T, batch.old_logps_T
