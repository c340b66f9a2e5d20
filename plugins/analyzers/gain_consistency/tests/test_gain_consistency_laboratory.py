"""The analyzer through the core's own laboratory, over evaluations as a study leaves them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from m2rl_analyzer_gain_consistency import GainConsistency
from m2rl_core.config import AnalyzeStage, Study
from m2rl_core.interfaces import Lab
from m2rl_core.plugins import load_plugins
from m2rl_core.run import NodeView, StageRun
from m2rl_core.testing import AnalyzerContract

laboratory = pytest.importorskip("m2rl_core.analyze")

RL = {"kind": "rl", "init": "sft", "algorithm": "grpo"}
STUDY = {
    "name": "gains",
    "domains": {"math": {"use": "math"}, "coding": {"use": "coding"}},
    "stages": {
        "sft": {"kind": "model", "path": "sft"},
        "math": {**RL, "domains": ["math"]},
        "coding": {**RL, "domains": ["coding"]},
        "multi": {**RL, "domains": ["math", "coding"]},
        "mean": {"kind": "merge", "base": "sft", "experts": ["math", "coding"], "merger": "average"},
        "look": {"kind": "analyze", "analyzer": "gain-consistency"},
    },
}
MODELS = ("sft", "math", "coding", "multi", "mean")


class TestGainConsistencyInTheLaboratory(AnalyzerContract):
    analyzer = GainConsistency(GainConsistency.Config())

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def lab(self) -> Lab:
        run = StageRun(
            name="look", stage=AnalyzeStage(kind="analyze", analyzer="gain-consistency"),
            study=Study.model_validate(STUDY), seed=1, folder=self.folder,
            models={name: self.folder / name for name in MODELS}, registry=load_plugins(),
            nodes=tuple(self.evaluations()),
        )  # fmt: skip
        lab: Lab = laboratory.Laboratory(run)
        return lab

    def evaluations(self) -> Iterator[NodeView]:
        """Nodes of kind eval, with 4 samples of 20 prompts each; multi is not evaluated."""
        for number, model in enumerate(m for m in MODELS if m != "multi"):
            folder = self.folder / "evals" / model / "aime"
            folder.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(number).random((20, 4)) < 0.2 + 0.1 * number
            rows = [
                {"prompt": f"p{i}", "domain": "math", "suite": "aime", "sample": j, "reward": float(values[i, j])}
                for i in range(20) for j in range(4)
            ]  # fmt: skip
            (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            yield NodeView(f"evals/{model}/aime", "evals", "eval", folder, 1, (), "")

    def test_arms_are_known_from_the_study(self) -> None:
        rows = self.findings().tables["gain-consistency"].rows
        assert [row[1:4] for row in rows] == [["multi", "mix", None], ["mean", "merge", 20]]
