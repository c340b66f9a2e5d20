"""``AnalyzerContract``: what every analyzer's findings must hold; subclass it in three lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from m2rl_core.findings import plain, read_findings, write_findings
from m2rl_core.interfaces import Analyzer, Lab
from m2rl_core.types import Findings


class AnalyzerContract:
    """Checks of an analyzer, on the models of :func:`bare_lab` or on a lab that the subclass provides.

    ::

        class TestMine(AnalyzerContract):
            analyzer = MyAnalyzer(MyAnalyzer.Config())
    """

    analyzer: Analyzer

    @pytest.fixture(autouse=True)
    def _somewhere(self, tmp_path: Path) -> None:
        self._models_folder = tmp_path / "bare-lab"

    def lab(self) -> Lab:
        """A small study to analyse; asked for once per look. By default there is none, only models."""
        return bare_lab(self._models_folder)

    def findings(self) -> Findings:
        return self.analyzer.run(self.lab())

    def test_it_finds_something(self) -> None:
        found = self.findings()
        assert found.tables or found.figures or found.claims

    def test_the_findings_can_be_written_and_read(self, tmp_path: Path) -> None:
        found = plain(self.findings())
        write_findings(found, tmp_path)
        assert read_findings(tmp_path) == found

    def test_tables_are_rectangular(self) -> None:
        for name, table in self.findings().tables.items():
            assert all(len(row) == len(table.columns) for row in table.rows), name

    def test_figures_have_a_value_for_every_x(self) -> None:
        for name, figure in self.findings().figures.items():
            assert all(len(values) == len(figure.x) for values in figure.series.values()), name

    def test_intervals_hold_their_statistic(self) -> None:
        for claim in self.findings().claims:
            if claim.interval is not None and claim.statistic is not None:
                assert claim.interval[0] <= claim.statistic <= claim.interval[1], claim.statement

    def test_the_same_study_gives_the_same_findings(self) -> None:
        assert self.findings() == self.findings()


def bare_lab(folder: Path) -> Lab:
    """The core's own laboratory over a random small model and two experts near it, ``math`` and ``science``.

    It has weights, log-probs and plain samples; what needs a study raises a ``DataError``.

    Args:
        folder: where the models are, or will be.
    """
    from m2rl_core.analyze import Laboratory
    from m2rl_core.config import AnalyzeStage, Study
    from m2rl_core.plugins import load_plugins
    from m2rl_core.run import StageRun
    from m2rl_core.testing.family import family

    place = folder / "models"
    models = {path.name: path for path in sorted(place.iterdir())} if place.is_dir() else family(place, 2)
    stage = AnalyzeStage(kind="analyze", analyzer={"use": "none"})
    run = StageRun(
        name="look",
        stage=stage,
        study=Study(name="look", stages={"look": stage}),
        seed=1,
        folder=folder,
        models=models,
        registry=load_plugins(),
    )
    return Laboratory(run, experts={name: name for name in ("math", "science")}, start="base")
