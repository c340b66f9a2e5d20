"""The verifier pool against verifiers that raise, hang, crash, lie and litter. The workers are real processes."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from m2rl_core.config import DomainSection
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.rollout import process
from m2rl_core.rollout.verifiers import Spec, Verdicts, VerifierPool
from m2rl_core.types import Prompt, Reward, Trajectory

HOSTILE = """
import ctypes, json, os, signal, socket, struct, subprocess, sys, time
from pathlib import Path
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Reward


class Rude(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")


def channel():
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                return fd
        except OSError:
            pass


def send(payload, size=None):
    os.write(channel(), struct.pack(">I", len(payload) if size is None else size) + payload)
    time.sleep(60)


def forever():
    while True:
        pass


class Hostile:
    name, reference, suites, remote, verify_seconds = "hostile", "test", {}, False, 1.0

    class Config(ComponentConfig):
        gold: str = "yes"

    def __init__(self, config):
        if config.gold == "hang":
            time.sleep(60)

    def prompts(self, split):
        return ()

    def verify(self, trajectory):
        tally = trajectory.prompt.metadata.get("tally")
        if tally:
            with open(tally, "a") as file:
                file.write("x")
        return getattr(self, trajectory.answer.partition(" ")[0])(trajectory)

    def yes(self, trajectory):
        return Reward(1.0, "as gold", {"length": len(trajectory.answer)})

    def no(self, trajectory):
        return Reward(0.0, "not gold")

    def unsure(self, trajectory):
        return Reward(None, "no idea")

    def pid(self, trajectory):
        time.sleep(float(trajectory.answer.partition(" ")[2] or 0))
        return Reward(1.0, str(os.getpid()))

    def look(self, trajectory):
        return Reward(1.0, json.dumps({"environment": dict(os.environ), "torch": "torch" in sys.modules,
            "stdin": sys.stdin.read(), "fds": len(os.listdir("/proc/self/fd")),
            "inherited": subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True).stdout.split()})[:500])

    def raises(self, trajectory):
        raise ValueError("no gold")

    def exits(self, trajectory):
        sys.exit(0)

    def interrupts(self, trajectory):
        raise KeyboardInterrupt

    def rude(self, trajectory):
        raise Rude("out of my way")

    def mute(self, trajectory):
        raise Mute

    def recurses(self, trajectory):
        return self.recurses(trajectory)

    def allocates(self, trajectory):
        return bytearray(6 << 30)

    def other_type(self, trajectory):
        return 1.0

    def out_of_range(self, trajectory):
        return Reward(2.0)

    def not_a_number(self, trajectory):
        return Reward(1.0, metrics={"x": float("nan")})

    def verbose(self, trajectory):
        return Reward(1.0, "r" * 10_000_000)

    def huge(self, trajectory):
        return Reward(1.0, metrics={str(i): 1.0 for i in range(100_000)})

    def quits(self, trajectory):
        sys.stderr.write("farewell\\n")
        os._exit(3)

    def crashes(self, trajectory):
        ctypes.string_at(0)

    def killed(self, trajectory):
        os.kill(os.getpid(), signal.SIGKILL)

    def hangs_up(self, trajectory):
        os.closerange(3, 256)
        return Reward(1.0)

    def hangs_up_and_stays(self, trajectory):
        os.closerange(3, 256)
        forever()

    def dies_once(self, trajectory):
        if os.path.getsize(trajectory.prompt.metadata["tally"]) == 1:
            os._exit(1)
        return Reward(1.0)

    def spins(self, trajectory):
        forever()

    def spins_politely(self, trajectory):
        while True:
            try:
                forever()
            except BaseException:
                pass

    def sleeps(self, trajectory):
        time.sleep(60)

    def stops(self, trajectory):
        os.kill(os.getpid(), signal.SIGSTOP)
        return Reward(1.0)

    def ignores_signals(self, trajectory):
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        time.sleep(60)

    def floods(self, trajectory):
        while True:
            os.write(1, b"x" * 65536)

    def floods_stderr(self, trajectory):
        while True:
            os.write(2, b"x" * 65536)

    def noisy(self, trajectory):
        for _ in range(100):
            print("noise" * 1000, flush=True)
            print("noise" * 1000, file=sys.stderr, flush=True)
        return Reward(1.0)

    def forges_garbage(self, trajectory):
        send(b"\\x80\\x04garbage")

    def forges_list(self, trajectory):
        send(b"[]")

    def forges_length(self, trajectory):
        send(b"x", size=1 << 31)

    def forges_number(self, trajectory):
        send(b'{"id": 10000000, "value": 1.0, "reason": "", "metrics": {}, "seconds": 0}')

    def forges_value(self, trajectory):
        send(b'{"id": 10000000, "value": 7, "reason": 3, "metrics": [], "seconds": "x"}')

    def forks_and_returns(self, trajectory):
        return Reward(1.0 if os.fork() else 0.0)

    def forks_and_leaves_child(self, trajectory):
        child = os.fork()
        if not child:
            time.sleep(600)
        return Reward(1.0, str(child))

    def forks_and_dies(self, trajectory):
        if not os.fork():
            time.sleep(600)
        os._exit(1)


