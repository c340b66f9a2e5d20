"""``m2rl merge`` from end to end: what it makes, what it says, and that nothing is left where it stops."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

import m2rl_core
from m2rl_core.cli import app
from m2rl_core.cli.bytes import Lines, reading
from m2rl_core.errors import ConfigError
from m2rl_core.merge import merge_models
from m2rl_core.testing.family import family
from m2rl_merger_task_arithmetic import TaskArithmetic


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that everything is called from."""
    family(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


GIVEN = ("--base", "base", "--expert", "math=math", "--expert", "science=science")


def m2rl(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["merge", *map(str, arguments)])


def told(stderr: str) -> list[str]:
    """The lines, without those on plugins that are installed and do not load, which are none of merging's business."""
    broken = re.compile(r"Warning: m2rl-\S+ \S+ is installed but failed: ")
    return [line for line in stderr.splitlines() if not broken.match(line)]


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ── what it makes ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["tied", "untied", "sharded"])
def test_the_model_opens_in_transformers_and_generates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    from transformers import AutoModelForCausalLM

    family(tmp_path, tied=form != "untied", shard_bytes=9000 if form == "sharded" else 1 << 40)
    monkeypatch.chdir(tmp_path)
    result = m2rl("--method", "average", *GIVEN, "--dtype", "float32", "--threads", 2, "--out", "new/out")
    assert result.exit_code == 0, result.stderr
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "out", output_loading_info=True)
    assert not any(told.values())
    assert model.dtype == torch.float32
    assert model.generate(torch.tensor([[5, 6, 7]]), do_sample=False).shape[1] > 3


def test_diagnostics_for_programs_and_the_same_merge_from_python(models: Path) -> None:
    result = m2rl("--method", "task-arithmetic", *GIVEN, "--set", "scale=0.5", "--json", "--out", "out")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["folders"], found["experts"]) == (["out"], ["math", "science"])
    recipe = {
        "merger": {"use": "task-arithmetic", "scale": 0.5},
        "base": "base",
        "experts": {"math": "math", "science": "science"},
    }
    told = m2rl_core.merge(recipe, "from-python")
    assert found["metrics"] == told.metrics
    assert found["fingerprints"] == told.fingerprints
    files = [models / out / "model.safetensors" for out in ("out", "from-python")]
    assert files[0].read_bytes() == files[1].read_bytes()
    failed = m2rl("--method", "task-arithmetic", *GIVEN, "--json", "--out", "out")
    assert failed.exit_code == 2
    assert json.loads(failed.stdout)["error"]["kind"] == "RunError"


def test_a_recipe_from_python_that_is_wrong_says_where(models: Path) -> None:
    experts = {"math": "math", "science": "science"}
    with pytest.raises(ConfigError, match=r"recipe\.expert: unknown key\. Did you mean 'experts'"):
        m2rl_core.merge({"merger": "average", "expert": experts}, "out")
    with pytest.raises(ConfigError, match=r"recipe\.merger\.scal: unknown key\. Did you mean 'scale'"):
        m2rl_core.merge({"merger": {"use": "task-arithmetic", "scal": 1}, "base": "base", "experts": experts}, "out")
    assert not (models / "out").exists()


def test_a_sweep_makes_a_model_of_every_combination(models: Path) -> None:
    swept = ("--sweep", "rate=0.5,0.8", "--sweep", "then.scale=1")
    result = m2rl("--method", "dare", *GIVEN, "--set", "seed=3", *swept, "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert listed(models / "out") == ["rate=0.5,then.scale=1", "rate=0.8,then.scale=1"]
    assert "Done: out/rate=0.8,then.scale=1\n" in result.stdout
    single = m2rl("--method", "dare", *GIVEN, "--set", "seed=3", "--set", "rate=0.8", "--out", "single")
    assert single.exit_code == 0, single.stderr
    files = (models / "out" / "rate=0.8,then.scale=1" / "model.safetensors", models / "single" / "model.safetensors")
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("scale", "should read KEY=V1,V2"),
        ("scale=[", "cannot be read"),
        ("scal=1,2", "scal"),
        ("scale=0.5,high", "scale"),
    ],
)
def test_a_sweep_of_what_is_no_setting_is_refused(models: Path, sweep: str, said: str) -> None:
    result = m2rl("--method", "task-arithmetic", *GIVEN, "--sweep", sweep, "--out", "out")
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (models / "out").exists()


