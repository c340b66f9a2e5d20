"""From built wheels, never from the source tree: what a user installs, and the plugins that ``m2rl new`` writes.

An environment holds the wheels alone; everything else is linked from the environment that runs the tests, so that
nothing is downloaded.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from m2rl_core.scaffold import PLUGINS
from m2rl_docs.snippets import blocks, commands, unprinted

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/*/pyproject.toml"))]
NAMES = {tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"] for folder in PROJECTS}


class Environment:
    """A virtual environment without m2rl; offline."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True, with_pip=False)
        self.folder, self.bin = folder, folder / "bin"
        [self.site] = folder.glob("lib/python*/site-packages")
        others = folder / "others"
        others.mkdir()
        for each in Path(sysconfig.get_path("purelib")).iterdir():
            if "m2rl" not in each.name and each.suffix != ".pth":
                (others / each.name).symlink_to(each)
        (self.site / "others.pth").write_text(f"{others}\n")

    def run(self, *command: str | Path, at: Path | None = None) -> str:
        """Standard output of a program of the environment, which must succeed, with the working directory ``at``."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "M2RL_", "PIP_"))}
        program = str(self.bin / command[0])
        done = subprocess.run(
            [program, *map(str, command[1:])],
            capture_output=True,
            text=True,
            check=False,
            cwd=at or self.folder,
            env=kept | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def pip(self, *arguments: str | Path, at: Path | None = None) -> str:
        return self.run("python", "-m", "pip", "--disable-pip-version-check", *arguments, at=at)

    def installed(self) -> set[str]:
        """Distributions of its own."""
        return {found.metadata["Name"] for found in importlib.metadata.distributions(path=[str(self.site)])}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``make dist`` fills."""
    folder = tmp_path_factory.mktemp("dist")
    stamp = Path(sys.prefix) / ".installed"
    command = ["make", "dist", f"VENV={sys.prefix}", f"DIST={folder}", f"--old-file={stamp}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def environment(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """With one plugin from the wheels."""
    made = Environment(tmp_path_factory.mktemp("clean"))
    made.pip("install", "--no-index", "--find-links", dist, "m2rl-domain-agent")
    return made


def test_every_project_is_one_wheel_with_all_that_it_needs(dist: Path) -> None:
    wheels = {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in dist.iterdir()}
    assert set(wheels) == NAMES
    for name, wheel in wheels.items():
        files = ZipFile(wheel).namelist()
        assert not [file for file in files if file.startswith(("tests/", "plugins/"))], name
        assert {Path(file).parts[0].split("-")[0] for file in files} <= {name.replace("-", "_"), "m2rl_core"}
    core = ZipFile(wheels["m2rl-core"]).namelist()
    assert {f"m2rl_core/scaffold/studies/{study.name}" for study in (ROOT / "studies").glob("*.yaml")} <= set(core)
    assert "m2rl_core/scaffold/templates/domain.py.template" in core
    assert "m2rl_core/py.typed" in core


def test_a_plugin_brings_the_core_and_nothing_else(environment: Environment) -> None:
    assert environment.installed() == {"m2rl-core", "m2rl-domain-agent"}
    rows = json.loads(environment.run("m2rl", "plugins", "--json", "--check"))
    assert {row["distribution"] for row in rows} == {"m2rl-core", "m2rl-domain-agent"}
    assert {row["status"] for row in rows} == {"loaded"}
    where = environment.run(
        "python", "-c", "import m2rl_core, m2rl_domain_agent as a; print(m2rl_core.__file__, a.__file__)"
    )
    assert all(Path(file).is_relative_to(environment.site) for file in where.split())


def test_the_paper_brings_everything(dist: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    wanted = ("--dry-run", "--report", report, "--no-index", "--find-links", dist, "m2rl-core[paper]")
    Environment(tmp_path / "clean").pip("install", *wanted)
    names = {each["metadata"]["name"] for each in json.loads(report.read_text())["install"]}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for name in names if name.startswith("m2rl")} == {Requirement(each).name for each in extras["paper"]}


def test_a_shipped_study_is_at_hand_and_says_which_plugins_it_lacks(environment: Environment, tmp_path: Path) -> None:
    environment.run("m2rl", "new", "study", "mine", "--out", tmp_path)
    text = (tmp_path / "mine.yaml").read_text()
    assert text == (ROOT / "studies" / "miniature.yaml").read_text().replace("name: miniature", "name: mine")
    done = subprocess.run(
        [environment.bin / "m2rl", "check", tmp_path / "mine.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "domain 'math' is not available. Domains available: agent." in done.stderr


SMALL = """
name: small
domains: {agent: {use: agent}}
stages:
  init:  {kind: init, domains: [agent]}
  sft:   {kind: sft, init: init, domains: [agent], conversations: 64, batch: 16}
  evals: {kind: eval, models: [sft], suites: [agent-heldout]}
"""


def test_a_small_study_is_checked(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    shown = environment.run("m2rl", "check", "small.yaml", at=tmp_path)
    assert [line.split()[0] for line in shown.splitlines() if "to run" in line] == ["init", "sft", "evals"]


# ── new plugins ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def fresh(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a new plugin of every kind, called ``fresh``, whose wheels are installed."""
    folder, wheels = tmp_path_factory.mktemp("new"), tmp_path_factory.mktemp("wheels")
    for kind in PLUGINS:
        environment.run("m2rl", "new", kind, "fresh", "--out", folder)
    environment.pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, *folder.iterdir())
    for wheel in wheels.iterdir():
        assert not [file for file in ZipFile(wheel).namelist() if "test" in file], "a wheel without tests"
    environment.pip("install", "--no-index", *wheels.iterdir())
    return folder


