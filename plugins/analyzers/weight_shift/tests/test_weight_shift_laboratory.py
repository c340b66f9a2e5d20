"""The analyzer through the core's own laboratory, over bare model folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from m2rl_analyzer_weight_shift import WeightShift
from m2rl_core.config import AnalyzeStage, Study
from m2rl_core.interfaces import Lab
from m2rl_core.plugins import load_plugins
from m2rl_core.run import StageRun
from m2rl_core.testing import AnalyzerContract
from m2rl_core.testing.family import family

laboratory = pytest.importorskip("m2rl_core.analyze")


class TestWeightShiftInTheLaboratory(AnalyzerContract):
    analyzer = WeightShift(WeightShift.Config())

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.models = family(tmp_path / "models", 2, moved=1e-4)

    def lab(self) -> Lab:
        stage = AnalyzeStage(kind="analyze", analyzer="weight-shift")
        run = StageRun(
            name="look", stage=stage, study=Study(name="look", stages={"look": stage}), seed=1, folder=self.folder,
            models=self.models, registry=load_plugins(),
        )  # fmt: skip
        lab: Lab = laboratory.Laboratory(run, experts={"math": "math", "science": "science"}, start="base")
        return lab

    def test_experts_are_compared_with_the_start(self) -> None:
        assert [row[0] for row in self.findings().tables["changed"].rows] == ["math", "science"]
