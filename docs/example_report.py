"""Write the documentation's example report, its picture and the findings from the runs of one study.

    make example-report RUNS=runs/miniature-seeds

``docs/example-report/index.html`` is the report as one page that stands alone: with fewer samples, and without links to
files of the run, which are not in the repository. ``docs/findings.md`` answers the study's questions.
``docs/images/report.png`` is the page's first screen; it needs Chromium (``--chromium``).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from m2rl_core.report import write_report
from m2rl_core.study import one_study

DOCS = Path(__file__).resolve().parent
SAMPLES = 100
SCREEN = "1280,800"
"""Pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of one study, with different seeds")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where to write")
    parser.add_argument("--chromium", default="chromium", help="the browser that takes the picture")
    chosen = parser.parse_args()
    study, nodes = one_study(chosen.runs)
    page, image = chosen.docs / "example-report" / "index.html", chosen.docs / "images" / "report.png"
    for folder in (page.parent, image.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        write_report(study, nodes, Path(scratch), samples=SAMPLES)
        page.write_text(unlinked((Path(scratch) / "index.html").read_text(encoding="utf-8")), encoding="utf-8")
        shutil.copy(Path(scratch) / "findings.md", chosen.docs / "findings.md")
    picture(page, image, chosen.chromium)


def unlinked(page: str) -> str:
    """The page without links to other files, and without those that are nothing but the name of a format."""
    page = re.sub(r'<a href="(?!#)[^"]*">(?:CSV|SVG)</a>', "", page)
    page = re.sub(r'<a href="(?!#)[^"]*">(.*?)</a>', r"\1", page, flags=re.DOTALL)
    return re.sub(r"(<footer>[^.]*\.[^.]*\.[^.]*\.).*?</footer>", r"\1</footer>", page, flags=re.DOTALL)


def picture(page: Path, image: Path, browser: str) -> None:
    """The first screen of a page."""
    with TemporaryDirectory() as profile:  # nothing of the user's own
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        command = [
            browser,
            *quiet,
            f"--screenshot={image.resolve()}",
            f"--window-size={SCREEN}",
            page.resolve().as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)


if __name__ == "__main__":
    main()
