"""Three verdicts: right, wrong, *verifier failed*. A failed one leaves its group, and too many stop the run."""

from __future__ import annotations

from collections.abc import Sequence

from m2rl_core.config import AnalyzeStage, EvalStage, RlStage
from m2rl_core.errors import VerifierError
from m2rl_core.run import StageRun
from m2rl_core.types import Group, Sample

__all__ = ["usable"]


def usable(
    groups_P: Sequence[Group], run: StageRun[RlStage] | StageRun[EvalStage] | StageRun[AnalyzeStage]
) -> list[Sample]:
    """The samples with a verdict, group by group, without dropped groups; of verdicts that failed the user is told.

    Raises:
        VerifierError: where more of the verdicts failed than the stage's ``verifier_failures`` allows.
    """
    samples_S = [sample for group in groups_P if not group.dropped for sample in group.usable]
    failed = [s for g in groups_P for s in g.samples_G if s.reward.value is None]
    if not failed:
        return samples_S
    drawn = sum(len(group.samples_G) for group in groups_P)
    first, limit = failed[0], run.stage.verifier_failures
    told = (
        f"{len(failed)} of {drawn} verdicts failed, the first in domain '{first.prompt.domain}' at prompt "
        f"{first.prompt.id}: {first.reward.reason}"
    )
    if len(failed) > limit * drawn:
        raise VerifierError(
            told,
            allowed=f"stages.{run.name}.verifier_failures = {limit:.0%}",
            then="mend the verifier, then run the same command again to resume",
        )
    run.note(f"{told}; the others are used")
    return samples_S
