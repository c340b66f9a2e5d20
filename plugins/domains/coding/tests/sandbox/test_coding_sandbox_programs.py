"""Ordinary programs, and what is said of them, the same in every sandbox."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from m2rl_domain_coding.sandbox import Outcome

Run = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("print(1)", "finished"),
        ("import sys; sys.exit(0)", "finished"),
        ("exit()", "finished"),
        ("quit(0)", "finished"),
        ("raise SystemExit", "finished"),
        ("import atexit; atexit.register(print, 1)", "finished"),
        ("import sys; sys.stdout.close()", "finished"),
        ("import os; [os.close(n) for n in range(3)]; os._exit(0)", "finished"),
        ("exit(3)", "error"),
        ("import sys; sys.exit('no')", "error"),
        ("1 / 0", "error"),
        ("def f(: pass", "error"),
        ("x = '\0'", "error"),
        ("print('\ud800')", "error"),
        ("print('\\ud800')", "error"),
        ("def f(): f()\nf()", "error"),
        ("import ctypes; ctypes.string_at(0)", "error"),
        *((f"import os; os.kill(os.getpid(), {number})", "error") for number in (6, 9, 11, 14, 15)),
        ("import signal, time; signal.alarm(1); time.sleep(9)", "error"),
        ("print(10 ** 5000)", "error"),
        ("import numpy", "error"),
        ("bytearray(1 << 40)", "memory"),
        ("print(10 ** (10 ** 9))", "timeout"),
        ("print('x' * (1 << 21))", "output"),
    ],
)
def test_how_a_program_ends(run: Run, source: str, status: str) -> None:
    assert run(source, seconds=2.0).status == status


def test_what_it_prints(run: Run) -> None:
    found = run(
        "import sys\nprint(input()); print(sys.stdin.read(), end=''); print('e', file=sys.stderr)", "a é\nb\n\U0001f600"
    )
    assert (found.status, found.stdout, found.stderr) == ("finished", "a é\nb\n\U0001f600", "e\n")


def test_bytes_that_are_no_text(run: Run) -> None:
    assert run("import sys; sys.stdout.buffer.write(b'\\xff6\\0\\n')").stdout == "�6\0\n"


def test_an_error_says_where(run: Run) -> None:
    found = run("x = 1\ndef f(): return x / 0\nf()")
    assert found.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert 'File "program.py", line 3' in found.stderr
    assert "guest" not in found.stderr


def test_output_before_an_error_is_kept(run: Run) -> None:
    assert run("print('before')\n1 / 0").stdout == "before\n"
    assert run("print('before', flush=True)\nwhile True: pass", seconds=0.5).stdout == "before\n"


def test_it_is_the_main_module(run: Run) -> None:
    source = (
        "from __future__ import annotations\n"
        "import sys, dataclasses, pickle\n"
        "@dataclasses.dataclass\n"
        "class Point:\n"
        "    x: int\n"
        "if __name__ == '__main__':\n"
        "    print(pickle.loads(pickle.dumps(Point(3))), sys.argv, sys.modules['__main__'].Point is Point)\n"
    )
    assert run(source).stdout == "Point(x=3) ['program.py'] True\n"


def test_a_large_input_is_read(run: Run) -> None:
    text = "123456789\n" * 2_000_000
    assert run("import sys\nprint(sum(map(len, sys.stdin)))", text, seconds=20.0).stdout == f"{len(text)}\n"


def test_a_large_input_may_be_left_alone(run: Run) -> None:
    assert run("print(1)", "x" * (20 << 20)).stdout == "1\n"


def test_much_of_both_streams_at_once(run: Run) -> None:
    source = (
        "import sys\nfor _ in range(1000):\n    print('o' * 500); print('e' * 500, file=sys.stderr)\nprint(input())"
    )
    found = run(source, "end\n")
    assert found.status == "finished"
    assert len(found.stdout) == 1000 * 501 + 4
    assert found.stderr.endswith("e\n")


def test_deep_recursion(run: Run) -> None:
    deep = "import sys\nsys.setrecursionlimit(10 ** 6)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(100_000))"
    assert run(deep).stdout == "100000\n"
    thread = "import threading\nthreading.stack_size(64 << 20)\nt = threading.Thread(target=print, args=(1,))\n"
    assert run(thread + "t.start(); t.join()").stdout == "1\n"


def test_stacks_of_threads_are_reserved_and_not_held(run: Run, request: pytest.FixtureRequest) -> None:
    if not request.node.callspec.params["backend"].startswith("namespace"):
        pytest.skip("what is reserved counts where nobody looks at what is held")
    large = "import sys, threading\nsys.setrecursionlimit(10 ** 6)\nthreading.stack_size(512 << 20)\n"
    deep = "def f(n): return n and 1 + f(n - 1)\nt = threading.Thread(target=lambda: print(f(50_000)))\n"
    assert run(f"{large}{deep}t.start(); t.join()", memory=512 << 20).stdout == "50000\n"
    assert run("x = bytearray(600 << 20)\nimport time; time.sleep(1)", memory=512 << 20).status == "memory"


def test_who_was_killed(run: Run) -> None:
    assert run("import os; os.kill(os.getpid(), 9)").killed
    ends = ("print(1)", "1 / 0", "x = []\nwhile True: x.append(bytearray(1 << 24))", "import os; os.abort()")
    assert not any(run(source).killed for source in ends)
    assert not run("import signal\nsignal.signal(24, signal.SIG_IGN)\nwhile True: pass", seconds=1.0).killed


def test_a_thread_may_finish_after_the_main_one(run: Run) -> None:
    late = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()\n"
    assert run(late + "print('main')").stdout == "main\nlate\n"


def test_processes_may_be_started(run: Run) -> None:
    source = (
        "import multiprocessing, subprocess, sys\n"
        "print(subprocess.run([sys.executable, '-S', '-c', 'print(5)'], capture_output=True, text=True).stdout)\n"
        "with multiprocessing.Pool(2) as pool: print(pool.map(abs, [1, -2]))\n"
    )
    assert run(source).stdout == "5\n\n[1, 2]\n"


def test_the_library_is_there(run: Run) -> None:
    source = "import bz2, ctypes, decimal, hashlib, lzma, sqlite3, ssl, zlib, asyncio, zoneinfo, unittest\nprint(1)"
    assert run(source).stdout == "1\n"


def test_sets_iterate_in_the_same_order_every_time(run: Run) -> None:
    assert len({run("print({str(n) for n in range(50)})").stdout for _ in range(3)}) == 1


def test_randomness_differs(run: Run) -> None:
    assert len({run("import random; print(random.random())").stdout for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "value",
    [
        0,
        -(10**50),
        1.5,
        1e300,
        -0.0,
        math.inf,
        True,
        None,
        "",
        'é"\\\n\0\ud800😀',
        [],
        {},
        [[], {}],
        {"a": [1, {"b": None}]},
    ],
)
def test_values_pass_unchanged(run: Run, value: Any) -> None:
    found = run("def f(x): return x", call=("f", (value,)))
    assert found.status == "finished"
    assert json.loads(found.returned or "") == value
    assert type(json.loads(found.returned or "")) is type(value)


def test_values_that_json_has_no_word_for(run: Run) -> None:
    found = run("def f(): return (1, {2: 'a', None: 'b', True: 'c', 1.5: 'd'}, float('nan'))", call=("f", ()))
    assert found.returned == '[1,{"2":"a","null":"b","true":"c","1.5":"d"},NaN]'
    kinds = "from collections import *\nCounter.items = lambda self: [('a', 5)]\ndef f(): "
    made = "return [Counter('aa'), defaultdict(int, a=2), OrderedDict(a=2)]"
    assert run(kinds + made, call=("f", ())).returned == '[{"a":2},{"a":2},{"a":2}]'
    deep = "def f():\n    x = []\n    for _ in range({}): x = [x]\n    return x"
    assert run(deep.format(150), call=("f", ())).status == "finished"
    assert run(deep.format(100_000), call=("f", ())).status == "error"
    assert run("def f():\n    x = []; x.append(x); return x", call=("f", ())).status == "error"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def f(a, b): return a - b", "f"),
        ("f = lambda a, b: a - b", "f"),
        ("class Solution:\n    def f(self, a, b): return a - b", "f"),
        ("class Solution:\n    def f(self, a, b): return a - b", "Solution.f"),
        ("class Solution:\n    @staticmethod\n    def f(a, b): return a - b", "f"),
        ("class Solution:\n    def g(self, b): return -b\n    def f(self, a, b): return a + self.g(b)", "f"),
        ("class Other:\n    def f(self, a, b): return a - b", "Other.f"),
        ("def f(a, b): return a - b\nif __name__ == '__main__': print(f(*map(int, input().split())))", "f"),
    ],
)
def test_functions_and_methods_are_found(run: Run, source: str, name: str) -> None:
    assert run(source, call=(name, (7, 5))).returned == "2"


@pytest.mark.parametrize(
    "source", ["", "f = 3", "class Solution: pass", "def f(a): pass", "def f(a, b): raise ValueError"]
)
def test_what_cannot_be_called_is_an_error(run: Run, source: str) -> None:
    found = run(source, call=("f", (7, 5)))
    assert (found.status, found.returned) == ("error", None)
    assert found.stderr


def test_a_call_may_print(run: Run) -> None:
    found = run("def f(): print('said'); return 1", call=("f", ()))
    assert (found.stdout, found.returned) == ("said\n", "1")


def test_too_much_returned(run: Run) -> None:
    found = run("def f(): return 'x' * (1 << 21)", call=("f", ()))
    assert (found.status, found.returned) == ("output", None)


def test_a_child_that_comes_back_returns_nothing(run: Run) -> None:
    source = (
        "import os\ndef f():\n    child = os.fork()\n    if child: os.waitpid(child, 0)\n    return 1 if child else 2"
    )
    assert run(source, call=("f", ())).returned == "1"


def test_time_is_reported(run: Run) -> None:
    assert 0.3 <= run("import time; time.sleep(0.3)").seconds < 2.0
