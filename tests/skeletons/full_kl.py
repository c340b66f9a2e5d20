"""A full-vocabulary distillation loss: it only says which divergence it wants; the core fuses it."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Batch, Divergence


class FullKl:
    """The divergence from the sample's teacher, optionally beside a policy-gradient term."""

    name: ClassVar[str] = "full-kl"
    reference: ClassVar[str] = "https://arxiv.org/abs/2306.13649"
    separable = True
    vanishes = False

    class Config(ComponentConfig):
        kind: Literal["reverse", "forward", "js"] = "reverse"
        reward: float = 0.0
        """Weight of the task reward's policy gradient."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.needs: frozenset[str] = frozenset({"old_logps"} if config.reward else ())
        self.divergence: Divergence | None = Divergence(config.kind)

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.divergence_T is not None
        if not self.config.reward:
            return batch.divergence_T
        assert batch.advantage_T is not None
        assert batch.old_logps_T is not None
        ratio = (logps - batch.old_logps_T).exp()
        return batch.divergence_T - self.config.reward * ratio * batch.advantage_T
