"""Which weights reinforcement learning moves, whether domains move the same ones, and in the same direction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar

from annotated_types import Gt, Lt
from pydantic import NonNegativeInt

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import Analyzer, ComponentConfig, Lab
from m2rl_core.types import Findings


class WeightShift(Analyzer):
    """Compares the experts of a lab with the model they departed from; without experts, all of its models."""

    name: ClassVar[str] = "weight-shift"
    reference: ClassVar[str] = "the paper's section 3.3, Table 5 and Figure 3"

    class Config(ComponentConfig):
        eta: Annotated[float, Gt(0), Lt(2)] = 1e-3
        """A weight counts as changed where \\|w − w₀\\| > eta·max(\\|w\\|, \\|w₀\\|). Section 3.3's value."""
        layer: NonNegativeInt | None = None
        """The layer of Table 5 and Figure 3. Default: 17, as in the paper; of fewer layers, that at the same relative
        depth."""
        base: str | None = None
        """Another model to compare with than the one that reinforcement learning departed from."""
        reasoning: list[str] = ["math", "coding", "science"]
        """Domains that section 3.3 calls reasoning domains."""
        seed: NonNegativeInt = 17
        """Of the random projection. Paper silent."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, lab: Lab) -> Findings:
        """Read every weight of the base and of the models once.

        Raises:
            DataError: no base, no model beside it, no such layer; models that do not fit each other, or whose weight
                types are not known by their names.
        """
        from m2rl_analyzer_weight_shift.report import findings

        return findings(lab, self.config)


@hookimpl
def m2rl_analyzers() -> Iterable[type[Analyzer]]:
    return [WeightShift]
