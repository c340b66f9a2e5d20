"""Multi-teacher on-policy distillation (the paper's MT-OPD): every sample is taught by its domain's expert."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Composition, Reduction

if TYPE_CHECKING:
    from m2rl_core.interfaces import Advantage, Algorithm, Loss

Part = Annotated[dict[str, Any], BeforeValidator(lambda part: {"use": part} if isinstance(part, str) else part)]


class Opd:
    """The student samples, the teacher of each sample's domain says how likely it finds every token.

    The paper "minimizes the Kullback-Leibler divergence" between the two (section 2.2) and gives no formula; the
    released code pushes sampled tokens by log p_T − log p_S, which is ``mode: sampled``.
    """

    name: ClassVar[str] = "opd"
    reference: ClassVar[str] = "the paper's sections 2.2 and A; https://arxiv.org/abs/2306.13649"

    class Config(ComponentConfig):
        mode: Literal["sampled", "full", "top-k"] = "sampled"
        """What of the teacher is used: its log-prob of the sampled token (paper silent; the released code's choice),
        its whole distribution, or its ``k`` likeliest tokens and one bucket for the rest."""
        divergence: Literal["reverse", "forward", "js"] = "reverse"
        """``full`` and ``top-k``: KL(student ‖ teacher), KL(teacher ‖ student), or generalised Jensen–Shannon."""
        beta: float = Field(default=0.5, gt=0.0, lt=1.0)
        """Weight of the teacher in the mixture of ``js``."""
        k: int = Field(default=64, ge=1)
        """Tokens of ``top-k``."""
        reward: float = Field(default=0.0, ge=0.0)
        """Weight of the task's own reward, as a group advantage beside the teacher; none by default, as in the paper
        (section A). Its part ``group`` is that of m2rl-algorithm-grpo."""
        importance: Part | None = None
        """A correction for the difference between sampler and trainer; none by default, as in the released code."""
        reduction: Reduction = "sequence"
        """Mean over each sample's tokens, then over samples: paper silent, the released code's choice."""

        @model_validator(mode="after")
        def _means_something(self) -> Opd.Config:
            used = {
                "sampled": set(),
                "full": {"divergence", "beta"},
                "top-k": {"divergence", "beta", "k"},
            }[self.mode] - ({"beta"} if self.divergence != "js" else set())
            if idle := sorted((self.model_fields_set & {"divergence", "beta", "k"}) - used):
                kind = f" with divergence {self.divergence}" if idle == ["beta"] and self.mode != "sampled" else ""
                raise ValueError(f"mode {self.mode}{kind} does not use {', '.join(idle)}")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    def compose(self) -> Composition:
        compose = self._sampled if self.config.mode == "sampled" else self._distribution
        advantage, loss = compose()
        return Composition(advantage, loss, self.config.importance, self.config.reduction)

    def _sampled(self) -> tuple[list[Part], list[Part]]:
        """Teacher and reward are both credits, so one policy gradient follows their sum."""
        return [{"use": "teacher"}, *self._reward("group")], [{"use": "policy-gradient"}]

    def _distribution(self) -> tuple[list[Part], list[Part]]:
        """The divergence is a loss of its own; only the reward is a credit."""
        config = self.config
        distil: Part = {"use": "distil", "kind": config.divergence, "beta": config.beta}
        if config.mode == "top-k":
            distil["top_k"] = config.k
        advantage: list[Part] = [{"use": "group"}] if config.reward else []
        return advantage, [distil, *self._reward("policy-gradient")]

    def _reward(self, part: str) -> list[Part]:
        return [{"use": part, "weight": self.config.reward}] if self.config.reward else []


@hookimpl
def m2rl_algorithms() -> Iterable[type[Algorithm]]:
    return [Opd]


@hookimpl
def m2rl_advantages() -> Iterable[type[Advantage]]:
    from m2rl_algorithm_opd.parts import TeacherAdvantage

    return [TeacherAdvantage]


@hookimpl
def m2rl_losses() -> Iterable[type[Loss]]:
    from m2rl_algorithm_opd.parts import Distil, PolicyGradient

    return [Distil, PolicyGradient]
