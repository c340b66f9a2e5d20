"""How tests are run: one after the other, within the time of one and of all, until one fails."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import pytest

from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_coding import Coding
from m2rl_domain_coding.judging import judge
from m2rl_domain_coding.sandbox.backend import Backend, Limits, Outcome, Program, SandboxError
from m2rl_domain_coding.unit_tests import UnitTest


class Recorder:
    """The real sandbox; it keeps what it was asked."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.programs: list[Program] = []
        self.limits: list[Limits] = []

    def run(self, program: Program, limits: Limits) -> Outcome:
        self.programs.append(program)
        self.limits.append(limits)
        return self.inner.run(program, limits)

    def close(self) -> None:
        """It is not ours."""


def echoes(count: int) -> list[UnitTest]:
    return [UnitTest(f"{i}\n", None, f"{i}\n") for i in range(count)]


def test_the_first_failure_ends_it_and_nothing_expected_goes_to_the_sandbox(embedded: Backend) -> None:
    sandbox = Recorder(embedded)
    tests = [UnitTest(f"in {i}\n", None, f"expected {i}\n") for i in range(5)]
    source = "n = input()\nprint(n.replace('in', 'expected') if n < 'in 2' else n)"
    reward = judge(source, tests, sandbox, Limits(), 60.0)
    assert (reward.value, reward.reason) == (0.0, "test 3 of 5: other output")
    assert [program.stdin for program in sandbox.programs] == ["in 0\n", "in 1\n", "in 2\n"]
    assert not any("expected 0" in str(program) for program in sandbox.programs)


@pytest.mark.parametrize("call", [None, ("f", (300_000,))])
def test_what_is_expected_may_be_long(embedded: Backend, call: Any) -> None:
    source = "def f(n): return list(range(n))\nif __name__ == '__main__': print(f(300_000))"
    right = UnitTest("", call, list(range(300_000)) if call else f"{list(range(300_000))}\n")
    assert judge(source, [right], embedded, Limits(), 60.0).value == 1.0
    short = UnitTest("", call, [1] if call else "1\n")
    assert judge(source, [short], embedded, Limits(), 60.0).reason == "test 1 of 1: too much output"


def test_who_is_killed_gets_one_more_try(embedded: Backend) -> None:
    class Outsider(Recorder):
        """Kills the first program."""

        def run(self, program: Program, limits: Limits) -> Outcome:
            harmed = Program("import os; os.kill(os.getpid(), 9)") if not self.programs else program
            outcome = self.inner.run(harmed, limits)
            self.programs.append(program)
            return outcome

    sandbox = Outsider(embedded)
    assert judge("print(input())", echoes(2), sandbox, Limits(), 60.0).value == 1.0
    assert len(sandbox.programs) == 3
    itself = Recorder(embedded)
    reward = judge("import os; os.kill(os.getpid(), 9)", echoes(2), itself, Limits(), 60.0)
    assert (reward.value, reward.reason, len(itself.programs)) == (0.0, "test 1 of 2: ended with an error", 2)


def test_all_tests_share_the_time_of_the_answer(embedded: Backend) -> None:
    sandbox = Recorder(embedded)
    source = "import time\ntime.sleep(0.4)\nprint(input())"
    reward = judge(source, echoes(5), sandbox, Limits(seconds=5.0), total=1.0)
    assert reward.value == 0.0
    assert "out of time" in reward.reason or "s are over" in reward.reason
    assert len(sandbox.programs) in (2, 3)
    left = [limits.seconds for limits in sandbox.limits]
    assert left[0] == 1.0
    assert all(later <= earlier - 0.4 for earlier, later in pairwise(left))
    assert judge(source, echoes(2), embedded, Limits(seconds=5.0), total=30.0).value == 1.0


def test_one_test_has_its_own_limits(embedded: Backend) -> None:
    hangs = judge("while True: pass", echoes(1), embedded, Limits(seconds=0.5), 60.0)
    assert (hangs.value, hangs.reason) == (0.0, "test 1 of 1: out of time")
    greedy = judge("x = bytearray(300 << 20)\nprint(input())", echoes(1), embedded, Limits(memory=128 << 20), 60.0)
    assert greedy.value == 0.0
    assert judge("x = bytearray(64 << 20)\nprint(input())", echoes(1), embedded, Limits(), 60.0).value == 1.0


