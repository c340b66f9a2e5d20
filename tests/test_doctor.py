"""``m2rl doctor``: what it tries, and what it says where something is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from m2rl_core.cli import app
from m2rl_core.doctor.machine import cores_and_memory, devices, disks
from m2rl_core.doctor.software import components, plugins, versions
from m2rl_core.plugins import load_plugins
from m2rl_core.types import Diagnosis

Install = Callable[..., Path]

SICK = """
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Diagnosis

class Sick:
    name, reference, Config = "sick", "a test", ComponentConfig
    @classmethod
    def diagnose(cls):
        yield Diagnosis("a server", "broken", "nobody listens", "start it")

class Raises(Sick):
    name = "raises"
    @classmethod
    def diagnose(cls):
        raise OSError("no such library")

m2rl_mergers = hookimpl(lambda: [Sick, Raises])
"""


def by_name(rows: Iterable[Diagnosis]) -> dict[str, Diagnosis]:
    return {row.what: row for row in rows}


def test_memory_is_what_the_container_allows(tmp_path: Path) -> None:
    proc, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    proc.write_text("MemTotal:       64000000 kB\nMemAvailable:   50000000 kB\nHugePages_Total:       0\n")
    limit.write_text("max\n")
    row = by_name(cores_and_memory(proc, limit))["memory"]
    assert (row.health, row.found) == ("ok", "65.5 GB, 51.2 free")
    limit.write_text("3000000000\n")
    row = by_name(cores_and_memory(proc, limit))["memory"]
    assert (row.health, row.found) == ("note", "3.0 GB of the machine's 65.5, 51.2 free")
    assert "--only" in row.then


def test_a_disk_is_written_and_nothing_is_left(tmp_path: Path) -> None:
    row = by_name(disks(tmp_path / "not" / "there"))["disk of runs"]
    assert row.health == "ok"
    assert row.found.startswith(f"{tmp_path}: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that takes no files")
def test_a_disk_without_room_is_broken() -> None:
    row = by_name(disks(Path("/proc/runs")))["disk of runs"]
    assert row.health == "broken"
    assert "/proc: 0.0 GB free" in row.found


@pytest.mark.skipif(torch.cuda.is_available(), reason="looks at a machine whose GPUs torch cannot reach")
def test_gpus_that_torch_cannot_reach_are_broken(tmp_path: Path) -> None:
    assert by_name(devices(tmp_path / "none"))["cuda"].health == "note"
    (tmp_path / "0000:01:00.0").mkdir()
    row = by_name(devices(tmp_path))["cuda"]
    assert row.health == "broken"
    assert "the machine has 1 NVIDIA GPUs" in row.found
    assert by_name(devices(tmp_path))["cpu"].health == "ok"


def test_versions_are_held_against_the_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {row.what for row in versions([]) if row.health == "broken"} == set()
    info = tmp_path / "m2rl_core-0.1.0.dist-info"
    info.mkdir()
    asked = ["torch>=999", "no-such-package>=2", "numpy", "no-such-extra; extra == 'data'", "nothing; extra == 'dev'"]
    asked += [f"many-{number}; extra == 'docs'" for number in range(6)]
    lines = ["Metadata-Version: 2.1", "Name: m2rl-core", "Version: 0.1.0", "Requires-Python: >=99"]
    lines += [
        *(f"Provides-Extra: {extra}" for extra in ("data", "dev", "docs")),
        *(f"Requires-Dist: {each}" for each in asked),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    rows = by_name(versions([]))
    broken = {name: row.then for name, row in rows.items() if row.health == "broken"}
    assert broken == {
        "python": "",
        "torch": "pip install 'torch>=999'",
        "no-such-package": "pip install 'no-such-package>=2'",
    }
    assert rows["torch"].found == f"{torch.__version__}, but >=999 is required"
    assert rows["extra 'data'"] == Diagnosis(
        "extra 'data'", "note", "not installed: no-such-extra", "pip install 'm2rl-core[data]'"
    )
    assert rows["extra 'docs'"].found == "not installed: many-0, many-1, many-2, many-3 and 2 more"


def test_plugins_that_do_not_load_are_rows(install: Install) -> None:
    install("merger-exits", "raise SystemExit(3)")
    install("merger-old", "", requires="m2rl-core<0.1")
    rows = by_name(plugins(load_plugins(strict=False).plugins))
    assert rows["merger-exits"].health == rows["merger-old"].health == "broken"
    assert "SystemExit: 3" in rows["merger-exits"].found
    assert "M2RL_DISABLE_PLUGINS=merger-exits" in rows["merger-exits"].then
    assert "embedded 0.1.0" in rows["engine"].found


def test_components_say_what_they_lack(install: Install) -> None:
    install("merger-sick", SICK)
    rows = by_name(components(load_plugins(strict=False)))
    assert rows["merger sick: a server"] == Diagnosis("merger sick: a server", "broken", "nobody listens", "start it")
    assert rows["merger raises"].found == "its own check failed: OSError: no such library"


def test_the_command_fails_where_something_is_broken(install: Install, tmp_path: Path) -> None:
    install("merger-sick", SICK)
    result = CliRunner().invoke(app, ["doctor", "--runs", str(tmp_path)])
    assert result.exit_code == 1
    assert "→ start it" in result.stdout


def test_the_command_for_programs(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json", "--runs", str(tmp_path)])
    found = json.loads(result.stdout)
    assert list(found) == ["broken", "machine", "versions", "devices", "plugins", "components"]
    rows = [row for section in list(found)[1:] for row in found[section]]
    assert found["broken"] == any(row["health"] == "broken" for row in rows)
    assert result.exit_code == int(found["broken"])
