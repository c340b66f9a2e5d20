"""The verifier with its real sandbox, against hand-written programs: right ones, wrong ones, and attacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.rewards.reasoning import split
from m2rl_core.types import Prompt, Reward, Trajectory
from m2rl_domain_coding import Coding

CATALOGUE = Path(__file__).resolve().parents[5] / "shared" / "data" / "adversarial.jsonl"
DOMAIN = Coding(Coding.Config())
HASTY = Coding(Coding.Config(seconds=1.0))
"""Programs that hang are held for one second, not ten."""
SUM = {"inputs": ["3\n1 2 3\n", "2\n5 6\n", "1\n-4\n"], "outputs": ["6\n", "11\n", "-4\n"]}
TOTAL = {"inputs": ["[1, 2, 3]", "[5, 6]"], "outputs": ["6", "11"], "fn_name": "total"}
PAIRS = {"inputs": ['{"b": [1]}\n2'], "outputs": ['[["b", [1]], 2.5, null]'], "fn_name": "f"}
READ = "n=int(input())\nanswer=sum(map(int,input().split()))\n"


def judge(source: str, tests: object, domain: Coding = DOMAIN) -> Reward:
    answer = f"```python\n{source}\n```"
    return domain.verify(Trajectory(Prompt("p", "coding", (), None, {"unit_tests": tests}), (), answer))


@pytest.mark.parametrize(
    "source",
    [
        READ + "print(answer)",
        READ + "import sys; sys.stdout.write(str(answer))",
        READ + "import sys; sys.stdout.buffer.write(b'%d\\n' % answer)",
        READ + "import os; os.write(1, str(answer).encode())",
        READ + "print(answer, flush=True); import os; os._exit(0)",
        READ + "print(answer)\nraise SystemExit",
        READ + "import sys; print('debug', file=sys.stderr); print(answer)",
        "import sys\nprint(sum(map(int, sys.stdin.read().split()[1:])))",
        "import sys\nprint(sum(int(x) for x in open(0).read().split()[1:]))",
        "import threading, sys\nsys.setrecursionlimit(10**6)\n"
        "def main():\n    input()\n    print(sum(map(int, input().split())))\n"
        "threading.Thread(target=main).start()",
        "from collections import *\nimport numbers, heapq, math\ninput()\nprint(sum(map(int, input().split())))",
        "# -*- coding: utf-8 -*-\nimport sys\ninput = sys.stdin.readline\n" + READ + "print(answer)",
        "input()\nprint(eval('+'.join(input().replace('-', '+-').split())))",
    ],
)
def test_right_programs(source: str) -> None:
    assert judge(source, SUM) == Reward(1.0, "3 tests")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print(6)", "test 2 of 3: other output"),
        ("pass", "test 1 of 3: other output"),
        ("print(6", "ended with an error"),
        (READ + "print('answer:', answer)", "other output"),
        (READ + "print(answer); print(answer)", "other output"),
        (READ + "print(float(answer))", "other output"),
        (READ + "print(answer, end='\\0')", "other output"),
        (READ + "import sys; print(answer, file=sys.stderr)", "other output"),
        (READ + "print(answer)\nraise SystemExit(1)", "ended with an error"),
        (READ + "print(answer)\nraise SystemExit('done')", "ended with an error"),
        (READ + "print(answer)\n1/0", "ended with an error"),
        (READ + "print(answer, flush=True)\nimport os; os.kill(os.getpid(), 9)", "ended with an error"),
        (READ + "print(answer); import os; os._exit(0)", "other output"),
        (READ + "print(answer)\nwhile True: pass", "out of time"),
        ("n = int(input('How many? '))\nprint(sum(map(int, input().split())))", "other output"),
        (READ + "input()", "ended with an error"),
        ("def f(): f()\nf()", "ended with an error"),
        ("print('6\\n11\\n-4')", "other output"),
        ("import sys; sys.stdout.close()", "test 1 of 3"),
    ],
)
def test_wrong_programs(source: str, reason: str) -> None:
    reward = judge(source, SUM, HASTY)
    assert reward.value == 0.0
    assert reason in reward.reason


@pytest.mark.parametrize(
    "source",
    [
        "def total(a): return sum(a)",
        "total = sum",
        "total = lambda a: sum(a)",
        "class Solution:\n    def total(self, a: List[int]) -> int:\n        return reduce(add, a)",
        "from __future__ import annotations\ndef total(a: List[int]): return sum(a)",
        "class Solution:\n    def __init__(self): self.n = 0\n    def total(self, a): return self.n + sum(a)",
        "print('loading')\ndef total(a):\n    print(a)\n    return float(sum(a))",
        "def total(a): return sum(a)\nif __name__ == '__main__': print(total([int(input())]))",
    ],
)
def test_right_functions(source: str) -> None:
    assert judge(source, TOTAL) == Reward(1.0, "2 tests")


@pytest.mark.parametrize(
    "value",
    ["[('b', [1]), y + 0.5, None]", "(('b', (1,)), 2.5, None)", "[[k, v] for k, v in x.items()] + [2.5, None]"],
)
def test_arguments_and_values_are_those_of_json(value: str) -> None:
    assert judge(f"def f(x, y): return {value}", PAIRS).value == 1.0


@pytest.mark.parametrize(
    "value",
    [
        "",
        "None",
        "[['b', [1]], 2.5]",
        "[['b', [True]], 2.5, None]",
        "[['b', [1]], '2.5', None]",
        "[{'b', (1,)}, 2.5, None]",
        "iter([['b', [1]], 2.5, None])",
        "float('nan')",
        "print([['b', [1]], 2.5, None])",
    ],
)
def test_other_values(value: str) -> None:
    assert judge(f"def f(x, y): return {value}", PAIRS).value == 0.0


EQUAL = "class {0}({1}):\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\n    __hash__ = None\n"
STATE = "import os\npath = '{}/count'\nn = int(open(path).read()) if os.path.exists(path) else 0\n"
ATTACKS_ON_CALLS = {
    "counts the calls": "n = [0]\ndef total(a):\n    n[0] += 1\n    return [6, 11][n[0] - 1]",
    "counts the calls in a file": STATE.format("/tmp") + "open(path, 'w').write(str(n + 1))\n"
    "def total(a): return [6, 11][n]",
    "counts the calls in its module": "import json\ndef total(a):\n    json.n = getattr(json, 'n', -1) + 1\n"
    "    return [6, 11][json.n]",
    "tells the calls apart by their length": "def total(a): return 6 if len(a) == 3 else 12",
    "equal to everything": EQUAL.format("X", "object") + "def total(a): return X()",
    "an integer equal to everything": EQUAL.format("X", "int") + "def total(a): return X(0)",
    "a text equal to everything": EQUAL.format("X", "str") + "def total(a): return X('6')",
    "a list equal to everything": EQUAL.format("X", "list") + "def total(a): return X()",
    "a number by its methods": "class X(int):\n    def __repr__(s): return '6'\n"
    "    __str__ = __int__ = __index__ = __repr__\n"
    "def total(a): return X(1)",
    "patched json": "import json\njson.dumps = lambda *a, **k: '6'\njson.JSONEncoder.encode = json.dumps\n"
    "def total(a): return 0",
    "patched types": "import builtins\nbuiltins.type = lambda *a: int\nbuiltins.repr = lambda *a: '6'\n"
    "def total(a): return object()",
    "patched encoder": "import _json, json.encoder as e\n"
    "_json.encode_basestring_ascii = e.encode_basestring_ascii = lambda *a: '6'\ndef total(a): return ''",
    "leaves during the call": "import os\ndef total(a): os._exit(0)",
    "leaves before the call": "import sys\nsys.exit(0)",
    "says it has passed": "import os\ndef total(a):\n    os.write(1, b'6\\n'); os.write(2, b'6\\n'); os._exit(0)",
    "writes on every descriptor": "import os, struct\ndef total(a):\n    for fd in range(3, 256):\n"
    "        for frame in (b'6', struct.pack('>I', 1) + b'6', struct.pack('<I', 1) + b'6'):\n"
    "            try: os.write(fd, frame)\n            except OSError: pass\n    os._exit(0)",
    "walks the frames": "import sys\ndef total(a):\n    f = sys._getframe()\n    while f:\n"
    "        for name in ('expected', 'outputs', 'gt_out', 'tests', 'test'):\n"
    "            if name in f.f_locals: return f.f_locals[name]\n        f = f.f_back\n    return 'none'",
    "walks the heap": "import gc\ndef total(a):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, dict) and ('outputs' in o or 'expected' in o): return 6\n    return 0",
    "raises": "def total(a): raise SystemExit(0)",
    "asks for the answer": "def total(a): return int(input())",
    "is not there": "def other(a): return sum(a)",
    "is no function": "total = 6",
}
ATTACKS_ON_OUTPUT = {
    "counts the tests in a file": STATE.format("/tmp") + "open(path, 'w').write(str(n + 1))\nprint([6, 11, -4][n])",
    "counts the tests in shared memory": STATE.format("/dev/shm") + "open(path, 'w').write(str(n + 1))\n"
    "print([6, 11, -4][n])",
    "counts the tests where it stands": STATE.format(".") + "open(path, 'w').write(str(n + 1))\nprint([6, 11, -4][n])",
    "reads its parents": "import os\nfor pid in filter(str.isdigit, os.listdir('/proc')):\n"
    "    for name in ('environ', 'cmdline'):\n        print(open(f'/proc/{pid}/{name}').read())",
    "knows the environment": "import os\nprint(len(os.environ) and 6)",
    "reads the host's files": "print(6 if open('/etc/shadow').read() else 0)",
    "asks a service": "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)\nprint(6)",
    "looks up a name": "import socket\nprint(6 if socket.gethostbyname('example.com') else 0)",
    "runs a command": "import subprocess\nprint(subprocess.run(['sh', '-c', 'echo 6'], capture_output=True).stdout)",
    "leaves a daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\nprint(6)",
    "answers from a child": "import os, time\nif os.fork() == 0:\n    time.sleep(0.5)\n    print(6, flush=True)\n"
    "    time.sleep(60)\nos._exit(0)",
    "starts threads without end": "import threading, time\n"
    "while True: threading.Thread(target=time.sleep, args=(9,)).start()",
    "forks without end": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "takes all memory": "x = [b'x' * (1 << 20) for _ in range(1 << 20)]\nprint(6)",
    "takes all memory at once": "x = bytearray(1 << 40)\nprint(6)",
    "writes without end": "while True: print('6' * 10000)",
    "complains without end": "import sys\nwhile True: sys.stderr.write('6' * 10000)",
    "fills the disk": "while True: open('x', 'ab').write(b'x' * (1 << 24))",
    "sleeps": "import signal, time\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\ntime.sleep(10**6)",
    "crashes the interpreter": "import ctypes\nctypes.string_at(0)",
    "nests too deeply": "print(" + "(" * 5000 + "6" + ")" * 5000 + ")",
    "has a huge constant": "print(9**9**9)",
    "compiles for ever": "x = " + "+".join(["(1 << 10**9)"] * 200),
}


@pytest.mark.parametrize("attack", ATTACKS_ON_CALLS)
def test_attacks_on_calls_earn_nothing(attack: str) -> None:
    reward = judge(ATTACKS_ON_CALLS[attack], TOTAL, HASTY)
    assert reward.value == 0.0, reward


@pytest.mark.parametrize("attack", ATTACKS_ON_OUTPUT)
def test_attacks_on_output_earn_nothing_and_the_next_program_runs(attack: str) -> None:
    reward = judge(ATTACKS_ON_OUTPUT[attack], SUM, HASTY)
    assert reward.value == 0.0, reward
    assert judge(READ + "print(answer)", SUM, HASTY).value == 1.0


@pytest.mark.parametrize("answer", ["", "print(6)", "```bash\necho 6\n```", "```python\nprint(6)", "```python\n```"])
def test_an_answer_without_a_program_is_wrong(answer: str) -> None:
    prompt = Prompt("p", "coding", (), None, {"unit_tests": {"inputs": [""], "outputs": ["6"]}})
    assert DOMAIN.verify(Trajectory(prompt, (), answer)).value == 0.0


@pytest.mark.parametrize("tests", [None, {}, {"inputs": [], "outputs": []}, {"inputs": ["1"], "outputs": [""]}])
@pytest.mark.parametrize("source", ["", "print(6)"])
def test_a_prompt_without_tests_is_a_failed_verdict(source: str, tests: object) -> None:
    with pytest.raises(DataError, match="'p'"):
        judge(source, tests)


def catalogue() -> Iterator[Any]:
    if CATALOGUE.is_file():
        for line in CATALOGUE.read_text().splitlines():
            row = json.loads(line)
            if row["domain"] == "coding":
                yield pytest.param(row, id=row["id"])


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="needs ../shared beside the repository")
@pytest.mark.parametrize("row", list(catalogue()))
def test_the_catalogue(row: dict[str, Any]) -> None:
    metadata = row["metadata"]
    rule = "required" if metadata.get("reasoning") == "think" else "off"
    answer, _ = split(row["response"], rule)  # type: ignore[arg-type]
    if answer is None:
        assert row["expected_reward"] == 0
        return
    prompt = Prompt(row["id"], "coding", (), row["ground_truth"], metadata)
    assert HASTY.verify(Trajectory(prompt, (), answer)).value == row["expected_reward"]
