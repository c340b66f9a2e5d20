"""``m2rl run --nproc 2``: whole stages through the command, and what becomes of them when processes are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from m2rl_core.errors import DataError, StageError
from m2rl_core.study import ranks, worker

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

PLUGIN = '''
"""Even first digits are right. Faults: `FILE.fault` holds what rank 1 does once, in its third step."""
import os, signal, time
from pathlib import Path
import torch
from m2rl_core.errors import DataError
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Composition, Conversation, Correction, Divergence, Prompt, Reward

class Even(Domain):
    name, reference, suites, Config = "even", "test", {}, ComponentConfig
    def __init__(self, config):
        pass
    def prompts(self, split):
        return [Prompt(str(i), "even", ({"role": "user", "content": str(i)},), i) for i in range(40)]
    def demonstrations(self):
        said = {"role": "assistant", "content": "2"}
        return (Conversation(str(i), "even", ({"role": "user", "content": "7" * (i % 9)}, said)) for i in range(40))
    def verify(self, trajectory):
        return Reward(float(trajectory.answer[:1] in set("02468abcdefghijklm")))

class Part:
    reference, Config, needs, separable, vanishes, divergence = "test", ComponentConfig, frozenset(), True, False, None
    def __init__(self, config):
        pass

class Taught(Part):
    """By rewards, by the teachers' log-probs and distributions, held to the start, corrected for the sampler."""
    name = "taught"
    def compose(self):
        return Composition([{"use": "liked"}], [{"use": "reinforce"}, {"use": "apart"}], {"use": "halve"})

class Liked(Part):
    name, needs = "liked", frozenset({"teacher_logps", "reference_logps"})
    calls = 0
    def __call__(self, group):
        fault = Path(__file__).with_suffix(".fault")
        Liked.calls += 1
        if os.environ.get("RANK") == "1" and Liked.calls == 9 and fault.exists():
            what = fault.read_text()
            fault.unlink()
            exec(what)
        mean = sum(s.reward.value for s in group) / len(group)
        return [s.reward.value - mean + 0.1 * (s.teacher_logps_L - s.reference_logps_L) for s in group]

class Reinforce(Part):
    name = "reinforce"
    def __call__(self, logps, batch):
        return -logps * batch.advantage_T

class Apart(Part):
    name, divergence = "apart", Divergence("forward")
    def __call__(self, logps, batch):
        return batch.divergence_T

class Halve(Part):
    name, needs, separable = "halve", frozenset({"old_logps"}), False
    def __call__(self, batch):
        ratio = (batch.old_logps_T - batch.sampler_logps_T).exp()
        return Correction(ratio / 2, ratio > 0.5, {"ratio": ratio.mean().item()})

