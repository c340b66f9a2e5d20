"""The analyzer: takes the answers that the models gave in evaluation, and lets each model judge its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveInt, ValidationInfo, field_validator

from m2rl_core.errors import DataError, nearest
from m2rl_core.interfaces import Analyzer, ComponentConfig, Lab
from m2rl_core.judging.prompts import OUTCOME, PROCESS, fields
from m2rl_core.seeding import derive
from m2rl_core.types import Findings, Sampling

if TYPE_CHECKING:
    from m2rl_analyzer_self_verification.answers import Evaluation
    from m2rl_analyzer_self_verification.judging import Judged, Mode

__all__ = ["SelfVerification"]


class SelfVerification(Analyzer):
    """Outcome and process verification of a model's own answers, beside what it scores by them."""

    name: ClassVar[str] = "self-verification"
    reference: ClassVar[str] = "the paper's section 3.6, Table 7 and figures 6 to 8"

    class Config(ComponentConfig):
        suites: tuple[str, ...] = ()
        """Evaluations whose answers are judged. Default: all whose answers take one turn, as those of Table 7 do."""
        limit: PositiveInt | None = None
        """Only the first so many prompts of each suite."""
        answers: PositiveInt = 1
        """Answers to every prompt, the first ones. Paper silent."""
        k: PositiveInt = 8
        """Verdicts on every answer: Avg@8 in Table 7, taken as 8 verdicts on one answer. Paper silent on which."""
        temperature: float = Field(1.0, ge=0.0)
        """Of the judge. Paper silent."""
        max_tokens: PositiveInt = 32768
        """Most tokens of the judge's reply, reasoning included. Paper silent; its limit on rollouts."""
        outcome: str = OUTCOME
        """How a verdict on the final answer alone is asked for; holds {question} and {answer}. Paper silent. Where
        demonstrations teach a small model to judge, they teach the default words."""
        process: str = PROCESS
        """The same with the reasoning; holds {question}, {reasoning} and {answer}. Paper silent."""
        measurable: float = Field(0.6, ge=0.0, le=1.0)
        """Balanced accuracy of the start under which judging counts as not measurable."""
        constraints: tuple[str, ...] = ("if",)
        """Domains whose answers obey constraints instead of being derived (finding 1)."""
        interactive: str = "agent"
        """The domain trained in interaction (finding 2)."""

        @field_validator("outcome", "process")
        @classmethod
        def _holds_its_fields(cls, template: str, found: ValidationInfo) -> str:
            wanted = {"question", "answer", *(["reasoning"] if found.field_name == "process" else [])}
            if fields(template) != wanted:
                listed = ", ".join(f"{{{name}}}" for name in sorted(wanted))
                raise ValueError(f"a prompt that holds {listed} and no other field is needed, found {template!r}")
            return template

    config: Config

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, lab: Lab) -> Findings:
        """Judge and count.

        Raises:
            DataError: a suite that nobody was evaluated on, or nothing to judge.
        """
        from m2rl_analyzer_self_verification import claims, tables  # with NumPy, which start-up does without
        from m2rl_analyzer_self_verification.answers import evaluations
        from m2rl_analyzer_self_verification.evidence import Evidence

        limit, each = self.config.limit, self.config.answers
        found = {model: evaluations(lab, model, limit=limit, each=each) for model in lab.models}
        found = {model: by_suite for model, by_suite in found.items() if by_suite}
        suites, note = self._suites(found)
        evaluated = {m: by_suite for m, by_suite in found.items() if all(s in by_suite for s in suites)}
        if others := [model for model in found if model not in evaluated]:
            note = f"{note} Left out, as they were not evaluated on all of these suites: {', '.join(others)}.".strip()
        if not evaluated:
            raise DataError("self-verification: no model was evaluated on all suites", found=", ".join(suites))
        judged = {model: self._judged(lab, model, by_suite, suites) for model, by_suite in evaluated.items()}
        start = lab.start if lab.start in judged else None
        evidence = Evidence(suites, evaluated, judged, start, lab.arms, lab.experts, self.config.measurable)
        stated = claims.claims(evidence, self.config.constraints, self.config.interactive)
        return Findings(dict(tables.tables(evidence, note)), dict(tables.figures(evidence)), list(stated))

    def _suites(self, found: Mapping[str, Mapping[str, Evaluation]]) -> tuple[list[str], str]:
        """Suites to be judged, and a sentence about those that cannot be."""
        known = dict.fromkeys(suite for by_suite in found.values() for suite in by_suite)
        if unknown := next((suite for suite in self.config.suites if suite not in known), None):
            raise DataError(
                f"self-verification: no model was evaluated on suite '{unknown}'.{nearest(unknown, known)}",
                allowed=sorted(known) or "none",
            )
        wanted = list(self.config.suites or known)
        turns = [s for s in wanted if not all(each[s].single_turn for each in found.values() if s in each)]
        suites = [s for s in wanted if s not in turns]
        if not suites:
            raise DataError(
                "self-verification: there is no answer to judge",
                found=f"suites of several turns: {', '.join(turns)}" if turns else "no evaluation",
                then="evaluate the models on suites whose answers take one turn",
            )
        return suites, f"Left out, as their answers take several turns: {', '.join(turns)}." if turns else ""

    def _judged(
        self, lab: Lab, model: str, found: Mapping[str, Evaluation], suites: Sequence[str]
    ) -> dict[tuple[str, Mode], Judged]:
        from m2rl_analyzer_self_verification.judging import judge

        sampling = Sampling(self.config.max_tokens, self.config.temperature, seed=derive(self.name))
        templates: dict[Mode, str] = {"outcome": self.config.outcome, "process": self.config.process}
        answers = {suite: found[suite].answers for suite in suites}
        return judge(lab, model, answers, templates, sampling, self.config.k)
