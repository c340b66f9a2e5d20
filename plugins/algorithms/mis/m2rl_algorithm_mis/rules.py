"""The two rules: masked and truncated importance sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from m2rl_algorithm_mis.metrics import report
from m2rl_algorithm_mis.ratios import Level, Ratios, measure
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Batch, Correction

if TYPE_CHECKING:
    from torch import Tensor


class Bounds(ComponentConfig):
    """What both rules are told."""

    level: Level = "token"
    """Ratio of each token, product over a sample's tokens (``sequence``), or their geometric mean (``geometric``)."""
    low: float = Field(ge=0.0)
    """Smallest ratio."""
    high: float = Field(gt=0.0)
    """Largest ratio."""
    veto: float | None = Field(default=None, gt=0.0, lt=1.0)
    """A token whose own ratio is below this removes its whole sample, also from the denominator; off by default."""

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.low > self.high:
            raise ValueError("low must not exceed high")
        return self


class Mis:
    """Masked importance sampling: ρ where low ≤ ρ ≤ high, else 0, with ρ = π_trainer / π_sampler.

    The paper says "masked importance sampling" and is silent on formula, level and thresholds; the defaults are read
    from masked variants that the released code holds and does not use: token by token, the denominator unchanged
    (``icepop_function``), within [0.5, 2] (``mis.yaml``).
    """

    name: ClassVar[str] = "mis"
    reference: ClassVar[str] = "the paper's appendix A; IcePop, https://arxiv.org/abs/2510.18855"
    needs: frozenset[str] = frozenset({"old_logps"})

    class Config(Bounds):
        low: float = Field(default=0.5, ge=0.0)
        """Smaller ratios are masked. Paper silent."""
        high: float = Field(default=2.0, gt=0.0)
        """Larger ratios are masked. Paper silent."""
        shrink: bool = False
        """Masked tokens leave the denominator too, as in slime's ``mis.py`` and not in IcePop. Paper silent."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.separable = _by_token(config) and not config.shrink

    def __call__(self, batch: Batch) -> Correction:
        """Weights, keeps and metrics for all trained tokens of a minibatch.

        Raises:
            ValueError: not one token has finite log-probs from both sides.
        """
        ratios = measure(batch, self.config.level, self.config.veto)
        low_T = ratios.accepted_T & (ratios.ratio_T < self.config.low)
        high_T = ratios.accepted_T & (ratios.ratio_T > self.config.high)
        inside_T = ratios.accepted_T & ~low_T & ~high_T
        shares = {"ratio_masked_low": low_T, "ratio_masked_high": high_T} | _vetoed(ratios, self.config)
        return Correction(
            weight_T=ratios.ratio_T.where(inside_T, 0.0).float(),
            keep_T=inside_T if self.config.shrink else ratios.accepted_T,
            metrics=report(batch, ratios, shares),
        )


class Tis:
    """Truncated importance sampling: ρ clamped to [low, high], with ρ = π_trainer / π_sampler.

    The defaults are what the released code trains with.
    """

    name: ClassVar[str] = "tis"
    reference: ClassVar[str] = "https://fengyao.notion.site/off-policy-rl; the released code's --use-tis"
    needs: frozenset[str] = frozenset({"old_logps"})

    class Config(Bounds):
        low: float = Field(default=0.0, ge=0.0)
        """Smaller ratios are raised to it; 0, the released code's value, raises none."""
        high: float = Field(default=2.0, gt=0.0)
        """Larger ratios are lowered to it; the released code's value."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.separable = _by_token(config)

    def __call__(self, batch: Batch) -> Correction:
        """Weights, keeps and metrics for all trained tokens of a minibatch.

        Raises:
            ValueError: not one token has finite log-probs from both sides.
        """
        ratios = measure(batch, self.config.level, self.config.veto)
        weight_T = ratios.ratio_T.clamp(self.config.low, self.config.high)
        truncated_T = ratios.accepted_T & (weight_T != ratios.ratio_T)
        return Correction(
            weight_T=weight_T.where(ratios.accepted_T, 0.0).float(),
            keep_T=ratios.accepted_T,
            metrics=report(batch, ratios, {"ratio_truncated": truncated_T} | _vetoed(ratios, self.config)),
        )


def _by_token(config: Bounds) -> bool:
    """Whether no token's fate depends on its sample's other tokens."""
    return config.level == "token" and config.veto is None


def _vetoed(ratios: Ratios, config: Bounds) -> dict[str, Tensor]:
    """The share of vetoed tokens, where there is a veto."""
    return {} if config.veto is None else {"ratio_vetoed": ratios.vetoed_T}
