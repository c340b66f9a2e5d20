"""The miniature study as a user runs it, cut short; and killed at random moments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "studies" / "miniature.yaml"
DOMAINS = ("math", "coding", "science", "if", "agent")
SHORT = {
    "stages.sft.conversations": 6400,
    # 200 updates teach science well enough for a reward now and then, but not the rest: an expert that learned nothing
    # could not be merged
    "stages.sft.domains": "{math: 1, coding: 1, science: 6, if: 1, agent: 1}",
    "stages.sft.checkpoint_every": 25,
    **{f"stages.{name}.steps": 3 for name in (*DOMAINS, "multi")},
    **{f"stages.{name}.checkpoint_every": 1 for name in (*DOMAINS, "multi")},
    "stages.average.experts": "[science, multi]",
    "stages.task-arithmetic.experts": "[science, multi]",
    "stages.evals.models": "[sft, science, average, task-arithmetic, multi]",
    "stages.evals.suites": "[science-heldout, science-hard, agent-heldout]",
    "stages.evals.limit": 32,
}
CHANGES = [part for key, value in SHORT.items() for part in ("--set", f"{key}={value}")]


def m2rl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("m2rl")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished short study."""
    runs = tmp_path_factory.mktemp("runs")
    done = m2rl("run", str(STUDY), "--runs", str(runs), *CHANGES)
    assert done.returncode == 0, done.stderr
    return runs / "miniature"


def test_every_stage_leaves_what_it_should(study: Path) -> None:
    for stage in ("sft", *DOMAINS, "multi"):
        names = {p.name for p in (study / stage).iterdir()}
        assert {"config.yaml", "metrics.jsonl", "times.jsonl", "tensorboard", "checkpoint", "DONE"} <= names
        assert "state" not in names
    for model in ("sft", "average", "multi"):
        scores = json.loads((study / "evals" / model / "science-heldout" / "scores.json").read_text())
        assert scores["prompts"] == 32
        assert 0 <= scores["score"] <= 100


def test_checkpoints_are_plain_hugging_face_folders(study: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for model in ("init", "sft", "science", "average", "task-arithmetic"):
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
    assert "task-arithmetic" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert (study / "report" / "report.md").is_file()
    assert list((study / "report" / "tables").glob("*.csv"))
    assert list((study / "report" / "figures").glob("*.svg"))


def test_a_finished_study_is_not_run_again(study: Path) -> None:
    done = m2rl("run", str(STUDY), "--runs", str(study.parent), *CHANGES)
    assert done.returncode == 0
    assert "started" not in done.stdout


def test_changing_a_merger_retrains_nothing(study: Path) -> None:
    changed = [*CHANGES, "--set", "stages.task-arithmetic.merger.scale=0.5"]
    done = m2rl("run", str(STUDY), "--runs", str(study.parent), "--only", "task-arithmetic", *changed)
    assert done.returncode == 0, done.stderr
    started = [line for line in done.stdout.splitlines() if "started" in line]
    assert len(started) == 1
    assert "task-arithmetic" in started[0]


def test_six_kills_change_no_byte() -> None:
    command = [sys.executable, "benchmarks/kill.py", str(STUDY), "--kills", "6", "--stage", "science", *CHANGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same, byte for byte, after 6 kills" in done.stdout
