"""The command line: what it prints, where, with which exit code, and how fast."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner, Result

import m2rl_core.plugins
import m2rl_core.study
from m2rl_core.cli import app
from m2rl_core.config import load_study
from m2rl_core.errors import RunError, StageError
from m2rl_core.plugins import Registry, load_plugins
from m2rl_core.study import Team

Install = Callable[..., Path]

PLUGIN = """
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.rows import messages, rows
from m2rl_core.types import Composition, Prompt, Suite

class Quiz:
    name, reference = "quiz", "a test"
    class Config(ComponentConfig):
        level: int = 1
        source: str = "generated"
    def __init__(self, config):
        self.config = config
        self.suites = {f"quiz-{config.level}": Suite("generated")}
    def check(self):
        list(self.prompts("train"))
    def prompts(self, split):
        if self.config.source == "generated":
            yield Prompt("0", "quiz", ())
        else:
            yield from (Prompt(place, "quiz", messages(place, row)) for place, row in rows(self.config.source, ()))

class Recipe:
    name, reference = "recipe", "a test"
    class Config(ComponentConfig):
        pass
    def __init__(self, config):
        pass
    def compose(self):
        return Composition({"use": "part"}, {"use": "part"})

class Part:
    name, reference = "part", "a test"
    needs, separable, vanishes, divergence, needs_base = frozenset(), True, True, None, False
    class Config(ComponentConfig):
        pass
    def __init__(self, config):
        pass
    def check(self, experts):
        pass
    def passes(self):
        return ()

m2rl_domains = hookimpl(lambda: [Quiz])
m2rl_algorithms = hookimpl(lambda: [Recipe])
m2rl_advantages = hookimpl(lambda: [Part])
m2rl_losses = hookimpl(lambda: [Part])
m2rl_mergers = hookimpl(lambda: [Part])
"""

STUDY = """\
name: mini
plugins: [./mine.py]
domains: {one: quiz, two: {use: quiz, level: 2}}
x-expert: &expert {kind: rl, init: sft, algorithm: recipe, steps: 20, prompts: 8, group: 4}
stages:
  init: {kind: init, domains: [one, two]}
  sft: {kind: sft, init: init, domains: [one, two], conversations: 100, batch: 16}
  one: {<<: *expert, domains: [one]}
  two: {<<: *expert, domains: [two]}
  mean: {kind: merge, experts: [one, two], merger: part}
  evals: {kind: eval}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PLUGIN)
    file = tmp_path / "mini.yaml"
    file.write_text(STUDY)
    return file


def m2rl(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# ── speed ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["verify", "--help"], ["merge", "--help"], ["plugins"], ["plugins", "--json"], ["plugins", "--check"]],
)
def test_light_commands_import_no_torch_and_little_else(arguments: list[str]) -> None:
    code = """
import sys
from m2rl_core.cli import main
sys.argv = ["m2rl", *sys.argv[1:]]
try:
    main()
finally:
    assert not {"torch", "transformers", "numpy"} & set(sys.modules)
    assert len(sys.modules) < 700, len(sys.modules)  # a third of a second; a clock would tell how busy the machine is
"""
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)


def test_checking_a_study_imports_no_torch(study: Path) -> None:
    code = "import sys; from m2rl_core.cli import app; app(standalone_mode=False); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "check", str(study)], check=True, stdout=subprocess.DEVNULL)


