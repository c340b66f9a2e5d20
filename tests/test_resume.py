"""Signal 9, a full disk, a damaged checkpoint, at random moments: the stage still ends with the same bytes."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from m2rl_core.policy import Policy

SCRIPT = Path(__file__).with_name("resume_trials.py")


@pytest.fixture(scope="module")
def trials() -> ModuleType:
    spec = importlib.util.spec_from_file_location("resume_trials", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(tiny_model: Path, other_model: Path) -> dict[str, Path]:
    return {"start": tiny_model, "other": other_model}


@pytest.fixture(scope="module")
def undisturbed(
    trials: ModuleType, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, bytes]]:
    """Variant → what it writes when nothing happens."""
    found = {}
    for variant in trials.VARIANTS:
        folder = tmp_path_factory.mktemp(variant)
        trials.train(variant, folder, models)
        found[variant] = trials.written(folder)
    return found


def stopped(trials: ModuleType, variant: str, folder: Path, models: Mapping[str, Path], updates: int) -> None:
    """Run until so many optimizer updates are done."""
    original, left = Policy.step, updates

    def step(policy: Policy, lr: float) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        original(policy, lr)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Policy, "step", step)
        with pytest.raises(KeyboardInterrupt):
            trials.train(variant, folder, models)


def damage(folder: Path, chance: random.Random) -> Path:
    """Flip the bits of a few bytes of a random file in the newest state."""
    newest = max((folder / "state").iterdir())
    file = chance.choice(sorted(path for path in newest.rglob("*") if path.is_file()))
    content = bytearray(file.read_bytes())
    for _ in range(3):
        content[chance.randrange(len(content))] ^= 0xFF
    file.write_bytes(content)
    return newest


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("variant", ["rl", "refill", "taught", "wandering", "lagging", "sft"])
def test_a_damaged_checkpoint_is_told_of_and_the_one_before_used(
    trials: ModuleType,
    models: dict[str, Path],
    undisturbed: dict[str, dict[str, bytes]],
    tmp_path: Path,
    variant: str,
    seed: int,
) -> None:
    chance = random.Random(f"damage {variant} {seed}")
    most = 11 if variant == "rl" else 5
    stopped(trials, variant, tmp_path, models, chance.randint(most // 2, most))
    states = sorted(path.name for path in (tmp_path / "state").iterdir())
    newest = damage(tmp_path, chance)
    told: list[str] = []
    loaded: list[str] = []
    original = Policy.load_state

    def load_state(policy: Policy, folder: Path) -> None:
        loaded.append(folder.parent.name)
        original(policy, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Policy, "load_state", load_state)
        trials.train(variant, tmp_path, models, lambda fields: told.extend(filter(None, [fields.get("note")])))
    assert [note for note in told if "damaged" in note] == [told[0]]
    assert f"state/{newest.name} is damaged" in told[0]
    assert loaded == states[:-1]
    assert trials.written(tmp_path) == undisturbed[variant]
    assert "metrics.jsonl" in undisturbed[variant]


def test_components_that_remember_differ_from_those_that_do_not(undisturbed: dict[str, dict[str, bytes]]) -> None:
    """The variant ``wandering`` tests nothing unless its draws and memories reach the metrics."""
    rows = [json.loads(line) for line in undisturbed["wandering"]["metrics.jsonl"].splitlines()]
    assert len({row.get("samples/a", 0) for row in rows}) > 1
    assert undisturbed["wandering"]["metrics.jsonl"] != undisturbed["refill"]["metrics.jsonl"]


def test_shares_that_follow_rewards_move(undisturbed: dict[str, dict[str, bytes]]) -> None:
    rows = [json.loads(line) for line in undisturbed["lagging"]["metrics.jsonl"].splitlines()]
    shares = [row["share/b"] for row in rows]
    assert all(row["share/a"] + row["share/b"] == pytest.approx(1) for row in rows)
    assert shares[0] == 0.5
    assert shares == sorted(set(shares)), "it lags behind its reference all along"
    assert rows[-1]["samples/b"] > rows[0]["samples/b"]


@pytest.mark.parametrize("forgotten", ["Remembering", "Wandering"])
def test_a_component_that_forgets_is_seen(
    trials: ModuleType, models: dict[str, Path], undisturbed: dict[str, dict[str, bytes]], tmp_path: Path,
    forgotten: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    stopped(trials, "wandering", tmp_path, models, 3)
    from m2rl_core.run.states import Components

    original = Components.load_state

    def load_state(held: Components, folder: Path) -> None:
        held.parts = [part for part in held.parts if type(part).__name__ != forgotten]
        original(held, folder)

    monkeypatch.setattr(Components, "load_state", load_state)
    trials.train("wandering", tmp_path, models)
    assert trials.written(tmp_path)["metrics.jsonl"] != undisturbed["wandering"]["metrics.jsonl"]


def test_generators_that_begin_anew_are_seen(
    trials: ModuleType, models: dict[str, Path], undisturbed: dict[str, dict[str, bytes]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from m2rl_core.run.randomness import Randomness

    stopped(trials, "wandering", tmp_path, models, 4)
    monkeypatch.setattr(Randomness, "load_state", lambda generators, folder: None)
    trials.train("wandering", tmp_path, models)
    assert trials.written(tmp_path)["metrics.jsonl"] != undisturbed["wandering"]["metrics.jsonl"]


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def tried(kind: str, variant: str, folder: Path, models: Mapping[str, Path], seeds: int, *before: str) -> Any:
    arguments = [str(folder), str(models["start"]), str(models["other"]), *map(str, range(seeds))]
    done = subprocess.run(
        [*before, sys.executable, str(SCRIPT), kind, variant, *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["rl", "refill", "taught", "wandering", "lagging", "sft"])
def test_kills_change_no_byte(models: dict[str, Path], tmp_path: Path, variant: str) -> None:
    found = tried("kill", variant, tmp_path, models, 2)
    assert [trial["different"] for trial in found] == [[], []], found
    assert all("metrics.jsonl" in trial["files"] for trial in found)
    codes = [code for trial in found for code in trial["codes"]]
    assert set(codes) <= {0, -9}, found
    assert codes.count(-9) >= 2, found
    assert all(trial["codes"][-1] == 0 for trial in found)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["rl", "wandering", "sft"])
def test_a_full_disk_changes_no_byte(models: dict[str, Path], tmp_path: Path, variant: str) -> None:
    """On a small file system of its own, which a name space of mounts keeps from everybody else."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can mount a small disk")
    mount = ["unshare", "--mount", "sh", "-ec", f'mount -t tmpfs -o size=32m none {tmp_path}; exec "$@"', "sh"]
    probe = subprocess.run([*mount, "true"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip("mounting is not permitted here")
    found = tried("full", variant, tmp_path, models, 3, *mount)
    assert [trial["different"] for trial in found] == [[], [], []], found
    assert all("metrics.jsonl" in trial["files"] for trial in found)
    codes = [code for trial in found for code in trial["codes"]]
    assert set(codes) <= {0, 3}, found
    assert codes.count(3) >= 3, found
    assert all(trial["codes"][-1] == 0 for trial in found)
