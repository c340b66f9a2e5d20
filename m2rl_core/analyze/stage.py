"""The stage ``kind: analyze``."""

from __future__ import annotations

from collections import Counter

from m2rl_core.analyze.lab import Laboratory
from m2rl_core.config import AnalyzeStage
from m2rl_core.errors import boundary
from m2rl_core.findings import plain, write_findings
from m2rl_core.run import StageRun
from m2rl_core.types import ClaimVerdict

VERDICTS: tuple[ClaimVerdict, ...] = ("holds", "fails", "undecided", "not measurable")


def analyze(run: StageRun[AnalyzeStage], lab: Laboratory | None = None) -> None:
    """Run the stage's analyzer; writes ``findings.json``, ``tables/*.csv``, and to ``metrics.jsonl`` how claims fared.

    A killed analysis begins anew, but reads the samples that it has drawn already.

    Args:
        lab: by default that of the stage.

    Raises:
        StageError: the analyzer failed, or its findings are malformed.
        DataError: it asks for what the study does not hold.
        VerifierError: more of the verdicts on drawn samples failed than the stage allows.
    """
    analyzer = run.registry.create("analyzer", run.stage.analyzer, f"stages.{run.name}.analyzer")
    with run.clock("analyze"), boundary(f"analyzer '{analyzer.name}'", "analysing"):
        found = plain(analyzer.run(lab or Laboratory(run)))
    write_findings(found, run.folder)
    verdicts = Counter(claim.verdict for claim in found.claims)
    run.log(0, {"claims": len(found.claims), **{f"claims/{v.replace(' ', '_')}": verdicts[v] for v in VERDICTS}})
