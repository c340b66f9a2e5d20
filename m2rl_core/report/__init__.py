"""``kind: report`` — tables and figures of a whole study: mix, merge or distil?

:func:`report` is the stage; :func:`write_report` writes the same from any folder of a study. Needs the extra
``m2rl-core[report]`` (matplotlib and jinja2), which is imported when a report is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m2rl_core.config import Study
from m2rl_core.files import write_text
from m2rl_core.report import scores, training
from m2rl_core.report.analyses import analyses
from m2rl_core.report.claims import claims
from m2rl_core.report.data import blend
from m2rl_core.report.evidence import Evidence, Node
from m2rl_core.report.files import files, unfinished
from m2rl_core.report.imported import imported
from m2rl_core.report.merges import merges
from m2rl_core.report.pages import write_pages
from m2rl_core.report.published import beside_paper
from m2rl_core.report.questions import findings_page
from m2rl_core.report.samples import MOST
from m2rl_core.report.verdict import Verdict, verdict

if TYPE_CHECKING:
    from m2rl_core.run import StageRun

__all__ = ["Verdict", "report", "write_report"]


def report(run: StageRun) -> None:
    """Write the report of ``run.study`` into ``run.folder``."""
    write_report(run.study, run.nodes, run.folder)


def write_report(study: Study, nodes: Sequence[Node], out: Path, *, samples: int = MOST) -> Verdict:
    """Write ``index.html``, ``report.md``, ``findings.md``, ``tables/*.csv`` and ``figures/*.svg`` into ``out``.

    Args:
        study: the whole study.
        nodes: all nodes of its stage graph; what is not done is shown as missing.
        samples: most samples that the page shows.

    Returns:
        The study's answer, which is also the page's first screen.

    Raises:
        UserError: matplotlib or jinja2 is not installed.
        DataError: a file of the run that is no JSON.
        RunError: the disk is full.
    """
    evidence = Evidence(study, nodes, out)
    sections = [
        unfinished(evidence),
        scores.scores(evidence),
        beside_paper(evidence),
        imported(evidence),
        merges(evidence),
        scores.kept_gain(evidence),
        scores.trajectories(evidence),
        blend(evidence),
        training.cost(evidence),
        training.curves(evidence),
        training.signal(evidence),
        training.failures(evidence),
        *analyses(evidence),
        files(evidence),
    ]
    there = [section for section in sections if section is not None]
    found = verdict(evidence)
    write_pages(evidence, found, there, claims=claims(evidence), samples=samples)
    write_text(out / "findings.md", findings_page(evidence, found))
    return found