m2rl_domains = hookimpl(lambda: [Even])
m2rl_algorithms = hookimpl(lambda: [Taught])
m2rl_advantages = hookimpl(lambda: [Liked])
m2rl_importances = hookimpl(lambda: [Halve])
m2rl_losses = hookimpl(lambda: [Reinforce, Apart])
'''


class Bench:
    """A study in a folder: fine-tuning, and reinforcement under two teachers of unequal domains."""

    def __init__(self, folder: Path, model: Path, other: Path) -> None:
        self.folder = folder
        (folder / "mine.py").write_text(PLUGIN)
        section = {"use": "even", "reasoning": "off"}
        sft = {"kind": "sft", "init": "base", "domains": ["most"], "conversations": 16, "batch": 4, "lr": 0.01}
        rl = {
            "kind": "rl", "init": "base", "domains": {"most": 3, "few": 1}, "algorithm": "taught", "steps": 5,
            "prompts": 4, "group": 4, "updates": 2, "max_tokens": 4, "lr": 0.003, "checkpoint_every": 1,
            "teachers": {"most": "base", "few": "other"},
        }  # fmt: skip
        study = {
            "name": "s",
            "model": {"dtype": "float32", "base": str(model)},
            "domains": {"most": section, "few": section},
            "stages": {"other": {"kind": "model", "path": str(other)}, "sft": sft, "rl": rl},
            "plugins": ["mine.py"],
        }
        (folder / "s.yaml").write_text(yaml.safe_dump(study))

    def start(self, runs: str, *options: object, only: str = "rl") -> subprocess.Popen[str]:
        m2rl = [str(Path(sys.executable).with_name("m2rl")), "run", "s.yaml"]
        command = [*m2rl, "--runs", runs, "--only", only, *map(str, options)]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, runs: str, *options: object, only: str = "rl") -> str:
        process = self.start(runs, *options, only=only)
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        return out

    def fault(self, code: str) -> None:
        (self.folder / "mine.fault").write_text(code)

    def rl(self, runs: str) -> Path:
        return self.folder / runs / "s" / "rl"

    def lines(self, runs: str) -> dict[str, bytes]:
        return {name: (self.rl(runs) / name).read_bytes() for name in ("metrics.jsonl", "rollouts.jsonl")}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, other_model: Path) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), tiny_model, other_model)


@pytest.fixture(scope="module")
def undisturbed(bench: Bench) -> dict[str, bytes]:
    """What two processes write."""
    bench.run("two", "--nproc", 2)
    return bench.lines("two")


def close(one: Any, other: Any) -> None:
    """Equal but for rounding of floats."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for each, its in zip(one, other, strict=True):
            close(each, its)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-4, abs=2e-5)
    else:
        assert one == other


def descendants(pid: int) -> set[int]:
    """All processes below ``pid``."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found, left = set[int](), [pid]
    while left:
        children = [child for child, parent in parents.items() if parent == (here := left[-1]) and here]
        left = left[:-1] + children
        found.update(children)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def listening(pids: set[int]) -> set[str]:
    """Addresses, in the kernel's hexadecimal, on which any of these processes listens."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                sockets[f"socket:[{fields[9]}]"] = fields[1].partition(":")[0]
    held = {os.readlink(file) for pid in pids for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    return {sockets[name] for name in held & sockets.keys()}


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_two_processes_are_one(bench: Bench, undisturbed: dict[str, bytes]) -> None:
    """The same samples in the same order with the same noise; metrics up to rounding."""
    bench.run("one")
    for name, text in bench.lines("one").items():
        alone, together = ([json.loads(line) for line in lines.splitlines()] for lines in (text, undisturbed[name]))
        assert len(alone) in (5, 80)
        close(alone, together)
    assert not (bench.rl("two") / "state").exists()
    times = [json.loads(line) for line in (bench.rl("two") / "times.jsonl").read_text().splitlines()]
    assert len(times) == 6
    assert {"verify/most", "verify/few"} < times[0]["seconds"].keys()


def test_the_models_are_the_same(bench: Bench, undisturbed: dict[str, bytes]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not bench.rl("one").exists():
        bench.run("one")
    one, two = (AutoModelForCausalLM.from_pretrained(bench.rl(runs) / "checkpoint") for runs in ("one", "two"))
    for (name, mine), theirs in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4, msg=name)
    assert AutoTokenizer.from_pretrained(bench.rl("two") / "checkpoint").chat_template


def test_what_a_rank_says_ends_the_stage_and_a_killed_rank_does_not(
    bench: Bench, undisturbed: dict[str, bytes]
) -> None:
    """What comes of it all is what comes of an undisturbed run."""
    bench.fault("raise DataError('row 7 has no gold')")
    command = bench.start("disturbed", "--nproc", 2)
    _, errors = command.communicate(timeout=300)
    assert command.returncode == 2
    assert "Error: stage 'rl' failed: row 7 has no gold." in " ".join(errors.split())
    assert len((bench.rl("disturbed") / "metrics.jsonl").read_text().splitlines()) == 2
    bench.fault("os.kill(os.getpid(), signal.SIGKILL)")
    out = bench.run("disturbed", "--nproc", 2)
    assert not (bench.folder / "mine.fault").exists()
    assert "stage 'rl': a process died; all begin again from the last checkpoint" in " ".join(out.split())
    assert bench.lines("disturbed") == undisturbed


def test_two_processes_train_on_what_the_first_has_drawn_ahead(bench: Bench) -> None:
    """As one process does; and a killed rank costs nothing, though groups of the next step were drawn already."""
    ahead = ("--set", "stages.rl.staleness=1")
    bench.run("ahead", *ahead)
    bench.fault("os.kill(os.getpid(), signal.SIGKILL)")
    out = bench.run("ahead-of-two", "--nproc", 2, *ahead)
    assert not (bench.folder / "mine.fault").exists()
    assert "a process died; all begin again from the last checkpoint" in " ".join(out.split())
    one, two = bench.lines("ahead"), bench.lines("ahead-of-two")
    for name, text in one.items():
        alone, together = ([json.loads(line) for line in lines.splitlines()] for lines in (text, two[name]))
        assert len(alone) in (5, 80)
        close(alone, together)
    staleness = [json.loads(line)["staleness"] for line in two["metrics.jsonl"].splitlines()]
    assert staleness == [0, 1, 1, 1, 1]


def test_a_killed_command_leaves_no_process(bench: Bench) -> None:
    bench.fault("time.sleep(3600)")
    command = bench.start("ended", "--nproc", 2)
    fault = bench.folder / "mine.fault"
    wait_until(lambda: not fault.exists() or command.poll() is not None, 300)
    below = descendants(command.pid)
    assert len(below) >= 5, "two servers, an agent, two ranks"
    assert listening(below) == {"0100007F"}, "the loopback interface, and nothing else"
    command.kill()
    command.communicate(timeout=30)
    wait_until(lambda: not any(map(alive, below)), 10)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


def test_two_machines_train_as_one(bench: Bench, port: int) -> None:
    """Both on this one: the second only follows."""
    options = ("--nnodes", 2, "--rendezvous", f"127.0.0.1:{port}")
    second = bench.start("machines", *options, "--node-rank", 1, only="sft")
    try:
        bench.run("machines", *options, "--node-rank", 0, only="sft")
        out, errors = second.communicate(timeout=120)
    finally:
        second.kill()
    assert second.returncode == 0, errors
    assert "sft" in out
    bench.run("machine", only="sft")
    files = [bench.folder / runs / "s" / "sft" / "metrics.jsonl" for runs in ("machine", "machines")]
    alone, together = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    assert len(alone) == 4
    close(alone, together)


# ── without processes ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [DataError("row 7", then="mend it."), StageError("stopped")])
def test_an_error_of_ours_crosses_processes(error: Exception) -> None:
    told = worker.told(*worker.described(error))
    assert (type(told), str(told)) == (type(error), str(error))


def test_another_error_keeps_its_traceback() -> None:
    try:
        os.kill(0, signal.NSIG + 1)
    except OSError as error:
        told = worker.told(*worker.described(error))
    assert str(told).startswith("OSError: [Errno 22]")
    assert "test_ranks.py" in told.__notes__[0]
    assert worker.described(told)[2] == told.__notes__[0]


def test_only_what_is_said_on_purpose_ends_many_machines() -> None:
    """Anything else may follow from a death that another machine's agent has seen."""
    assert ranks.Outcome(failure=worker.described(DataError("row 7"))).is_said
    assert ranks.Outcome(failure=worker.described(StageError("stopped"))).is_said
    assert not ranks.Outcome(failure=("StageError", "RuntimeError: Connection closed by peer", "trace")).is_said
