"""``m2rl new``: what it writes and what it refuses. That it works when installed is in ``test_wheels.py``."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner, Result

import m2rl_core
from m2rl_core.cli import app
from m2rl_core.config import load_study
from m2rl_core.plugins import load_plugins
from m2rl_core.scaffold import PLUGINS, PluginKind, core_range, new_plugin, new_study, studies

ROOT = Path(__file__).resolve().parents[1]


def m2rl(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", PLUGINS)
def test_a_plugin_is_three_files_of_80_lines(kind: PluginKind, tmp_path: Path) -> None:
    files = new_plugin(kind, "my-own", tmp_path)
    assert sorted(tmp_path.rglob("*.*")) == sorted(files)
    assert len(files) == 3
    assert sum(len(file.read_text().splitlines()) for file in files) <= 80
    assert not [file for file in files if "$" in file.read_text()], "every placeholder is filled in"


@pytest.mark.parametrize("kind", PLUGINS)
def test_a_plugin_is_named_and_bound_like_ours(kind: PluginKind, tmp_path: Path) -> None:
    files = new_plugin(kind, "my-own", tmp_path)
    project = tomllib.loads(files[0].read_text())["project"]
    assert project["name"] == files[0].parent.name == f"m2rl-{kind}-my-own"
    assert project["entry-points"] == {"m2rl": {f"{kind}-my-own": files[1].stem}}
    ours = tomllib.loads((ROOT / "plugins" / "mergers" / "average" / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ours["dependencies"] == [f"m2rl-core{core_range(m2rl_core.__version__)}"]
    assert project["requires-python"] == ours["requires-python"]


@pytest.mark.parametrize("kind", PLUGINS)
def test_the_module_loads_without_torch_and_offers_its_component(kind: PluginKind, tmp_path: Path) -> None:
    module = new_plugin(kind, "my-own", tmp_path)[1]
    registry = load_plugins([module])
    assert registry.lookup(kind, "my-own").distribution == str(module)
    code = "import sys, m2rl_core.plugins as p; p.load_plugins(sys.argv[1:]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(module)], check=True)


@pytest.mark.parametrize("kind", PLUGINS)
def test_the_style_is_ours(kind: PluginKind, tmp_path: Path) -> None:
    folder = new_plugin(kind, "my-own", tmp_path)[0].parent
    ruff, isolated = [sys.executable, "-m", "ruff"], ["--isolated", "--config", "line-length = 120"]
    subprocess.run([*ruff, "check", "--select", "E,F,W,I,B,UP,C4,SIM,RET", *isolated], cwd=folder, check=True)
    subprocess.run([*ruff, "format", "--check", *isolated], cwd=folder, check=True)


@pytest.mark.parametrize(
    ("version", "inside", "outside"),
    [("0.1.0", ["0.1.0", "0.1.9"], ["0.0.9", "0.2.0"]), ("1.12.3rc1", ["1.12.0", "1.12.7"], ["1.11.0", "1.13.0"])],
)
def test_the_range_of_the_core_is_one_minor_version(version: str, inside: list[str], outside: list[str]) -> None:
    found = SpecifierSet(core_range(version))
    assert [v in found for v in inside + outside] == [True] * len(inside) + [False] * len(outside)


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_says_what_it_wrote_and_what_comes_next(tmp_path: Path) -> None:
    result = m2rl("new", "domain", "my-own", "--out", tmp_path)
    assert result.exit_code == 0
    folder = tmp_path / "m2rl-domain-my-own"
    *files, then = result.stdout.splitlines()
    assert sorted(files) == sorted(map(str, folder.iterdir()))
    assert then == f"Next: pip install -e {folder} pytest && python -m pytest {folder}, then say 'my-own' in a study"
    told = json.loads(m2rl("new", "study", "mine", "--out", tmp_path, "--json").stdout)
    assert told == {"kind": "study", "name": "mine", "files": [str(tmp_path / "mine.yaml")]}
    again = m2rl("new", "domain", "my-own", "--out", tmp_path)
    assert again.exit_code == 2
    assert again.stderr == f"Error: {folder} is there already. Next: choose another name, or remove it\n"


@pytest.mark.parametrize("name", ["My", "a_b", "-a", "a--b", "a-", "1a", "é", "a/b"])
def test_a_name_that_none_can_have_is_refused(name: str, tmp_path: Path) -> None:
    result = m2rl("new", "merger", "--out", tmp_path, "--", name)
    assert result.exit_code == 2
    assert f"'{name}' is no name for a merger. Allowed: a-z, 0-9 and single '-'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused(install: Callable[..., Path], tmp_path: Path) -> None:
    install("domain-mine", "raise SystemExit")
    result = m2rl("new", "domain", "mine", "--out", tmp_path)
    assert result.exit_code == 2
    assert "there is a domain 'mine' already, of m2rl-domain-mine. Next: choose another name" in result.stderr
    assert m2rl("new", "merger", "mine", "--out", tmp_path).exit_code == 0


# ── studies ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_study_of_ours_can_be_copied(tmp_path: Path) -> None:
    assert set(studies()) == {file.stem for file in (ROOT / "studies").glob("*.yaml")}
    for like in studies():
        copied = load_study(new_study(f"my-{like}", like, tmp_path))
        assert copied == load_study(ROOT / "studies" / f"{like}.yaml").model_copy(update={"name": f"my-{like}"})


def test_a_study_is_copied_under_a_new_name(tmp_path: Path) -> None:
    result = m2rl("new", "study", "mine", "--out", tmp_path)
    assert result.stdout == f"{tmp_path / 'mine.yaml'}\nNext: m2rl check {tmp_path / 'mine.yaml'}\n"
    assert "is there already" in m2rl("new", "study", "mine", "--out", tmp_path).stderr
    assert "'My' is no name for a study" in m2rl("new", "study", "My", "--out", tmp_path).stderr
    unknown = m2rl("new", "study", "other", "--like", "minature", "--out", tmp_path)
    assert unknown.exit_code == 2
    assert "there is no study 'minature'. Did you mean 'miniature'?" in unknown.stderr