class Broken:
    """A sandbox that is out of order."""

    def run(self, program: Program, limits: Limits) -> Outcome:
        raise SandboxError("no namespaces left")

    def close(self) -> None:
        return


def test_a_sandbox_at_fault_is_no_verdict() -> None:
    with pytest.raises(SandboxError):
        judge("print(6)", echoes(1), Broken(), Limits(), 60.0)


def prompt(key: str, count: int) -> Prompt:
    tests = {"inputs": [f"{i}\n" for i in range(count)], "outputs": [f"{i}\n" for i in range(count)]}
    return Prompt(key, "coding", (), None, {"unit_tests": tests})


def test_a_subset_is_the_same_for_all_samples_of_a_group_and_after_a_restart(embedded: Backend) -> None:
    def drawn(key: str, **settings: Any) -> list[str]:
        domain = Coding(Coding.Config(**settings))
        sandbox = domain._backend = Recorder(embedded)
        assert domain.verify(Trajectory(prompt(key, 30), (), "```python\nprint(input())\n```")).value == 1.0
        return [program.stdin for program in sandbox.programs]

    some = drawn("train/000001", tests=4)
    assert len(some) == 4
    assert drawn("train/000001", tests=4) == some
    assert drawn("train/000002", tests=4) != some
    assert drawn("train/000001", tests=4, seed=1) != some
    assert len(drawn("train/000001")) == 30


def test_the_same_program_for_a_generated_problem_runs_once_and_for_a_row_every_time(embedded: Backend) -> None:
    domain = Coding(Coding.Config())
    sandbox = domain._backend = Recorder(embedded)
    one, other = islice(domain.prompts("train"), 2)
    gold = domain.gold(one) or ""
    for _ in range(3):
        assert domain.verify(Trajectory(one, (), gold)).value == 1.0
    assert len(sandbox.programs) == len(one.metadata["unit_tests"]["inputs"])
    for _ in range(3):
        assert domain.verify(Trajectory(other, (), gold)).value == 0.0
    for _ in range(3):
        assert domain.verify(Trajectory(prompt("p", 2), (), "```python\nprint(input())\n```")).value == 1.0
    assert len(sandbox.programs) == len(one.metadata["unit_tests"]["inputs"]) + 1 + 3 * 2


def test_a_program_that_fails_elsewhere_passes_a_subset_without_that_test() -> None:
    """What a subset does to the reward: every sample of the group gets the same one."""
    domain = Coding(Coding.Config(tests=4))
    source = "n = int(input())\nprint(n if n != {} else -1)"
    rewards = {
        n: domain.verify(Trajectory(prompt("p", 6), (), f"```python\n{source.format(n)}\n```")).value for n in range(6)
    }
    assert sorted(rewards.values(), key=str) == [0.0] * 4 + [1.0] * 2


def test_the_limit_of_a_verification_covers_all_tests() -> None:
    url = "http://localhost:8080"
    assert Coding(Coding.Config()).verify_seconds > 60.0
    assert Coding(Coding.Config(total_seconds=600.0)).verify_seconds > 600.0
    assert Coding(Coding.Config(lcb_v6="test6.jsonl")).verify_seconds > 300.0
    fusion = Coding(Coding.Config.model_validate({"sandbox": {"use": "sandbox-fusion", "url": url}}))
    assert fusion.verify_seconds > 300.0
    assert (fusion.remote, Coding(Coding.Config()).remote) == (True, False)


def test_a_worker_process_verifies() -> None:
    answers = ["print(input())", "print(7)", "import os\nwhile True: os.fork()"]
    tasks = [("coding", Trajectory(prompt("p", 5), (), f"```python\n{source}\n```")) for source in answers]
    with VerifierPool({"coding": Spec("coding", {"seconds": 1.0})}) as pool:
        found = pool.verify_all([*tasks, tasks[0]])
    assert [each.reward.value for each in found] == [1.0, 0.0, 0.0, 1.0], [each.reward.reason for each in found]