@hookimpl
def m2rl_domains():
    return [Hostile]
"""


def trajectory(answer: str, tally: Path | None = None) -> Trajectory:
    metadata = {"tally": str(tally)} if tally else {}
    return Trajectory(Prompt("1", "d", (), metadata=metadata), ({"role": "assistant", "content": answer},), answer)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    file = tmp_path_factory.mktemp("domain") / "hostile.py"
    file.write_text(HOSTILE)
    return Spec("hostile", plugins=[str(file)], seconds=1.0)


@pytest.fixture(scope="module")
def pool(spec: Spec) -> Iterator[VerifierPool]:
    with VerifierPool({"d": spec}) as shared:
        yield shared


def judge(pool: VerifierPool, *answers: str, tally: Path | None = None) -> list[Reward]:
    return [verdicts.reward for verdicts in pool.verify_all([("d", trajectory(a, tally)) for a in answers])]


def wait_until(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Zombies count as dead: a container's first process may not reap orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_verdicts_come_in_order(pool: VerifierPool) -> None:
    answers = ["yes", "no", "unsure", "raises"] * 100
    rewards = judge(pool, *answers)
    assert rewards[:3] == [Reward(1.0, "as gold", {"length": 3.0}), Reward(0.0, "not gold"), Reward(None, "no idea")]
    assert [reward.verdict for reward in rewards] == ["right", "wrong", "failed", "failed"] * 100


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("raises", "ValueError: no gold (domain d)"),
        ("exits", "SystemExit: 0 (domain d)"),
        ("interrupts", "KeyboardInterrupt:  (domain d)"),
        ("rude", "Rude: out of my way (domain d)"),
        ("mute", "Mute: (no message) (domain d)"),
        ("recurses", "RecursionError: maximum recursion depth exceeded"),
        ("allocates", "MemoryError:  (domain d)"),
        ("other_type", "TypeError: verify returned float, not Reward (domain d)"),
        ("out_of_range", "ValueError: a reward lies in [0, 1] or is None, found 2.0 (domain d)"),
        ("not_a_number", "ValueError: Out of range float values are not JSON compliant"),
        ("huge", "ValueError: a reward of"),
    ],
)
def test_raising_is_a_failed_verdict_in_the_same_worker(pool: VerifierPool, answer: str, reason: str) -> None:
    before, failed, after = judge(pool, "pid", answer, "pid")
    assert failed.value is None
    assert failed.reason.startswith(reason)
    assert before.reason == after.reason


def test_long_reasons_are_cut(pool: VerifierPool) -> None:
    [reward] = judge(pool, "verbose")
    assert reward.value == 1.0
    assert len(reward.reason) == 500


def test_more_than_plain_data_is_a_failed_verdict(pool: VerifierPool) -> None:
    prompt = Prompt("1", "d", (), ground_truth=lambda: 0)
    [verdicts] = pool.verify_all([("d", Trajectory(prompt, (), "yes"))])
    assert verdicts.reward.value is None
    assert "pickle" in verdicts.reward.reason


def test_unknown_domain(pool: VerifierPool) -> None:
    with pytest.raises(KeyError):
        pool.verify_all([("e", trajectory("yes"))])


# ── workers that die ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("quits", "the verifier worker exited with code 3 (farewell) (domain d)"),
        ("crashes", "the verifier worker died: Segmentation fault (domain d)"),
        ("killed", "the verifier worker died: Killed (domain d)"),
        ("hangs_up", "the verifier worker exited with code 1 (OSError: [Errno 9] Bad file descriptor) (domain d)"),
        ("hangs_up_and_stays", "the verifier worker hung up (domain d)"),
        ("forges_garbage", "the verifier worker broke the protocol (domain d)"),
        ("forges_list", "the verifier worker broke the protocol (domain d)"),
        ("forges_length", "the verifier worker broke the protocol (domain d)"),
        ("forges_number", "the verifier worker broke the protocol (domain d)"),
        ("forges_value", "the verifier worker broke the protocol (domain d)"),
        ("forks_and_dies", "the verifier worker exited with code 1 (domain d)"),
    ],
)
def test_a_dead_worker_is_replaced_and_its_task_tried_twice(
    pool: VerifierPool, tmp_path: Path, answer: str, reason: str
) -> None:
    tally = tmp_path / "tally"
    [reward] = judge(pool, answer, tally=tally)
    assert reward.value is None
    assert reward.reason == reason
    assert tally.read_text() == "xx"
    assert judge(pool, "yes")[0].value == 1.0


def test_the_second_try_may_succeed(pool: VerifierPool, tmp_path: Path) -> None:
    assert judge(pool, "dies_once", tally=tmp_path / "tally") == [Reward(1.0)]


def test_those_behind_a_crash_are_not_harmed(pool: VerifierPool, tmp_path: Path) -> None:
    rewards = judge(pool, *["yes"] * 50, "quits", *["no"] * 50)
    assert [reward.value for reward in rewards] == [1.0] * 50 + [None] + [0.0] * 50


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "reason", "seconds"),
    [
        ("spins", "verifier exceeded 1 s of CPU time (domain d)", 1),
        pytest.param("spins_politely", "verifier exceeded 1 s of CPU time (domain d)", 1, marks=pytest.mark.slow),
        pytest.param("floods", "verifier exceeded 1 s of CPU time (domain d)", 1, marks=pytest.mark.slow),
        ("sleeps", "verifier exceeded 2 s (domain d)", 2),
        pytest.param("stops", "verifier exceeded 2 s (domain d)", 2, marks=pytest.mark.slow),
        pytest.param("ignores_signals", "verifier exceeded 2 s (domain d)", 2, marks=pytest.mark.slow),
    ],
)
def test_a_verifier_is_killed_at_its_limit_and_not_tried_again(
    pool: VerifierPool, tmp_path: Path, answer: str, reason: str, seconds: float
) -> None:
    tally = tmp_path / "tally"
    judge(pool, "yes")
    started = time.monotonic()
    hung, after = pool.verify_all([("d", trajectory(answer, tally)), ("d", trajectory("yes"))])
    assert tally.read_text() == "x"
    assert hung.reward.value is None
    # a busy machine may take twice the CPU limit, which is the wall limit
    assert hung.reward.reason in {reason, "verifier exceeded 2 s (domain d)"}
    assert seconds * 0.8 < hung.seconds < 2.5
    assert after.reward.value == 1.0
    assert time.monotonic() - started < 10


def test_standard_output_and_error_stay_out_of_the_protocol(pool: VerifierPool) -> None:
    noisy, after = judge(pool, "noisy", "yes")
    assert noisy == Reward(1.0)
    assert after.value == 1.0


def test_standard_error_cannot_fill_the_disk(pool: VerifierPool) -> None:
    [reward] = judge(pool, "floods_stderr")
    assert reward.value is None
    assert "File too large" in reward.reason or "exceeded" in reward.reason


def test_time_in_the_queue_does_not_count(pool: VerifierPool) -> None:
    verdicts = pool.verify_all([("d", trajectory("pid 0.6"))] * 4)
    assert [v.reward.value for v in verdicts] == [1.0] * 4
    assert all(0.6 <= v.seconds < 2.0 for v in verdicts)
    assert len({v.reward.reason for v in verdicts}) <= 2  # one worker, or its replacement


def test_a_stalled_parent_does_not_count(spec: Spec) -> None:
    """A verdict that is there before anybody looks at the clock is a verdict."""

    async def stall(pool: VerifierPool) -> Verdicts:
        await pool.verify("d", trajectory("yes"))
        verdict = asyncio.ensure_future(pool.verify("d", trajectory("pid 0.3")))
        await asyncio.sleep(0.1)
        ctypes.PyDLL(None).usleep(1_500_000)  # nobody else gets the interpreter's lock
        return await verdict

    with VerifierPool({"d": replace(spec, seconds=0.5)}) as pool:
        assert asyncio.run(stall(pool)).reward.value == 1.0


def test_the_hung_one_does_not_hold_up_the_others(pool: VerifierPool) -> None:
    done: list[float] = []

    async def timed(answer: str) -> Reward:
        reward = (await pool.verify("d", trajectory(answer))).reward
        done.append(time.monotonic())
        return reward

    async def all_of_them() -> list[Reward]:
        await timed("yes")
        return await asyncio.gather(timed("sleeps"), *(timed("yes") for _ in range(20)))

    rewards = asyncio.run(all_of_them())
    assert [reward.value for reward in rewards] == [None] + [1.0] * 20


# ── children ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_forked_child_does_not_speak(pool: VerifierPool) -> None:
    rewards = judge(pool, "forks_and_returns", "pid", "forks_and_returns", "pid")
    assert [reward.value for reward in rewards] == [1.0] * 4
    assert rewards[1].reason == rewards[3].reason


def test_forked_children_are_killed_with_the_worker(spec: Spec) -> None:
    with VerifierPool({"d": spec}) as pool:
        child, worker = (int(reward.reason) for reward in judge(pool, "forks_and_leaves_child", "pid"))
        assert is_alive(child)
    assert not Path(f"/proc/{worker}").exists()  # not even a zombie
    wait_until(lambda: not is_alive(child))


def test_workers_die_with_their_parent(spec: Spec) -> None:
    program = f"""
