"""The Python API: cheap to import, in its place whatever is imported later, and the same as the commands."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import m2rl_core
from m2rl_core import Study, api
from m2rl_core.cli import app
from m2rl_core.cli.checking import document
from m2rl_core.errors import ConfigError
from m2rl_core.files import read_jsonl

LETTERS = Path(__file__).parent / "letters_plugin.py"
STAGES = {
    "init": {"kind": "init", "domains": ["a"], "vocab": 300, "hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1},
    "sft": {"kind": "sft", "init": "init", "domains": ["a"], "conversations": 8, "batch": 4, "max_length": 64},
}


def study(**changes: object) -> Study:
    tree = {"name": "tiny", "domains": {"a": {"use": "letters", "suite": "s"}}, "plugins": [str(LETTERS)]}
    return Study.model_validate({**tree, "stages": STAGES, **changes})


def test_importing_it_is_cheap_and_names_keep_their_meaning() -> None:
    code = """
import sys
from m2rl_core import check, merge, open_study, run, verify
assert not {"torch", "pydantic", "yaml", "m2rl_core.config", "m2rl_core.plugins"} & set(sys.modules)
import m2rl_core.run, m2rl_core.merge, m2rl_core.verify
from m2rl_core.run import StageRun
import m2rl_core
assert (m2rl_core.run, m2rl_core.merge, m2rl_core.verify) == (run, merge, verify)
from m2rl_core import run as again
assert again is run and callable(again)
assert m2rl_core.Study is m2rl_core.config.Study
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", api.__all__)
def test_every_name_is_documented_and_typed(name: str) -> None:
    each = getattr(api, name)
    assert len(inspect.getdoc(each) or "") > 20
    if inspect.isfunction(each):
        assert all(p.annotation is not p.empty for p in inspect.signature(each).parameters.values())
        assert "Raises:" in (each.__doc__ or "")
    assert name in ("Check", "evaluate") or getattr(m2rl_core, name) is each


def test_a_study_made_in_python_is_that_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(study().model_dump_json())
    assert m2rl_core.open_study(file) == m2rl_core.open_study(study())
    assert m2rl_core.open_study(file, ["seed=5"]).seed == 5


def test_check_is_the_command(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(study().model_dump_json())
    found = m2rl_core.check(study(), runs=tmp_path)
    assert [node.id for node in found.nodes] == ["init", "sft"]
    assert found.estimates[0].memory is not None
    result = CliRunner().invoke(app, ["check", str(file), "--runs", str(tmp_path), "--json"])
    assert json.loads(result.stdout) == json.loads(json.dumps(document(found)))
    with pytest.raises(ConfigError, match=r"domains\.a\.likes: unknown key"):
        m2rl_core.check(study(domains={"a": {"use": "letters", "suite": "s", "likes": "x"}}), runs=tmp_path)


def test_run_does_what_is_left_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = m2rl_core.run(study(), runs=tmp_path)
    assert folder == tmp_path / "tiny"
    assert len(list(read_jsonl(folder / "sft" / "metrics.jsonl"))) == 2
    assert "sft" in capsys.readouterr().out
    assert [node.done for node in m2rl_core.check(study(), runs=tmp_path).nodes] == [True, True]
    m2rl_core.run(study(), runs=tmp_path)
    assert "2 done before: init, sft" in capsys.readouterr().out
    file = tmp_path / "tiny.yaml"
    file.write_text(study().model_dump_json())
    shown = CliRunner().invoke(app, ["run", str(file), "--runs", str(tmp_path), "--json"])
    document = json.loads(shown.stdout)
    assert document["folder"] == str(folder)
    assert [(node["id"], node["done"]) for node in document["nodes"]] == [("init", True), ("sft", True)]
    assert "2 done before" in shown.stderr
