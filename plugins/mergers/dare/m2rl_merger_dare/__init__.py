"""DARE: drop most entries of each task vector at random, rescale the rest, and merge what is left by another method.

δ̂ᵢ = mᵢ δᵢ / (1 − p),  mᵢ = 0 with probability p, else 1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Merger, Pass, Preset
from m2rl_core.mergers.density import moved_E, tell_density
from m2rl_core.mergers.each_expert import Each, numbers_E
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor


class Dare(Merger):
    """Reads as often as the merger behind it; once more to rescale by norms. Its blocks are that merger's."""

    name: ClassVar[str] = "dare"
    reference: ClassVar[str] = "the paper's section 3.2; https://arxiv.org/abs/2311.03099 section 3"
    needs_base = True
    parts: ClassVar[Mapping[str, str]] = {"then": "merger"}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            {"rate": 0.8, "rescale": "expected"},
            "The paper's mask ratio of 0.8, which the M2RL release never passes on. These are the defaults.",
        ),
        "released-code": Preset(
            {"rate": 0.2, "rescale": "expected"},
            "What the M2RL release ran: its script leaves the mask rate at 0.2, where the paper says 0.8; `then: ties` "
            "trims what is left, a mask rate of 0.8 over the whole model.",
        ),
    }

    class Config(ComponentConfig):
        then: Mapping[str, Any] = Field({"use": "task-arithmetic"}, validate_default=True)
        """The merger of what is left: a name, or ``{use: NAME, …}``. Table 4 has task arithmetic and TIES."""
        rate: Each[Annotated[float, Field(ge=0.0, lt=1.0)]] = 0.8
        """p, the share of entries that is dropped, or a list of one share per expert, in their order. The paper's
        section 3.2; the released code ran 0.2."""
        rescale: Literal["expected", "l1", "none"] = "expected"
        """``expected``: by 1/(1−p), as in the method's paper. ``l1``: so that each tensor keeps the L1 norm of its task
        vector, as in mergekit."""
        seed: int = 0
        """Of the draws. They depend on it, on the expert's name, on the tensor's, and on the place in it alone."""

        @field_validator("then", mode="before")
        @classmethod
        def _named(cls, value: object) -> object:
            return {"use": value} if isinstance(value, str) else value

        @field_validator("then")
        @classmethod
        def _another(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
            if value.get("use") == Dare.name:
                raise ValueError(
                    "dare cannot follow dare: both would draw alike. Drop 1 − (1 − p)(1 − q) at once instead of p and q"
                )
            return value

    def __init__(self, config: Config, then: Merger) -> None:
        from m2rl_merger_dare.drop import Dropping

        self.config, self.then = config, then
        self.granularity: Literal["block", "rows", "tensor"] = then.granularity
        self.needs = then.needs
        self._dropping = Dropping(config.rate, config.rescale, config.seed)

    def check(self, experts: Sequence[str]) -> None:
        """As :meth:`~m2rl_core.interfaces.Merger.check`: one rate per expert, and as the merger behind it."""
        numbers_E(self.config.rate, len(experts), "rates")
        self.then.check(experts)

    def outputs(self) -> Sequence[str]:
        return self.then.outputs()

    def passes(self) -> Sequence[Pass]:
        from m2rl_merger_dare.drop import Norms, Thinned

        found: list[Pass] = [Norms(self._dropping)] if self.config.rescale == "l1" else []
        found += [Thinned(each, self._dropping) for each in self.then.passes()]
        return found

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Tells the density of what it has left, where the merger behind it tells none of its own."""
        from m2rl_merger_dare.drop import apart

        thinned = self._dropping(block, stats)
        merged = self.then.merge(thinned, stats)
        if not any(name.startswith("density/") for name in self.then.diagnostics(block.names_E, stats)):
            tell_density(block, moved_E(thinned))
        return [apart(values, thinned.experts_E) for values in merged]

    def diagnostics(self, experts: Sequence[str], stats: Stats) -> Mapping[str, float]:
        """As the merger behind it."""
        return self.then.diagnostics(experts, stats)

    def remarks(self, experts: Sequence[str], found: Mapping[str, float]) -> Iterable[str]:
        """As the merger behind it."""
        return self.then.remarks(experts, found)


@hookimpl
def m2rl_mergers() -> Iterable[type[Merger]]:
    return [Dare]