import os, signal
from m2rl_core.rollout import process
from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.types import Prompt, Trajectory
pool = VerifierPool({{"d": Spec("hostile", plugins={list(spec.plugins)})}})
[verdicts] = pool.verify_all([("d", Trajectory(Prompt("1", "d", ()), (), "pid"))])
print(verdicts.reward.reason, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == -signal.SIGKILL
    wait_until(lambda: not is_alive(int(result.stdout)))


def test_no_secrets_no_torch_no_stray_handles(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "M2RL_JUDGE_KEY", "HOME", "OTHER"):
        monkeypatch.setenv(name, "unseen")
    monkeypatch.setenv("M2RL_SEEN", "seen")
    with VerifierPool({"d": spec}) as pool:
        [reward] = judge(pool, "look")
    assert "unseen" not in reward.reason
    for expected in ('"M2RL_SEEN": "seen"', '"OMP_NUM_THREADS": "1"', '"torch": false', '"stdin": ""'):
        assert expected in reward.reason
    assert '"inherited": ["0", "1", "2", "3"]' in reward.reason  # 3 is the listing itself


# ── the pool ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_several_workers_work_at_once(spec: Spec) -> None:
    with VerifierPool({"d": spec}, workers=2) as pool:
        rewards = judge(pool, *["pid 0.3"] * 6)
    assert len({reward.reason for reward in rewards}) == 2


def test_worn_workers_are_replaced_without_a_failure(spec: Spec) -> None:
    seen: list[str] = []
    with VerifierPool({"d": spec}, recycle=20) as pool:

        def third_worker() -> bool:
            rewards = judge(pool, *["pid"] * 10)
            assert all(reward.value == 1.0 for reward in rewards)
            seen.extend(reward.reason for reward in rewards if reward.reason not in seen)
            return len(seen) >= 3

        wait_until(third_worker)
        wait_until(lambda: not is_alive(int(seen[0])))


def test_any_event_loop_at_the_same_time(pool: VerifierPool) -> None:
    results: list[list[Reward]] = []
    threads = [threading.Thread(target=lambda: results.append(judge(pool, *["yes", "no"] * 50))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[reward.value for reward in rewards] for rewards in results] == [[1.0, 0.0] * 50] * 3


def test_a_caller_may_stop_waiting(pool: VerifierPool) -> None:
    async def impatient() -> Verdicts:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.verify("d", trajectory("pid 0.5")), 0.1)
        return await pool.verify("d", trajectory("yes"))

    assert asyncio.run(impatient()).reward.value == 1.0


def test_close_answers_those_who_wait(spec: Spec) -> None:
    pool = VerifierPool({"d": spec})

    async def close_while_busy() -> list[Verdicts]:
        await pool.verify("d", trajectory("yes"))
        waiting = [asyncio.ensure_future(pool.verify("d", trajectory("sleeps"))) for _ in range(3)]
        await asyncio.sleep(0.2)
        pool.close()
        return await asyncio.gather(*waiting)

    started = time.monotonic()
    rewards = [verdicts.reward for verdicts in asyncio.run(close_while_busy())]
    assert rewards == [Reward(None, "the verifier pool was closed (domain d)")] * 3
    assert time.monotonic() - started < 10
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        judge(pool, "yes")


def test_an_unused_pool_starts_no_process(spec: Spec) -> None:
    def children() -> list[str]:
        found = []
        for file in Path("/proc/self/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
                found.append(file.read_text())
        return sorted(found)

    before = children()
    with VerifierPool({"d": spec}):
        assert "".join(children()) == "".join(before)


@pytest.mark.slow
def test_a_domain_that_hangs_while_it_is_built(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BUILD_SECONDS", 3.0)
    specs = {"d": spec, "e": Spec("hostile", {"gold": "hang"}, spec.plugins)}
    with VerifierPool(specs) as pool:
        first, second = pool.verify_all([("e", trajectory("yes")), ("d", trajectory("yes"))])
    assert first.reward == Reward(None, "building the domain exceeded 3 s (domain e)")
    assert second.reward.value == 1.0


def test_a_domain_that_cannot_be_built_harms_no_other(spec: Spec) -> None:
    specs = {"d": spec, "e": Spec("hostile", {"glod": "yes"}, spec.plugins), "f": Spec("nothing")}
    with VerifierPool(specs) as pool:
        first, second, third = (v.reward for v in pool.verify_all([(name, trajectory("yes")) for name in "edf"]))
    assert first.reason.startswith("ConfigError: domains.e.glod")
    assert second.value == 1.0
    assert "domains.f" in third.reason
    assert "'nothing'" in third.reason


def test_workers_that_do_not_start_fail_what_is_queued(tmp_path: Path) -> None:
    with VerifierPool({"d": Spec("hostile", plugins=[str(tmp_path / "absent.py")])}) as pool:
        rewards = judge(pool, *["yes"] * 100)
    assert {reward.value for reward in rewards} == {None}
    assert "no verifier worker gets ready: the verifier worker exited with code 1" in rewards[0].reason
    assert "absent.py" in rewards[0].reason


# ── remote domains ───────────────────────────────────────────────────────────────────────────────────────────────────


class Remote(Domain):
    name, reference, suites, remote, verify_seconds = "remote", "test", {}, True, 0.1
    Config = ComponentConfig

    def prompts(self, split: str) -> Iterable[Prompt]:
        return ()

    def verify(self, trajectory: Trajectory) -> Reward:
        raise AssertionError("a remote domain is not verified in a worker")

    async def verify_remote(self, trajectory: Trajectory) -> Reward:
        self.asked = [*getattr(self, "asked", []), trajectory.answer]
        if trajectory.answer == "raises" or (trajectory.answer == "stumbles" and self.asked.count("stumbles") == 1):
            raise ConnectionError("refused")
        await asyncio.sleep(60 if trajectory.answer == "sleeps" else 0)
        if trajectory.answer == "unsure":
            return Reward(None, "no idea")
        if trajectory.answer == "odd":
            return "yes"  # type: ignore[return-value]
        return Reward(1.0, threading.current_thread().name)


def test_remote_domains_are_awaited_in_the_callers_loop() -> None:
    with VerifierPool({"d": Spec.of(Remote(), DomainSection(use="remote"))}) as pool:
        right, failed, late = judge(pool, "right", "raises", "sleeps")
    assert right == Reward(1.0, "MainThread")
    assert failed == Reward(None, "ConnectionError: refused (domain d)")
    assert late == Reward(None, "verifier exceeded 0.2 s (domain d)")


def test_a_remote_verifier_that_fails_is_asked_once_more() -> None:
    """But not one that was too slow."""
    domain = Remote()
    with VerifierPool({"d": Spec.of(domain, DomainSection(use="remote"))}) as pool:
        recovered, failed, late, unsure, odd = judge(pool, "stumbles", "raises", "sleeps", "unsure", "odd")
    assert recovered.value == 1.0
    assert failed.reason == "ConnectionError: refused (domain d)"
    assert late.reason == "verifier exceeded 0.2 s (domain d)"
    assert unsure == Reward(None, "no idea")
    assert odd == Reward(None, "TypeError: verify_remote returned str, not a Reward (domain d)")
    assert {answer: domain.asked.count(answer) for answer in domain.asked} == {
        "stumbles": 2, "raises": 2, "sleeps": 1, "unsure": 2, "odd": 2,
    }  # fmt: skip
