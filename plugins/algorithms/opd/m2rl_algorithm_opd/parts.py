"""What distillation is made of: the teacher's credit for a sampled token, and the divergence from its distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Batch, Divergence, Sample

if TYPE_CHECKING:
    from torch import Tensor


class TeacherAdvantage:
    """A_t = log p_T(y_t) − log p_S(y_t), p_S being the policy before the update: the reverse KL, one sample per token.

    Neither discounted nor normalised, as in the released code.
    """

    name: ClassVar[str] = "teacher"
    reference: ClassVar[str] = "https://thinkingmachines.ai/blog/on-policy-distillation/"
    needs: frozenset[str] = frozenset({"old_logps", "teacher_logps"})
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def __call__(self, group: list[Sample]) -> list[Tensor]:
        return [_gap(sample) for sample in group]


def _gap(sample: Sample) -> Tensor:
    import torch

    assert sample.teacher_logps_L is not None
    assert sample.old_logps_L is not None
    return (sample.teacher_logps_L - sample.old_logps_L) * torch.tensor(sample.sampled_L)


class PolicyGradient:
    """−ρA with ρ = π_θ / π_old, not clipped: the gradient is that of −A · log π_θ where ρ is 1."""

    name: ClassVar[str] = "policy-gradient"
    reference: ClassVar[str] = "https://doi.org/10.1007/BF00992696 (REINFORCE), with the importance ratio of PPO"
    separable = True
    vanishes = True
    needs: frozenset[str] = frozenset({"old_logps"})
    divergence: Divergence | None = None
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.advantage_T is not None
        assert batch.old_logps_T is not None
        return -(logps - batch.old_logps_T).exp() * batch.advantage_T


class Distil:
    """The divergence of the student from its teacher at every sampled position, over the whole vocabulary."""

    name: ClassVar[str] = "distil"
    reference: ClassVar[str] = "https://arxiv.org/abs/2306.13649 (generalised knowledge distillation), section 3"
    separable = True
    vanishes = False
    needs: frozenset[str] = frozenset()

    class Config(ComponentConfig):
        kind: Literal["reverse", "forward", "js"] = "reverse"
        """KL(student ‖ teacher), KL(teacher ‖ student), or generalised Jensen–Shannon."""
        beta: float = Field(default=0.5, gt=0.0, lt=1.0)
        """Weight of the teacher in the mixture of ``js``."""
        top_k: int = Field(default=0, ge=0)
        """Only the teacher's so many likeliest tokens and one bucket for the rest; 0: the whole vocabulary."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.divergence: Divergence | None = Divergence(config.kind, config.beta, config.top_k)

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.divergence_T is not None
        return batch.divergence_T
