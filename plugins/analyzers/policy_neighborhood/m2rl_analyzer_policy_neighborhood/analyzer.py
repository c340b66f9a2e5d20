"""The analyzer: draws what it needs from a lab, measures, and hands the numbers to tables, figures and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from m2rl_core.errors import DataError, nearest
from m2rl_core.interfaces import Analyzer, ComponentConfig, Lab
from m2rl_core.seeding import derive
from m2rl_core.types import Findings, Prompt, Sampling, Way

if TYPE_CHECKING:
    from m2rl_analyzer_policy_neighborhood.evidence import Subject
    from m2rl_analyzer_policy_neighborhood.measure import Cells
    from m2rl_analyzer_policy_neighborhood.scores import Scores

__all__ = ["PolicyNeighborhood"]

WAYS: tuple[Way, ...] = ("mix", "merge", "distil")


class PolicyNeighborhood(Analyzer):
    """KL of every expert to every model that combines domains, on every domain's prompts; and what follows from it."""

    name: ClassVar[str] = "policy-neighborhood"
    reference: ClassVar[str] = "the paper's section 3.4, Eq. 1, Fig. 4 and Table 6"

    class Config(ComponentConfig):
        models: tuple[str, ...] = ()
        """Models to measure the distance to. Default: of each way, mix, merge and distil, the one with the highest mean
        score; merges of two experts are left aside."""
        tau: float = Field(0.25, ge=-1.0)
        """Eq. 1's threshold is (1 + τ) · KL(own expert ‖ model). Paper silent on its size."""
        split: str | dict[str, str] = "train"
        """Which prompts: ``train`` or a suite, of all domains or by domain. Paper silent."""
        prompts: int = Field(64, gt=1)
        """The first so many prompts of every domain. Paper silent."""
        samples: int = Field(4, gt=0)
        """Trajectories of every expert for every prompt. Paper silent."""
        max_tokens: int = Field(32768, gt=0)
        """Most tokens of a trajectory. Section A."""
        merges: dict[str, tuple[str, str]] = Field(default_factory=dict)
        """Models merged from two experts → their domains, for Table 6."""

    config: Config

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, lab: Lab) -> Findings:
        """Sample with every expert, score with every model.

        Raises:
            DataError: no expert, no model that combines domains, or a name that the lab does not know.
        """
        from m2rl_analyzer_policy_neighborhood import claims, merges, tables  # with NumPy, which start-up does without
        from m2rl_analyzer_policy_neighborhood.measure import measure
        from m2rl_analyzer_policy_neighborhood.scores import Scores

        scores, tau = Scores(lab), self.config.tau
        self._check(lab)
        models = self._models(lab, scores)
        sampling = Sampling(self.config.max_tokens, seed=derive(self.name))
        found = measure(lab, models, self._prompts(lab), sampling, self.config.samples)
        subjects = [_subject(lab, model, found[model], scores) for model in models]
        shown, stated = dict(tables.tables(subjects, tau)), list(claims.claims(subjects, tau))
        if self.config.merges:
            judge = next((s for s in subjects if s.way == "merge"), subjects[0])
            pairs = merges.outcomes(self.config.merges, lab.experts, judge, tau, scores)
            shown["merges"] = merges.table(pairs, judge, tau)
            stated.append(merges.claim(pairs))
        return Findings(shown, dict(tables.figures(subjects, tau)), stated)

    def _check(self, lab: Lab) -> None:
        for model in (*self.config.models, *self.config.merges):
            _known(model, lab.models, "model", "models" if model in self.config.models else "merges")
        for domain in (each for pair in self.config.merges.values() for each in pair):
            _known(domain, lab.experts, "expert of", "merges")
        if isinstance(self.config.split, dict):
            for domain in self.config.split:
                _known(domain, lab.experts, "expert of", "split")
        if not lab.experts:
            raise DataError("there is no expert to compare with", then="analyse models that were trained on one domain")

    def _models(self, lab: Lab, scores: Scores) -> Sequence[str]:
        arms = {model: way for model, way in lab.arms.items() if model not in self.config.merges}
        ways: dict[Way, list[str]] = {way: [m for m, of in arms.items() if of == way] for way in WAYS}
        found = self.config.models or tuple(scores.best(each) for each in ways.values() if each)
        if not found:
            raise DataError("no model combines domains", then="analyse one that was mixed, merged or distilled")
        return found

    def _prompts(self, lab: Lab) -> Mapping[str, Sequence[Prompt]]:
        split = self.config.split
        splits = {d: split if isinstance(split, str) else split.get(d, "train") for d in lab.experts}
        return {d: list(islice(lab.prompts(d, each), self.config.prompts)) for d, each in splits.items()}


def _subject(lab: Lab, model: str, cells: Cells, scores: Scores) -> Subject:
    from m2rl_analyzer_policy_neighborhood.evidence import Subject

    changes = {(home, domain): scores.change(model, lab.experts[home], domain) for home, domain in cells}
    return Subject(model, lab.arms.get(model), cells, changes)


def _known(name: str, known: Mapping[str, object], what: str, setting: str) -> None:
    if name not in known:
        raise DataError(
            f"policy-neighborhood: {setting} names '{name}', and there is no {what} '{name}'.{nearest(name, known)}",
            allowed=sorted(known),
        )
