"""Trackers: what trackio and Weights & Biases keep of a stage, with the real packages and without a network."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import RlStage, check_trackers
from m2rl_core.config.study import Study
from m2rl_core.errors import ConfigError
from m2rl_core.plugins import Registry
from m2rl_core.run import StageRun
from m2rl_core.study.keys import _described

HERE = Path(__file__).parent
PROJECT = "tracked"
STUDY = """
name: shown
model: {dtype: float32}
plugins: [letters_plugin.py]
trackers: [trackio, wandb]
domains: {math: {use: letters, suite: heldout, reasoning: "off"}}
stages:
  init: {kind: init, domains: [math], vocab: 272, hidden: 16, layers: 1, heads: 2, kv_heads: 1, ffn: 32, context: 128}
  sft: {kind: sft, init: init, domains: [math], conversations: 8, batch: 4, lr: 0.01, max_length: 128}
  math: {kind: rl, init: sft, domains: [math], algorithm: letters, steps: 2, prompts: 4, group: 4, max_tokens: 4,
         tokens_per_device: 512, lr: 0.01}
"""


def study(*trackers: Any) -> Study:
    stages = {
        "base": {"kind": "model", "path": "x"},
        "math": {"kind": "rl", "init": "base", "steps": 6, "domains": [], "algorithm": "grpo"},
    }
    return Study.model_validate({"name": "test", "stages": stages, "trackers": list(trackers)})


def open_run(folder: Path, tracked: Study, *, key: str = "0123456789abcdef", notes: list[str]) -> StageRun[RlStage]:
    def send(fields: Mapping[str, Any]) -> None:
        notes.extend([fields["note"]] if "note" in fields else [])

    stage = tracked.stages["math"]
    assert isinstance(stage, RlStage)
    return StageRun(
        name="math",
        stage=stage,
        study=tracked,
        seed=1,
        folder=folder,
        models={},
        registry=Registry(),
        key=key,
        send=send,
    )


def attempt(folder: Path, tracked: Study, steps: Sequence[int], **more: Any) -> list[str]:
    """One attempt at a stage; returns what it has told."""
    notes: list[str] = []
    run = open_run(folder, tracked, notes=notes, **more)
    for step in steps:
        run.log(step, {"reward/math": step / 4, "tokens": 10 * step, "round": "first", "wait/math": None})
    run.close()
    return notes


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Every address outside this machine that somebody asks for; no connection is made."""
    asked: list[object] = []
    real = socket.getaddrinfo

    def found(host: Any, *rest: Any, **more: Any) -> Any:
        if host not in ("localhost", "127.0.0.1", "::1", None):
            asked.append(host)
            raise OSError(f"no network for {host}")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    yield asked
    assert not asked


# ── trackio ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, storing into a folder of the test's own."""
    package = pytest.importorskip("trackio", reason="pip install 'm2rl-core[trackio]'")
    for name in [name for name in os.environ if name.startswith("TRACKIO_")]:
        monkeypatch.delenv(name)
    for module in ("utils", "sqlite_storage", "media.utils", "bucket_storage"):
        found = pytest.importorskip(f"trackio.{module}")
        if hasattr(found, "TRACKIO_DIR"):
            monkeypatch.setattr(found, "TRACKIO_DIR", tmp_path / "trackio")
    return package


def stored(trackio: Any, run: str, project: str = PROJECT) -> list[dict[str, Any]]:
    rows = trackio.SQLiteStorage.get_logs(project, run)
    return [{key: value for key, value in row.items() if key != "timestamp"} for row in rows]


def test_trackio_keeps_every_step_once_over_attempts(tmp_path: Path, trackio: Any, no_network: list[object]) -> None:
    tracked = study({"use": "trackio", "project": PROJECT})
    assert attempt(tmp_path / "run", tracked, range(3)) == []
    assert attempt(tmp_path / "run", tracked, range(1, 6)) == []
    assert stored(trackio, "math-0123456789") == [
        {"step": step, "reward/math": step / 4, "tokens": 10 * step} for step in range(6)
    ]


def test_trackio_has_another_run_for_other_settings_and_the_study_as_project(
    tmp_path: Path, trackio: Any, no_network: list[object]
) -> None:
    attempt(tmp_path / "run", study("trackio"), range(2))
    attempt(tmp_path / "run", study("trackio"), range(1), key="fedcba9876543210")
    runs = {run.name: run for run in trackio.Api().runs("test")}
    assert sorted(runs) == ["math-0123456789", "math-fedcba9876"]
    assert runs["math-0123456789"].config["steps"] == 6
    assert runs["math-0123456789"].config["seed"] == 17


# ── Weights & Biases ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, as it is for somebody who has a key and has not said that anything be sent."""
    pytest.importorskip("wandb", reason="pip install 'm2rl-core[wandb]'")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