# ── the surface ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_options_are_few_and_chosen() -> None:
    """A new option is a promise: it needs two users, and this list."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # typer's class is not exported
    options = {name: sorted(o for p in command.params for o in p.opts) for name, command in commands.items()}
    assert options == {
        # processes and machines change no result, so they are the command's business and not the study's
        "run": ["--json", "--nnodes", "--node-rank", "--nproc", "--only", "--rendezvous", "--runs", "--set", "study"],
        "check": ["--device", "--json", "--nnodes", "--nproc", "--runs", "--set", "study"],
        "plugins": ["--check", "--json"],
        "new": ["--json", "--like", "--out", "kind", "name"],
        "merge": [
            "--base",
            "--dtype",
            "--evidence",
            "--expert",
            "--json",
            "--method",
            "--out",
            "--preset",
            "--set",
            "--sweep",
            "--threads",
            "recipe",
        ],
        "blend": ["--json", "--out", "--set", "study"],
        "verify": ["--gold", "--json", "--out", "--plugin", "--reasoning", "--set", "domain", "file"],
        "rescore": ["--json", "--out", "--stage", "run"],
        "analyze": ["--base", "--json", "--model", "--out", "--plugin", "--set", "--study", "name"],
        "report": ["--json", "--out", "runs"],
        "doctor": ["--json", "--runs"],
        "eval": ["--json", "--limit", "--out", "--plugin", "--set", "--suite", "model"],
        # a trainer that asks chooses nothing, so whoever starts the server does
        "serve-verifier": ["--expose", "--host", "--plugin", "--port", "--reasoning", "--set", "domain"],
        "schema": [],
    }


def test_version() -> None:
    assert m2rl("--version").stdout == f"m2rl {m2rl_core.__version__}\n"


# ── plugins ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_plugins_lists_without_importing(install: Install) -> None:
    install("merger-exits", "raise SystemExit(3)")
    result = m2rl("plugins")
    assert result.exit_code == 0
    [row] = [line for line in result.stdout.splitlines() if "m2rl-merger-exits" in line]
    assert row.split() == ["merger", "exits", "m2rl-merger-exits", "1.2", "installed"]


def test_plugins_check_imports_and_fails_where_one_is_broken(install: Install) -> None:
    install("merger-exits", "raise SystemExit(3)")
    install("merger-fine", PLUGIN)
    result = m2rl("plugins", "--check")
    assert result.exit_code == 2
    assert "Warning: m2rl-merger-exits 1.2 is installed but failed: SystemExit: 3" in result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["merger", "exits", "m2rl-merger-exits", "1.2", "failed"] in rows
    assert ["domain", "quiz", "m2rl-merger-fine", "1.2", "loaded"] in rows


def test_plugins_for_programs(install: Install) -> None:
    install("merger-old", "", requires="m2rl-core<0.1")
    rows = {row["name"]: row for row in json.loads(m2rl("plugins", "--json").stdout)}
    assert rows["merger-old"] == {
        "name": "merger-old",
        "target": "m2rl_merger_old",
        "distribution": "m2rl-merger-old",
        "version": "1.2",
        "status": "incompatible",
        "problem": f"it requires m2rl-core <0.1, but {m2rl_core.__version__} is running",
        "components": [],
    }
    assert rows["engine-embedded"]["components"] == ["engine embedded"]


def test_a_broken_plugin_is_told_with_what_to_do(install: Install) -> None:
    install("merger-exits", "raise SystemExit(3)")
    install("merger-old", "", requires="m2rl-core<0.1")
    install("merger-a", PLUGIN)
    install("merger-b", PLUGIN)
    told = [line for line in m2rl("plugins", "--check").stderr.splitlines() if "is waiting" not in line]
    assert told == [
        "Warning: m2rl-merger-b 1.2 is installed but failed: advantage 'part' of m2rl-merger-b 1.2 is refused, because "
        "there is already the advantage 'part' of m2rl-merger-a 1.2. Next: disable one of the two, e.g. "
        "M2RL_DISABLE_PLUGINS=m2rl-merger-b",
        "Warning: m2rl-merger-exits 1.2 is installed but failed: SystemExit: 3 (site-packages/m2rl_merger_exits.py:1). "
        "Next: mend it (pip install --upgrade m2rl-merger-exits), or leave it out: M2RL_DISABLE_PLUGINS=merger-exits",
        "Warning: m2rl-merger-old 1.2 does not fit: it requires m2rl-core <0.1, but "
        f"{m2rl_core.__version__} is running. "
        "Next: bring it to a version that fits (pip install --upgrade m2rl-merger-old), or leave it out: "
        "M2RL_DISABLE_PLUGINS=merger-old",
    ]


def test_a_plugin_is_shown_by_any_of_its_names(install: Install) -> None:
    install("domain-quiz", PLUGIN)
    for name in ("quiz", "domain-quiz", "m2rl-domain-quiz"):
        shown = m2rl("plugins", "show", name)
        assert shown.exit_code == 0, shown.stderr
        assert "domain quiz of m2rl-domain-quiz 1.2" in shown.stdout
        assert "Reference: a test" in shown.stdout
        assert ["level", "integer", "1"] in [line.split() for line in shown.stdout.splitlines()]
    [found] = json.loads(m2rl("plugins", "show", "quiz", "--json").stdout)
    assert [setting["name"] for setting in found["settings"]] == ["level", "source"]


def test_a_local_plugin_is_shown_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def reward(response): return 1.0")
    shown = m2rl("plugins", "show", "mine", "--plugin", tmp_path / "mine.py").stdout
    assert "Reference: 'reward' in mine.py" in shown
    assert "seconds" in shown


def test_what_cannot_be_shown_is_told_with_its_cause(install: Install) -> None:
    install("merger-exits", "raise SystemExit(3)")
    broken, unknown = m2rl("plugins", "show", "exits"), m2rl("plugins", "show", "embeded")
    assert (broken.exit_code, unknown.exit_code) == (2, 2)
    assert "Error: there is no component 'exits'. m2rl-merger-exits 1.2 is installed but failed: Sys" in broken.stderr
    assert "Error: there is no component 'embeded'. Did you mean 'embedded'? Allowed: " in unknown.stderr


def test_a_broken_plugin_does_not_stop_a_study_that_does_not_use_it(install: Install, study: Path) -> None:
    install("merger-exits", "raise SystemExit(3)")
    install("domain-raises", "1 / 0")
    result = m2rl("check", study)
    assert result.exit_code == 0, result.stderr
    assert len(result.stderr.splitlines()) == 2
    used = m2rl("check", study, "--set", "domains.one.use=raises")
    assert used.exit_code == 2
    error = used.stderr.splitlines()[-1]
    assert error.startswith("Error: domains.one: domain 'raises' is not available. m2rl-domain-raises 1.2 is installed")
    assert "ZeroDivisionError" in error
    assert "quiz" in error


def test_strict_is_for_ci(install: Install, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("merger-exits", "raise SystemExit(3)")
    monkeypatch.setenv("M2RL_STRICT_PLUGINS", "1")
    result = m2rl("check", study)
    assert result.exit_code == 2
    assert "m2rl-merger-exits 1.2 is installed but failed: SystemExit: 3" in result.stderr
    assert m2rl("plugins", "--check").exit_code == 2, "still lists them"


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_shows_the_stages(study: Path, tmp_path: Path) -> None:
    result = m2rl("check", study, "--runs", tmp_path / "runs", "--set", "stages.two.steps=5")
    assert result.exit_code == 0, result.stderr
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert [row for row in rows if row][2:8] == [
        "init init domain one, domain two to run",
        "sft sft init 6 × 16 to run",
        "one rl sft 20 × 8 × 4 to run",
        "two rl sft 5 × 8 × 4 to run",
        "mean merge one, two part to run",
        "evals eval all models to run (0 of 8 done)",
    ]
    assert not (tmp_path / "runs").exists()


def blocks(text: str) -> list[list[str]]:
    """Lines between blank ones."""
    return [
        block for part in "\n".join(map(str.strip, text.splitlines())).split("\n\n") if (block := part.splitlines())
    ]


def figure(cell: str) -> float:
    return 0.0 if cell in ("·", "<0.1") else float(cell.replace(",", ""))


def test_check_estimates_memory_and_time(study: Path) -> None:
    result = m2rl("check", study, "--device", "cpu", "--set", "seeds=[1, 2]")
    assert result.exit_code == 0, result.stderr
    _, memory, rows, time, days, said, *merging = blocks(result.stdout)
    assert memory[0].startswith("Memory of each device in GB: cpux1, with ")
    columns = "stage parameters weights grads optim activ. head engine KV total"
    assert rows[0].split() == columns.split()
    assert [line.split()[0] for line in rows[2:]] == ["sft", "one", "two"]
    stage, parameters, *parts, total = rows[3].split()
    assert (stage, parameters) == ("one", "0.85M")
    assert figure(total) == pytest.approx(sum(map(figure, parts)), abs=0.6)
    assert time == ["Time on cpux1"]
    assert days[-1].split()[:2] == ["2", "seeds"]
    hours = [figure(line.split()[-1]) for line in days[2:]]
    assert hours[-1] == pytest.approx(2 * sum(hours[:-1]), rel=0.02)
    assert said[0].startswith("Taken for granted: prompts of 512 tokens")
    assert [line.split()[0] for line in merging[1][2:]] == ["mean"]
    assert max(len(line) for block in (memory, rows, time, days, said, *merging) for line in block) <= 100


def test_check_estimates_for_so_many_processes(study: Path) -> None:
    """What ``m2rl run --nproc 4 --nnodes 2`` would take, which is what eight such devices take."""
    eight = m2rl("check", study, "--device", "h100x8")
    asked = m2rl("check", study, "--device", "h100", "--nproc", "4", "--nnodes", "2")
    assert (asked.exit_code, asked.stdout) == (0, eight.stdout), asked.stderr
    assert "h100x8" in asked.stdout
    twice = m2rl("check", study, "--device", "h100x8", "--nproc", "4")
    assert twice.exit_code == 2
    assert "said twice. Found: h100x8, --nproc 4, --nnodes 1. Next: say --device h100" in " ".join(twice.stderr.split())


def test_check_says_what_would_not_work(study: Path) -> None:
    result = m2rl("check", study, "--device", "h100x2", "--set", "stages.init.context=65536")
    assert result.exit_code == 0, result.stderr
    assert "unknown" not in result.stdout
    small = m2rl(
        "check", study, "--set", "stages.init.context=65536", "--set", "engine={use: embedded, cache_gib: 0.01}"
    )
    said = " ".join(small.stdout.split())
    assert "one, two: engine.cache_gib = 0.01 holds no sample of 33280 tokens, so the run would stop" in said
    assert said.count("unknown") == 2, "no time for a stage that would stop"


def test_check_knows_its_devices(study: Path) -> None:
    result = m2rl("check", study, "--device", "h20x8")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "Error: --device: no devices are known as 'h20x8'. Did you mean 'h200'? Allowed: h100"
    )


def test_a_wrong_study_is_one_message_and_exit_code_2(study: Path) -> None:
    result = m2rl("check", study, "--set", "stages.one.stepz=5")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == ("Error: --set stages.one.stepz=5: stages.one.stepz: unknown key. Did you mean 'steps'?\n")


def test_a_domains_file_starts_from_the_studys_folder(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study.parent / "data").mkdir()
    (study.parent / "data" / "rows.jsonl").write_text('{"question": "How many?"}\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = m2rl("check", study, "--set", "domains.one.source=data/rows.jsonl")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("source", ["gone.jsonl", "data/gone.jsonl", "generatd"])
def test_a_domains_file_that_is_not_there(study: Path, source: str) -> None:
    result = m2rl("check", study, "--set", f"domains.one.source={source}")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: domains.one: no rows to read. Found: '{source}'.")


# ── for programs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_for_programs(study: Path, tmp_path: Path) -> None:
    result = m2rl("check", study, "--json", "--device", "h100x2", "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["study"], found["machine"], found["drift"], found["data"]) == ("mini", "h100x2", [], [])
    nodes = {node["id"]: node for node in found["nodes"]}
    assert nodes["one"]["inputs"] == ["sft"]
    assert nodes["one"]["folder"] == str(tmp_path / "runs" / "mini" / "one")
    assert not any(node["done"] for node in nodes.values())
    estimates = {each["stage"]: each for each in found["estimates"]}
    memory = dict(estimates["one"]["memory"])
    assert memory.pop("total") == pytest.approx(sum(memory.values()))
    assert estimates["one"]["device_hours"] > 0


def test_failures_for_programs(study: Path) -> None:
    """Standard output is one document also where data is missing or the study wrong; the message stays where it was."""
    result = m2rl("check", study, "--json", "--set", "domains.one.source=nowhere.jsonl")
    assert result.exit_code == 2
    [problem] = json.loads(result.stdout)["data"]
    assert problem.startswith("domains.one: no rows to read")
    result = m2rl("check", study, "--json", "--set", "sead=5")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "ConfigError"
    assert result.stderr == f"Error: {error['message']}\n"


# ── completion ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("m2rl pl", ["plugins"]),
        ("m2rl verify m", ["math"]),
        ("m2rl serve-verifier nothing-like-it", []),
        ("m2rl merge --method tas", ["task-arithmetic"]),
        ("m2rl analyze weight", ["weight-shift"]),
        ("m2rl run mini.yaml --only t", ["two"]),
        ("m2rl run gone.yaml --only t", []),
        ("m2rl rescore made --stage s", ["sft"]),
    ],
)
def test_shells_complete(line: str, expected: list[str], study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As bash asks; ``--install-completion`` writes what asks so."""
    made = study.parent / "made"
    made.mkdir()
    (made / "study.yaml").write_text(study.read_text())
    monkeypatch.chdir(study.parent)
    words = {"_M2RL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    result = CliRunner().invoke(app, [], prog_name="m2rl", env=words)
    assert result.stdout.split() == expected


def test_the_script_of_a_shell_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # a test runs in no shell
    code = "import sys; sys.argv[0] = 'm2rl'; from m2rl_core.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "--show-completion", "zsh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "_M2RL_COMPLETE=complete_zsh" in done.stdout


# ── run ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def run_with(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | Path) -> list[dict[str, Any]]:
    """Have the study end with ``outcome``; returns what it is called with."""
    calls = []

    def run_study(study: object, **options: Any) -> Path:
        calls.append({"study": study, **options})
        options["progress"].cached("init")
        options["progress"].started("sft")
        if isinstance(outcome, Path):
            return outcome
        raise outcome

    monkeypatch.setattr(m2rl_core.study, "run_study", run_study)
    return calls


def test_run_passes_on_what_it_is_given(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = run_with(monkeypatch, tmp_path / "runs" / "mini")
    result = m2rl("run", study, "--only", "sft", "--set", "seed=5", "--set", "stages.sft.batch=8", "--runs", tmp_path)
    assert result.exit_code == 0, result.stderr
    [call] = calls
    assert (call["runs"], call["only"]) == (tmp_path, "sft")
    assert (call["study"].seed, call["study"].stages["sft"].batch) == (5, 8)
    assert result.stdout.splitlines()[-1] == f"Done: {tmp_path / 'runs' / 'mini'}"
    assert "= 1 done before: init" in result.stdout


def test_run_passes_on_the_processes(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = run_with(monkeypatch, tmp_path)
    assert m2rl("run", study, "--only", "sft").exit_code == 0
    machines = ("--nnodes", "2", "--node-rank", "1", "--rendezvous", "first:29400")
    assert m2rl("run", study, "--nproc", "8", *machines).exit_code == 0
    assert [call["team"] for call in calls] == [None, Team(8, 2, 1, "first:29400")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--nproc", "2", "--only", "evals"), ""),
        (
            ("--nproc", "4"),
            "--nproc: more processes than GPUs. Found: 4 processes, 3 GPUs. Allowed: 1 to 3. Next: lower",
        ),
        (("--nnodes", "2"), "--rendezvous: where do the machines meet? Found: nothing. Allowed: HOST:PORT"),
        (("--nnodes", "2", "--rendezvous", "first"), "--rendezvous: where do the machines meet? Found: first."),
        (("--nnodes", "2", "--node-rank", "2"), "--node-rank: no such machine. Found: 2. Allowed: 0 to 1."),
    ],
)
def test_processes_without_a_place_are_refused(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setattr(m2rl_core.study, "run_parallel", lambda *_, **__: None)
    result = m2rl("run", study, "--runs", tmp_path / "runs", *options)
    assert result.stderr.startswith(f"Error: {message}" if message else ""), result.stderr
    assert result.exit_code == (2 if message else 0)
    assert (tmp_path / "runs").exists() == (not message)


def test_processes_without_a_stage_that_trains_are_refused(study: Path, tmp_path: Path) -> None:
    result = m2rl("run", study, "--runs", tmp_path / "runs", "--only", "init", "--nproc", "2")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --nproc: no stage to be run trains a model")
    assert "Found: init. Allowed: sft, rl." in result.stderr


def test_run_loads_the_plugins_once(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the check has loaded are those that the study is planned with."""
    loads = []

    def load(*arguments: Any, **options: Any) -> Registry:
        loads.append(arguments)
        return load_plugins(*arguments, **options)

    monkeypatch.setattr(m2rl_core.plugins, "load_plugins", load)
    monkeypatch.setattr(m2rl_core.study, "load_plugins", load)
    monkeypatch.setattr(m2rl_core.study, "run_parallel", lambda *_, **__: None)
    result = m2rl("run", study, "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.stderr
    assert len(loads) == 1


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (StageError("stage one stopped"), 1, "Error: stage one stopped.\n"),
        (RunError("runs/mini is in use"), 2, "Error: runs/mini is in use.\n"),
        (KeyboardInterrupt(), 130, "Interrupted. Run the same command again to resume.\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "Error: no space left on the disk that holds "),
    ],
)
def test_expected_failures_are_messages(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: BaseException, code: int, message: str
) -> None:
    run_with(monkeypatch, outcome)
    result = m2rl("run", study, "--runs", tmp_path / "here")
    assert result.exit_code == code
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.stderr
    if isinstance(outcome, OSError):
        assert str(tmp_path / "here") in result.stderr


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """A folder into which this process may not look for a while, also where it is the superuser's."""
    folder.chmod(0)
    owner = os.geteuid()
    if owner == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(owner)
        folder.chmod(0o700)


@pytest.mark.parametrize(
    "command", [("verify", "math"), ("merge", "--out", "new"), ("check",)], ids=lambda each: each[0]
)
def test_what_may_not_be_looked_at_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    (folder := tmp_path / "closed").mkdir()
    load_plugins()
    with closed(folder):
        result = m2rl(*command, folder / "file")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {folder / 'file'} can")
    assert "Permission denied" in result.stderr


def test_unexpected_failures_keep_their_traceback(study: Path) -> None:
    code = """
import m2rl_core.study
from m2rl_core.cli import main
def run_study(*_, **__):
    raise ZeroDivisionError("a mistake of ours")
m2rl_core.study.run_study = run_study
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(study)], capture_output=True, text=True, check=False, cwd=study.parent
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: a mistake of ours"
    assert "Traceback (most recent call last)" in done.stderr


# ── report ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_report_needs_a_studys_folder(tmp_path: Path) -> None:
    result = m2rl("report", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {tmp_path} is no study's folder: it holds no study.yaml.")


@pytest.mark.slow
def test_a_report_of_an_unfinished_study(study: Path, tmp_path: Path) -> None:
    """Nothing is done yet: the report says so, wherever the study's folder has been moved to."""
    folder = tmp_path / "moved"
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(load_study(study).model_dump(mode="json")))
    result = m2rl("report", folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"Done: {folder / 'report-now' / 'index.html'}\n"
    assert "mean" in (folder / "report-now" / "report.md").read_text()
    other = tmp_path / "other"
    other.mkdir()
    (other / "study.yaml").write_text(yaml.safe_dump(load_study(study, ["seed=18"]).model_dump(mode="json")))
    found = json.loads(m2rl("report", folder, other, "--out", tmp_path / "out", "--json").stdout)
    assert found == {
        "study": load_study(study).name,
        "report": str(tmp_path / "out" / "index.html"),
        "findings": str(tmp_path / "out" / "findings.md"),
        "answer": "Not answered.",
        "reasons": found["reasons"],
        "margins": [],
    }
    assert " · 2 seeds · " in (tmp_path / "out" / "index.html").read_text()
