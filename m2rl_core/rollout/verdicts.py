"""Three verdicts: right, wrong, *verifier failed*. A failed one leaves its group, and too many stop the run."""

from __future__ import annotations

from collections.abc import Sequence

from m2rl_core.errors import VerifierError
from m2rl_core.types import Group, Sample

__all__ = ["usable"]


def usable(groups_P: Sequence[Group], limit: float, setting: str) -> list[Sample]:
    """The samples with a verdict, group by group.

    Args:
        limit: share of failed verdicts that is still borne.
        setting: dotted path of the limit in the study, for the message.

    Raises:
        VerifierError: where more than ``limit`` of all verdicts failed.
    """
    samples_S = [sample for group in groups_P for sample in group.usable]
    failed = [s for g in groups_P for s in g.samples_G if s.reward.value is None]
    drawn = len(samples_S) + len(failed)
    if len(failed) > limit * drawn:
        first = failed[0]
        raise VerifierError(
            f"{len(failed)} of {drawn} verdicts failed, the first in domain '{first.prompt.domain}' at prompt "
            f"{first.prompt.id}: {first.reward.reason}",
            allowed=f"{setting} = {limit:.0%}",
            then="mend the verifier, then run the same command again to resume",
        )
    return samples_S
