"""Do mixed, merged and distilled models gain on the prompts on which the single-domain experts gain?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import Analyzer, ComponentConfig, Lab
from m2rl_core.types import Findings


class GainConsistency(Analyzer):
    """Compares the arms of a study with the union of its experts, prompt by prompt of every suite."""

    name: ClassVar[str] = "gain-consistency"
    reference: ClassVar[str] = "the paper's section 3.5 and Figure 5"

    class Config(ComponentConfig):
        base: str | None = None
        """Another model to measure gains against than the one that reinforcement learning departed from."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, lab: Lab) -> Findings:
        """Read the evaluations of the base, of all experts and of all arms.

        Raises:
            DataError: no base, no expert or no arm; an expert without evaluation; no suite that all have.
        """
        from m2rl_analyzer_gain_consistency.report import findings

        return findings(lab, self.config)


@hookimpl
def m2rl_analyzers() -> Iterable[type[Analyzer]]:
    return [GainConsistency]
