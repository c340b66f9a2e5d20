"""The miniature study as a user runs it, cut short; and killed at random moments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from m2rl_core.study import one_study

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "studies" / "miniature.yaml"
DOMAINS = ("math", "coding", "science", "if", "agent")
LEARNT = {
    # 200 updates teach science well enough for a reward now and then, so that what is compared is a model that moves
    "stages.sft.conversations": 6400,
    "stages.sft.domains": "{math: 1, coding: 1, science: 6, if: 1, agent: 1}",
    "stages.sft.checkpoint_every": 25,
    "stages.sft.threads": 1,
    "stages.science.steps": 3,
    "stages.science.prompts": 16,
    "stages.science.group": 16,
    "stages.science.checkpoint_every": 1,
}
SMOKE = ["--set", "scale=smoke"]
CHANGES = [*SMOKE, *(part for key, value in LEARNT.items() for part in ("--set", f"{key}={value}"))]


def m2rl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("m2rl")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole study, finished at the scale at which nothing is learned."""
    runs = tmp_path_factory.mktemp("runs")
    done = m2rl("run", str(STUDY), "--runs", str(runs), *SMOKE)
    assert done.returncode == 0, done.stderr
    return runs / "miniature-smoke"


def test_nothing_is_left_to_be_done(study: Path) -> None:
    assert [node.id for node in one_study([study])[1] if not (node.folder / "DONE").exists()] == []


def test_every_stage_leaves_what_it_should(study: Path) -> None:
    for stage in ("sft", *DOMAINS, "multi"):
        names = {p.name for p in (study / stage).iterdir()}
        assert {"config.yaml", "metrics.jsonl", "times.jsonl", "tensorboard", "checkpoint", "DONE"} <= names
        assert "state" not in names
    for model in ("sft", "average", "multi"):
        scores = json.loads((study / "evals" / model / "science-heldout" / "scores.json").read_text())
        assert scores["prompts"] == 2
        assert 0 <= scores["score"] <= 100


def test_checkpoints_are_plain_hugging_face_folders(study: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for model in ("init", "sft", "science", "average", "ties-dare", "mt-opd"):
        folder = study / model / "checkpoint"
        tokenizer = AutoTokenizer.from_pretrained(folder)
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": "What is 12 + 34?"}], add_generation_prompt=True, tokenize=False
        )
        ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
        out = AutoModelForCausalLM.from_pretrained(folder).generate(ids, max_new_tokens=4, do_sample=False)
        assert out.shape[1] > ids.shape[1]


def test_the_report_is_there(study: Path) -> None:
    page = (study / "report" / "index.html").read_text()
    for stage in ("ta-dare", "math-coding", "weights", "neighborhood", "gains", "judges", "interference"):
        assert stage in page
    assert "## What share of the experts' gain does each way keep?" in (study / "report" / "findings.md").read_text()
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert (study / "report" / "report.md").is_file()
    assert list((study / "report" / "tables").glob("*.csv"))
    assert list((study / "report" / "figures").glob("*.svg"))


def test_a_finished_study_is_not_run_again(study: Path) -> None:
    done = m2rl("run", str(STUDY), "--runs", str(study.parent), *SMOKE)
    assert done.returncode == 0
    assert "started" not in done.stdout


def test_changing_a_merger_retrains_nothing(study: Path) -> None:
    changed = [*SMOKE, "--set", "stages.ta.merger.scale=0.5"]
    done = m2rl("run", str(STUDY), "--runs", str(study.parent), "--only", "ta", *changed)
    assert done.returncode == 0, done.stderr
    started = [line for line in done.stdout.splitlines() if "started" in line]
    assert len(started) == 1
    assert " ta: " in started[0]


def test_six_kills_change_no_byte() -> None:
    command = [sys.executable, "benchmarks/kill.py", str(STUDY), "--kills", "6", "--stage", "science", *CHANGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same, byte for byte, after 6 kills" in done.stdout
