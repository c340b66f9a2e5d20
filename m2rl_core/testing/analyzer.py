"""``AnalyzerContract``: what every analyzer's findings must hold; subclass it in three lines."""

from __future__ import annotations

from pathlib import Path

from m2rl_core.findings import plain, read_findings, write_findings
from m2rl_core.interfaces import Analyzer, Lab
from m2rl_core.types import Findings


class AnalyzerContract:
    """Checks of an analyzer on a lab that the subclass provides.

    ::

        class TestMine(AnalyzerContract):
            analyzer = MyAnalyzer(MyAnalyzer.Config())
            def lab(self) -> Lab: ...
    """

    analyzer: Analyzer

    def lab(self) -> Lab:
        """A small study to analyse."""
        raise TypeError(f"{type(self).__name__} must say which lab to analyse")

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