def test_settings_reach_the_merger(models: Path) -> None:
    assert m2rl("--method", "task-arithmetic", *GIVEN, "--set", "scale=0.5", "--out", "out").exit_code == 0
    merge_models(
        TaskArithmetic(TaskArithmetic.Config(scale=0.5)),
        base=models / "base",
        experts={name: models / name for name in ("math", "science")},
        out=models / "by-hand",
    )
    found = [(models / out / "model.safetensors").read_bytes() for out in ("out", "by-hand")]
    assert found[0] == found[1]


PRESETS = """
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Merger, Preset
class Nearly(Merger):
    name, reference, granularity, needs_base = "nearly", "a test", "block", True
    presets = {"paper": Preset({"share": 0.25}, "As printed.")}
    class Config(ComponentConfig):
        share: float = 1.0
        seed: int = 0
    def __init__(self, config):
        self.config = config
    def merge(self, block, stats):
        return [block.base + self.config.share * (block.experts_E[0] - block.base)]
    def diagnostics(self, experts, stats):
        return {**{f"kept/{name}": 0.5 for name in experts}, "taken": 1.0}
m2rl_mergers = hookimpl(lambda: [Nearly])
"""


def test_presets_and_what_the_merger_tells(models: Path, install: Callable[..., Path]) -> None:
    install("merger-nearly", PRESETS)
    result = m2rl("--method", "nearly", "--preset", "paper", *GIVEN, "--out", "out")
    assert result.exit_code == 0, result.stderr
    header, row = ([line for line in result.stdout.splitlines() if said in line] for said in ("expert ", " math "))
    assert header[0].split()[-1] == "kept"
    assert row[-1].split()[-1] == "0.5"
    assert f"base: {models / 'base'}\n" in (models / "out" / "README.md").read_text()
    card = (models / "out" / "README.md").read_text()
    for said in ("share: 0.25", "seed: 0", "These are the settings of preset `paper`: As printed.", "| taken | 1 |"):
        assert said in card
    assert m2rl("--method", "nearly", *GIVEN, "--out", "other").exit_code == 0
    assert "preset `" not in (models / "other" / "README.md").read_text()
    wrong = m2rl("--method", "nearly", "--preset", "papr", *GIVEN, "--out", "third")
    assert "--method nearly.preset: merger 'nearly' has no such preset. Did you mean 'paper'" in wrong.stderr


RECIPE = "merger: average\nbase: base\nexperts: {math: math, science: science}\n"
MERGEKIT = """\
merge_method: task_arithmetic
base_model: base
models: [{model: base}, {model: math}, {model: science}]
parameters: {weight: [0.2, 0.7], int8_mask: true}
dtype: bfloat16
"""


def test_recipes_of_both_forms(models: Path) -> None:
    (models / "ours.yaml").write_text(RECIPE)
    (models / "theirs.yaml").write_text(MERGEKIT)
    ours, theirs = m2rl("ours.yaml", "--out", "one"), m2rl("theirs.yaml", "--out", "two")
    assert [ours.exit_code, theirs.exit_code] == [0, 0], ours.stderr + theirs.stderr
    assert not told(ours.stderr)
    notes = told(theirs.stderr)
    assert all(note.startswith("Note: ") for note in notes)
    assert "Note: 'int8_mask' is ignored: it saves mergekit memory and changes no number." in notes
    assert {"README.md", "model.safetensors", "tokenizer.json"} <= set(listed(models / "one"))
    assert (models / "one" / "model.safetensors").read_bytes() != (models / "two" / "model.safetensors").read_bytes()


# ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_found_is_shown(models: Path) -> None:
    result = m2rl("--method", "average", *GIVEN, "--out", "out")
    lines = result.stdout.splitlines()
    header = next(line for line in lines if "cosine with math" in line)
    assert re.split(r"\s{2,}", header.strip())[:4] == ["expert", "length", "of the base's", "changed"]
    [row] = [cells for line in lines if len(cells := line.split()) == 6 and cells[0] == "math"]
    vectors = (models / "out" / "README.md").read_text().partition("## Task vectors")[2]
    [length, share, changed, own, other] = vectors.partition("\n| math | ")[2].partition(" |\n")[0].split(" | ")
    assert row[1:] == [f"{float(length):.4g}", share, changed, "1.000", f"{float(other):.3f}"]
    assert own == "1.0000"
    assert any(line.startswith("Weights that some experts raise and others lower: ") for line in lines)
    assert lines[-1] == "Done: out"


def test_without_a_base_less_is_known(models: Path) -> None:
    result = m2rl("--method", "average", *GIVEN[2:], "--out", "out")
    assert "distance from their mean" in result.stdout
    assert "cosine" not in result.stdout


def test_warnings_are_said_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family(tmp_path, moved=0.5)
    (tmp_path / "math" / "chat_template.jinja").write_text("{{ other }}")
    monkeypatch.chdir(tmp_path)
    result = m2rl("--method", "average", *GIVEN, "--out", "out")
    assert result.exit_code == 0
    assert len(told(result.stderr)) == 3
    assert "Warning: Expert 'math' has another chat template than the base" in result.stderr
    assert "Warning: Expert 'science' lies unusually far from the base" in result.stderr


def test_lines_tell_bytes_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = Lines(Console(width=200), "merging", clock=lambda: now[0])
    for now[0], done in ((1.0, 1 << 30), (6.0, 3 * 10**9), (8.0, 4 * 10**9), (11.0, 10**10)):
        lines(done, 10**10)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition("· ")[2] for line in said] == [
        "merging: 3.00 of 10.00 GB, 500 MB/s, 14s left",
        "merging: 10.00 of 10.00 GB, 909 MB/s, 0s left",
    ]


def test_a_terminal_gets_a_bar() -> None:
    console = Console(force_terminal=True, width=120, record=True)
    with reading(console, "merging") as report:
        report(5 * 10**8, 10**9)
    text = console.export_text()
    assert "merging" in text
    assert "0.5/1.0 GB" in text


# ── what it refuses ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "averge", *GIVEN], "--method averge: merger 'averge' is not available. Did you mean 'average'?"),
        (
            ["--method", "average", *GIVEN, "--set", "weight=[1,2]"],
            "--method average.weight: unknown key. Did you mean 'weights'?",
        ),
        (["--method", "average", *GIVEN, "--set", "weights=[1]"], "merger 'average': 1 weights for 2 experts"),
        (
            ["--method", "average", *GIVEN, "--set", "weights=[1,.inf]"],
            "--method average.weights[1]: should be a finite",
        ),
        (["--method", "task-arithmetic", *GIVEN[2:]], "merger 'task-arithmetic' needs a base"),
        (["--method", "average", *GIVEN, "--expert", "law=lw"], "expert 'law': a model is a folder with config.json"),
        (["recipe.yaml"], "recipe.yaml:1: mergr: unknown key. Did you mean 'merger'?"),
        (["nothing.yaml"], "nothing.yaml cannot be read: No such file or directory"),
    ],
)
def test_mistakes_are_answered_in_one_message(models: Path, arguments: list[str], said: str) -> None:
    (models / "recipe.yaml").write_text(RECIPE.replace("merger", "mergr"))
    before = listed(models)
    result = m2rl(*arguments, "--out", "out")
    assert result.exit_code == 2
    message = "\n".join(told(result.stderr))
    assert message.startswith("Error: ")
    assert said in message
    assert listed(models) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Invalid value for --method: is needed, or a RECIPE"),
        (["--method", "average"], "Invalid value for --expert: is needed, or a RECIPE"),
        (["--method", "average", "--expert", "math"], "'math' should read NAME=DIR"),
        (["--method", "average", "--expert", "a=math", "--expert", "a=science"], "'a' is there twice"),
        (["--method", "average", *GIVEN, "--evidence", "math"], "--evidence: 'math' should read NAME=DIR"),
        (["recipe.yaml", "--evidence", "math=math"], "Invalid value for --evidence: the recipe says that"),
        (["recipe.yaml", "--dtype", "float32"], "Invalid value for --dtype: the recipe says that; change it there"),
        (["recipe.yaml", "--set", "scale=1"], "Invalid value for --set: the recipe says that"),
    ],
)
def test_options_that_make_no_merge(models: Path, arguments: list[str], said: str) -> None:
    (models / "recipe.yaml").write_text(RECIPE)
    result = m2rl(*arguments, "--out", "out")
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert not (models / "out").exists()


