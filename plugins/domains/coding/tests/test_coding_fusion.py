"""SandboxFusion's API over real HTTP, against a server of that protocol that runs the programs."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_coding.sandbox.backend import Limits

if TYPE_CHECKING:
    from conftest import Server

CATALOGUE = Path(__file__).resolve().parents[5] / "shared" / "data" / "adversarial.jsonl"
SUM = {"inputs": ["3\n1 2 3\n", "2\n5 6\n"], "outputs": ["6\n", "11\n"]}
TOTAL = {"inputs": ['[1, 2]\n"é"', '[5, 6]\n"\\"\'"'], "outputs": ['[3, "é"]', '[11, "\\"\'"]'], "fn_name": "total"}
READ = "n=int(input())\nanswer=sum(map(int,input().split()))\n"


def prompt(tests: object) -> Prompt:
    return Prompt("p", "coding", (), None, {"unit_tests": tests})


def fenced(source: str) -> str:
    return f"```python\n{source}\n```"


def test_sends_the_program_its_input_and_its_limits_and_nothing_else(fusion: Server) -> None:
    reward = fusion.judged(prompt(SUM), fenced(READ + "print(answer)"), seconds=3.0, memory=256)
    assert (reward.value, reward.reason) == (1.0, "2 tests")
    assert fusion.paths == ["/run_code"] * 2
    first, second = fusion.bodies
    assert first == {
        "code": READ + "print(answer)\n",
        "language": "python",
        "stdin": "3\n1 2 3\n",
        "compile_timeout": 10.0,
        "run_timeout": 3.0,
        "memory_limit_MB": 256,
    }
    assert second["stdin"] == "2\n5 6\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print(6)", "test 2 of 2: other output"),
        (READ + "print(answer)\nraise SystemExit(1)", "test 1 of 2: ended with an error"),
        ("print(6", "test 1 of 2: ended with an error"),
        ("while True: pass", "test 1 of 2: out of time"),
    ],
)
def test_wrong_programs_are_wrong_and_not_asked_about_again(fusion: Server, source: str, reason: str) -> None:
    reward = fusion.judged(prompt(SUM), fenced(source), seconds=1.0)
    assert (reward.value, reward.reason) == (0.0, reason)
    assert len(fusion.bodies) == int(reason[5])


@pytest.mark.parametrize(
    "source",
    [
        "def total(a, s): return sum(a), s",
        "from __future__ import annotations\ndef total(a: List[int], s): return [sum(a), s]",
        "class Solution:\n    def total(self, a: List[int], s: str): return [sum(a), s]",
        "print('<loading>', end='')\ndef total(a, s):\n    print(a, s)\n    return [float(sum(a)), s]",
        "import dataclasses\n@dataclasses.dataclass\nclass P:\n    n: int\ndef total(a, s): return [P(sum(a)).n, s]",
    ],
)
def test_functions_are_called_by_a_script(fusion: Server, source: str) -> None:
    reward = fusion.judged(prompt(TOTAL), fenced(source))
    assert (reward.value, reward.reason) == (1.0, "2 tests")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def total(a, s): return [sum(a), s, 0]", "other value"),
        ("def total(a, s): print([sum(a), s])", "other value"),
        ("def other(a, s): return [sum(a), s]", "ended with an error"),
        ("def total(a): return [sum(a), '']", "ended with an error"),
        ("import os\ndef total(a, s): os._exit(0)", "ended with an error"),
        ("raise SystemExit", "ended with an error"),
        ("class X(list):\n    def __eq__(s, o): return True\ndef total(a, s): return X()", "ended with an error"),
        ("import json\njson.dumps = lambda *a: '[3]'\ndef total(a, s): return [3]", "other value"),
        (
            "import sys\ndef total(a, s):\n    m = sys.argv\n    print('<' + '0' * 16 + '>[3]')\n    return 0",
            "other value",
        ),
    ],
)
def test_wrong_functions(fusion: Server, source: str, reason: str) -> None:
    reward = fusion.judged(prompt(TOTAL), fenced(source))
    assert reward.value == 0.0
    assert reason in reward.reason
    assert not any('"é"]' in body["code"] or "[3, " in body["code"] for body in fusion.bodies)


def test_more_output_than_allowed_is_wrong(fusion: Server) -> None:
    def loud(here: Server, web: Any, asked: dict[str, Any]) -> None:
        reply = here.executed(asked)
        reply["run_result"]["stdout"] = "6\n" + " " * (Limits().output + 1)
        here.say(web, reply)

    fusion.reply = loud
    reward = fusion.judged(prompt(SUM), fenced(READ + "print(answer)"))
    assert (reward.value, reward.reason) == (0.0, "test 1 of 2: too much output")


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="needs ../shared beside the repository")
def test_the_catalogue_comes_out_the_same(fusion: Server) -> None:
    rows = [row for row in map(json.loads, CATALOGUE.read_text().splitlines()) if row["domain"] == "coding"]
    domain = fusion.domain(seconds=1.0)
    tasks = [
        ("coding", Trajectory(Prompt(row["id"], "coding", (), None, row["metadata"]), (), row["response"]))
        for row in rows
    ]
    with VerifierPool({"coding": Spec("coding", seconds=domain.verify_seconds, remote=domain)}) as pool:
        found = pool.verify_all(tasks)
    got = {row["id"]: each.reward.value for row, each in zip(rows, found, strict=True)}
    assert got == {row["id"]: row["expected_reward"] for row in rows}


def test_answers_are_judged_at_the_same_time(fusion: Server) -> None:
    running, most, lock = [0], [0], threading.Lock()

    def slow(here: Server, web: Any, asked: dict[str, Any]) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.3)
        with lock:
            running[0] -= 1
        result = {"status": "Finished", "return_code": 0, "stdout": "6", "stderr": "", "execution_time": 0.01}
        here.say(web, {"status": "Success", "message": "", "run_result": result})

    fusion.reply = slow
    domain = fusion.domain()
    one = Trajectory(prompt({"inputs": [""], "outputs": ["6"]}), (), fenced("print(6)"))
    with VerifierPool({"coding": Spec("coding", seconds=domain.verify_seconds, remote=domain)}) as pool:
        found = pool.verify_all([("coding", one)] * 12)
    assert [each.reward.value for each in found] == [1.0] * 12
    assert most[0] >= 6


def test_a_check_does_not_ask_the_server(fusion: Server) -> None:
    fusion.domain().check()
    assert not fusion.bodies