@pytest.mark.parametrize("kind", PLUGINS)
def test_a_new_plugin_passes_its_own_tests_where_it_is_installed(
    kind: str, fresh: Path, environment: Environment, tmp_path: Path
) -> None:
    [tests] = (fresh / f"m2rl-{kind}-fresh").glob("test_*.py")
    shutil.copy(tests, tmp_path)
    shown = environment.run("python", "-P", "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", at=tmp_path)
    assert int(shown.strip().splitlines()[-1].split()[0]) >= 6
    assert "skipped" not in shown


FRESH = """
name: fresh
model: {dtype: float32}
domains: {fresh: {use: fresh, size: 20}}
x-rl: &rl {kind: rl, init: sft, domains: [fresh], algorithm: fresh, steps: 2, prompts: 4, group: 4, max_tokens: 8}
stages:
  init:  {kind: init, domains: [fresh], vocab: 384, hidden: 32, layers: 2, ffn: 64, context: 64}
  sft:   {kind: sft, init: init, domains: [fresh], conversations: 20, epochs: 60, batch: 20, lr: 1.0e-2, max_length: 64}
  one:   {<<: *rl, lr: 1.0e-3}
  two:   {<<: *rl, lr: 5.0e-4}
  merge: {kind: merge, base: sft, experts: [one, two], merger: {use: fresh, scale: 0.5}}
  look:  {kind: analyze, analyzer: fresh, models: [sft, one, two, merge]}
  evals: {kind: eval, models: [merge], suites: [fresh-heldout], limit: 4, max_tokens: 8}
"""


def test_new_plugins_work_in_a_study(fresh: Path, environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "fresh.yaml").write_text(FRESH)
    environment.run("m2rl", "run", "fresh.yaml", at=tmp_path)
    runs = tmp_path / "runs" / "fresh"
    steps = [json.loads(line) for line in (runs / "one" / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 2
    assert json.loads((runs / "look" / "findings.json").read_text())["tables"]["norms"]["rows"]
    assert json.loads((runs / "evals" / "merge" / "fresh-heldout" / "scores.json").read_text())["prompts"] == 4


# ── the transcript ───────────────────────────────────────────────────────────────────────────────────────────────────

SHORT = ("stages.sft.conversations=64", "stages.roman.steps=2", "stages.evals.limit=4")
"""The page's run takes minutes."""


def test_a_new_user_can_do_what_the_transcript_shows(dist: Path, tmp_path: Path) -> None:
    """Every file and command of the page in their order; pip asks no index, and training is short."""
    made, printed = Environment(tmp_path / "venv"), ""
    (tmp_path / "wheelhouse").symlink_to(dist)
    for block in blocks(ROOT / "docs" / "first-domain.md"):
        if block.title == "output":
            line = unprinted(block, printed)
            assert line is None, f"{block}: not printed: {line}\n{printed}"
        elif block.title and block.title != "recorded":
            (tmp_path / block.title).write_text(block.text)
        elif block.language == "bash":
            printed = "".join(followed(made, words, tmp_path) for words in commands(block.text))
    assert {"roman.yaml", "runs"} <= {path.name for path in tmp_path.iterdir()}


def followed(made: Environment, words: list[str], at: Path) -> str:
    """What a command of the page prints in the environment that the page makes."""
    match words:
        case ["python3" | "source", *_]:
            return ""
        case ["pip", "install", *rest]:
            return made.pip("install", "--no-index", "--no-build-isolation", *rest, at=at)
        case ["m2rl", "run", *rest]:
            return made.run("m2rl", "run", *rest, *(part for each in SHORT for part in ("--set", each)), at=at)
    return made.run(*words, at=at)
