"""Training on a resources server that is killed in the middle."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from m2rl_core.config import Study
from m2rl_core.files import read_jsonl
from m2rl_core.plugins import load_plugins
from m2rl_core.run import StageRun
from m2rl_core.train_rl import train_rl

if TYPE_CHECKING:
    from conftest import Resources

ROW = {
    "ground_truth": [{"name": "email_delete_email", "arguments": json.dumps({"email_id": "00000100"})}],
    "responses_create_params": {
        "input": [{"role": "user", "content": "Delete 100."}],
        "tools": [{"type": "function", "name": "email_delete_email", "parameters": {}, "strict": False}],
    },
}
PLUGIN = """
from m2rl_core.hookspecs import hookimpl
from m2rl_core.types import Composition
import torch


class Reinforce:
    name, reference, separable, vanishes, needs, divergence = "reinforce", "a test", True, False, frozenset(), None
    from m2rl_core.interfaces import ComponentConfig as Config

    def __init__(self, config): pass

    def __call__(self, logps, batch): return -batch.advantage_T * logps


class Raw:
    name, reference, needs = "raw", "a test", frozenset()
    from m2rl_core.interfaces import ComponentConfig as Config

    def __init__(self, config): pass

    def __call__(self, group): return [torch.full((len(s.ids_L),), s.reward.value) for s in group]


class Plain:
    name, reference = "plain", "a test"
    from m2rl_core.interfaces import ComponentConfig as Config

    def __init__(self, config): pass

    def compose(self): return Composition({"use": "raw"}, {"use": "reinforce"})


@hookimpl
def m2rl_losses(): return [Reinforce]


@hookimpl
def m2rl_advantages(): return [Raw]


@hookimpl
def m2rl_algorithms(): return [Plain]
"""


def stage_run(folder: Path, model: Path, url: str, **changes: Any) -> StageRun[Any]:
    (rows := folder / "rows.jsonl").write_text("".join(json.dumps({**ROW, "id": key}) + "\n" for key in (7, 8)))
    (plugin := folder / "plain.py").write_text(PLUGIN)
    environment = {"use": "nemo-gym", "url": url, "timeout": 5.0, "parallel": 1}
    agent = {"use": "agent", "source": str(rows), "environment": environment, "reasoning": "off"}
    stage = {
        "kind": "rl", "init": "start", "domains": ["agent"], "algorithm": "plain", "steps": 3, "prompts": 4,
        "group": 4, "max_tokens": 4, "lr": 0.01, "checkpoint_every": 1, **changes,
    }  # fmt: skip
    study = Study.model_validate(
        {
            "name": "s",
            "model": {"dtype": "float32"},
            "domains": {"agent": agent},
            "stages": {"rl": stage},
            "plugins": [str(plugin)],
        }
    )
    return StageRun(
        name="rl", stage=study.stages["rl"], study=study, seed=11, folder=folder / "rl",
        models={"start": model}, registry=load_plugins([plugin]), key="k",
    )  # fmt: skip


def killed_once(resources: Resources) -> None:
    """The 20th request kills the server; half a second later it is there again, and has forgotten all."""

    def fault(here: Resources, web: BaseHTTPRequestHandler, route: str) -> bool:
        if len(here.asked) != 20:
            return False
        here.stop()
        here.sessions.clear()
        threading.Timer(0.5, here.start).start()
        web.wfile.close()
        return True

    resources.fault = fault


def test_training_goes_on_after_the_server_was_killed(resources: Resources, tmp_path: Path, tiny_model: Path) -> None:
    killed_once(resources)
    run = stage_run(tmp_path, tiny_model, resources.url)
    train_rl(run)
    records = list(read_jsonl(run.folder / "rollouts.jsonl"))
    assert [record["reward"] for record in records] == [0.0] * 48
    assert (run.folder / "checkpoint").is_dir()
    assert resources.routes().count("verify") >= 48


def test_training_goes_on_and_says_so_where_verdicts_are_lost(
    resources: Resources, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(here: Resources, web: BaseHTTPRequestHandler, route: str) -> bool:
        failing = route == "verify" and here.asked[-1][1]["id"] == 8  # one request at a time
        if failing:
            here.send(web, {}, 500)
        return failing

    resources.fault = fault
    run, told = stage_run(tmp_path, tiny_model, resources.url, verifier_failures=0.6), list[str]()
    monkeypatch.setattr(run, "note", told.append)
    train_rl(run)
    assert (run.folder / "checkpoint").is_dir()
    for record in read_jsonl(run.folder / "rollouts.jsonl"):
        asked = not record["reason"].startswith("malformed call")  # a tiny model says anything
        assert (record["reward"] is None) == (record["prompt"].endswith("1") and asked)
    assert len(told) == 3
    assert all(re.search(r"^\d of 16 verdicts failed.*/verify.*the others are used$", each) for each in told)