def test_what_a_killed_merge_left_is_named(models: Path) -> None:
    (models / ".out.part-1").mkdir()
    result = m2rl("--method", "average", *GIVEN, "--out", "out")
    assert result.exit_code == 0
    assert "Note: .out.part-1 is what a merge that was killed has left; remove it" in result.stderr
    assert (models / ".out.part-1").exists()


def test_a_folder_with_something_in_it_is_left_alone(models: Path) -> None:
    result = m2rl("--method", "average", *GIVEN, "--out", "math")
    assert result.exit_code == 2
    assert "math exists already" in result.stderr


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("notes/out", "notes/out cannot be written: Not a directory"),
        (300 * "x", "cannot be written: File name too long. Next: name another folder"),
        ("nowhere", "nowhere exists already"),
        ("math/out", "math/out lies within a model that is merged"),
    ],
)
def test_places_where_no_model_can_go(models: Path, out: str, said: str) -> None:
    (models / "nowhere").symlink_to(models / "away")
    (models / "notes").write_text("")
    before = listed(models)
    result = m2rl("--method", "average", *GIVEN, "--out", out)
    assert result.exit_code == 2
    assert said in "\n".join(told(result.stderr))
    assert listed(models) == before


# ── where it stops ───────────────────────────────────────────────────────────────────────────────────────────────────

INTERRUPTED = """
import os, signal, sys
from m2rl_core.cli import bytes, main
bytes.Lines.__call__ = lambda self, done, total: os.kill(os.getpid(), signal.Signals[stop])
stop, *arguments = sys.argv[1:]
sys.argv = ["m2rl", "merge", *arguments]
main()
"""


@pytest.mark.parametrize("stop", ["SIGINT", "SIGTERM"])
def test_an_interrupt_leaves_nothing(models: Path, stop: str) -> None:
    before = listed(models)
    command = [sys.executable, "-c", INTERRUPTED, stop, "--method", "average", *GIVEN, "--out", "new/er/out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 130
    assert told(done.stderr) == ["Interrupted; nothing was left behind."]
    assert listed(models) == before


FULL = """
import shutil, sys
from m2rl_core.cli import main
usage = shutil.disk_usage("/")
shutil.disk_usage = lambda path: usage._replace(free=1 << 40)  # as it was before somebody else filled the disk
sys.argv = ["m2rl", "merge", *sys.argv[1:]]
main()
"""


def test_a_disk_that_fills_up_leaves_nothing(models: Path) -> None:
    small = models / "small"
    small.mkdir()
    before = listed(models)
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    inner = f'mount -t tmpfs -o size=16k none {small} && "$0" "$@"; code=$?; ls -A {small}; exit $code'
    if subprocess.run([*prefix, inner, "true"], capture_output=True).returncode:
        pytest.skip("this system does not let a user mount a file system")
    command = [*prefix, inner, sys.executable, "-c", FULL, "--method", "average", *GIVEN, "--out", str(small / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Error: no space left on the disk that holds" in done.stderr
    assert done.stdout == ""
    assert listed(models) == before
