"""How fast the verifier pool verifies, and how fast it gets over verifiers that hang or crash.

``python benchmarks/verifiers.py`` prints a table. The verifier compares two strings, so what is measured is the pool.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.types import Prompt, Reward, Trajectory

DOMAIN = """
import os
import time
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Reward


class Echo(Domain):
    name, reference, suites, Config = "echo", "benchmark", {}, ComponentConfig

    def __init__(self, config):
        pass

    def prompts(self, split):
        return ()

    def verify(self, trajectory):
        while trajectory.answer == "loop":
            pass
        if trajectory.answer == "sleep":
            time.sleep(60)
        if trajectory.answer == "crash":
            os._exit(1)
        return Reward(float(trajectory.answer == trajectory.prompt.ground_truth))


@hookimpl
def m2rl_domains():
    return [Echo]
"""
LIMIT = 1.0
"""CPU seconds of one verification; the wall limit is twice that."""


def trajectory(answer: str, response: str = "2 + 2 = 4, so the answer is 4.") -> Trajectory:
    """A short math problem as the miniature study has it."""
    prompt = Prompt("train/0/000001", "echo", ({"role": "user", "content": "What is 2 + 2?"},), ground_truth="4")
    return Trajectory(prompt, ({"role": "assistant", "content": f"<think>{response}</think>{answer}"},), answer)


def rate(pool: VerifierPool, items: list[tuple[str, Trajectory]]) -> float:
    """Verifications per second, best of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        assert all(verdicts.reward.value == 1.0 for verdicts in pool.verify_all(items))
        times.append(time.perf_counter() - started)
    return len(items) / min(times)


def latency(pool: VerifierPool, answer: str) -> tuple[float, float, Reward]:
    """Seconds until a bad trajectory has its verdict, and until the next good one has; and the verdict."""
    started = time.perf_counter()
    [bad] = pool.verify_all([("echo", trajectory(answer))])
    judged = time.perf_counter() - started
    pool.verify_all([("echo", trajectory("4"))])
    return judged, time.perf_counter() - started - judged, bad.reward


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "echo.py"
        file.write_text(DOMAIN)
        specs = {"echo": Spec("echo", plugins=[str(file)], seconds=LIMIT)}
        good = ("echo", trajectory("4"))

        starts = []
        for _ in range(3):
            started = time.perf_counter()
            with VerifierPool(specs) as pool:
                pool.verify_all([good])
                starts.append(time.perf_counter() - started)
        print(f"first verdict of a new pool      {statistics.median(starts):10.3f} s")
        for workers in (1, 2):
            with VerifierPool(specs, workers) as pool:
                pool.verify_all([good] * 100)
                print(f"verifications/s, {workers} worker(s)     {rate(pool, [good] * 10_000):10.0f}")
        with VerifierPool(specs) as pool:
            long = ("echo", trajectory("4", "x" * 100_000))
            print(f"  of 100 kB each, 1 worker       {rate(pool, [long] * 2_000):10.0f}")
            single = statistics.median(pool.verify_all([good])[0].seconds for _ in range(100))
            print(f"a verification in the worker     {single * 1e6:10.0f} µs")
            for answer in ("loop", "sleep", "crash"):
                judged, next_one, reward = latency(pool, answer)
                print(f"verdict on a {answer:<20}{judged:10.3f} s   {reward.reason}")
                print(f"  then until the next verdict    {next_one:10.3f} s")


if __name__ == "__main__":
    main()