def logged(file: Path) -> Iterator[Any]:
    """The records in an offline run's file: the log format of LevelDB, after a header of 7 bytes.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def history(file: Path) -> list[dict[str, Any]]:
    """Step and numbers of every row."""
    rows = []
    for record in logged(file):
        if record.HasField("history"):
            items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            rows.append({"step": items["_step"], **{k: v for k, v in items.items() if not k.startswith("_")}})
    return rows


def test_wandb_writes_beside_the_stage_and_sends_nothing(tmp_path: Path, wandb: None, no_network: list[object]) -> None:
    tracked = study({"use": "wandb", "project": PROJECT, "entity": "team"})
    assert attempt(tmp_path / "run", tracked, range(3)) == []
    [file] = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert history(file) == [{"step": step, "reward/math": step / 4, "tokens": 10 * step} for step in range(3)]
    [run] = [record.run for record in logged(file) if record.HasField("run")]
    assert (run.project, run.entity, run.run_group, run.job_type) == (PROJECT, "team", "test", "rl")
    assert run.run_id == run.display_name == "math-0123456789"
    assert {"steps": "6", "seed": "17"}.items() <= {item.key: item.value_json for item in run.config.update}.items()
    texts = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(b"0123456789" * 4 in text for text in texts), "the key is in no file"


def test_wandb_has_a_run_for_each_stage_of_a_process(tmp_path: Path, wandb: None, no_network: list[object]) -> None:
    for key in ("a" * 16, "b" * 16):
        attempt(tmp_path / key, study("wandb"), range(2), key=key)
        [file] = (tmp_path / key / "wandb").glob("offline-run-*/*.wandb")
        assert [row["step"] for row in history(file)] == [0, 1]


@pytest.mark.slow
def test_a_study_shows_its_training_in_both(tmp_path: Path) -> None:
    """Through the command line and its workers, which end without Python's own goodbyes."""
    pytest.importorskip("wandb", reason="pip install 'm2rl-core[wandb]'")
    pytest.importorskip("trackio", reason="pip install 'm2rl-core[trackio]'")
    shutil.copy(HERE / "letters_plugin.py", tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRACKIO_", "WANDB_"))}
    environment = {**kept, "TRACKIO_DIR": str(tmp_path / "trackio"), "WANDB_CONFIG_DIR": str(tmp_path / "settings")}
    code = "import sys; sys.argv = ['m2rl', 'run', 'study.yaml']; from m2rl_core.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "shown"
    [file] = (folder / "math" / "wandb").glob("offline-run-*/*.wandb")
    with (folder / "math" / "metrics.jsonl").open() as lines:
        written = [json.loads(line) for line in lines]
    numbers = [{k: v for k, v in row.items() if isinstance(v, int | float)} for row in written]
    assert len(numbers) == 2
    assert history(file) == numbers
    code = "import json, trackio; print(json.dumps([r.name for r in trackio.Api().runs('shown')]))"
    asked = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    runs = json.loads(asked.stdout)
    assert {name.rpartition("-")[0] for name in runs} == {"sft", "math"}


# ── what does not depend on a package ────────────────────────────────────────────────────────────────────────────────


def test_a_tracker_that_fails_is_told_of_and_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb.py").write_text("raise RuntimeError('a library that does not even load')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    [note] = attempt(tmp_path / "run", study("wandb"), range(3))
    assert "tracker 'wandb'" in note
    assert "does not even load" in note
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_missing_package_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2rl_core.config.trackers.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"trackers\[0\]: the package 'trackio' is not installed.*m2rl-core\[trackio\]"
    ):
        check_trackers(study("trackio").trackers)


def test_a_tracker_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2rl_core.config.trackers.find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=r"trackers\[1\]: 'wandb' is there already"):
        check_trackers(study("wandb", {"use": "wandb", "mode": "online"}).trackers)


def test_trackers_are_in_no_key() -> None:
    assert _described(study("wandb")) == _described(study())


@pytest.mark.parametrize(
    ("trackers", "says"),
    [
        ("[mlflow]", "trackers[0].use: 'mlflow' is not known. Allowed: trackio, wandb."),
        ("[{use: wandb, mod: online}]", "trackers[0].mod: unknown key. Did you mean 'mode'?"),
        ("[{use: wandb, mode: live}]", "trackers[0].mode:"),
        ("[{use: wandb, api_key: abcdefgh}]", "trackers[0].api_key:"),
    ],
)
def test_settings_of_trackers_are_checked(tmp_path: Path, trackers: str, says: str) -> None:
    from m2rl_core.config import load_study

    file = tmp_path / "study.yaml"
    file.write_text(f"name: test\nstages: {{report: {{kind: report}}}}\ntrackers: {trackers}\n")
    with pytest.raises(ConfigError) as error:
        load_study(file)
    assert says in str(error.value)
    assert "abcdefgh" not in str(error.value)
