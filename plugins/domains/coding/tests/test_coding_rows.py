"""Training rows: the blend's schema, NeMo-Gym's rows, and SandboxFusion's problems with programs written for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_coding import Coding

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
ROWS, CONTESTS, LCB = (
    SHARED / name
    for name in ("rows/code_gen.jsonl", "suites/code_contests_10.jsonl", "suites/livecodebench_v1_3.jsonl")
)
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared beside the repository")
BLEND = "nano_v3_sft_profiled_comp_coding_50tests"


def row(dataset: str | None = BLEND, asked: str = "Add up.", **tests: Any) -> dict[str, Any]:
    unit_tests = {"inputs": ["1 2\n"], "outputs": ["3\n"], **tests}
    return {
        "dataset": dataset,
        "responses_create_params": {"input": [{"role": "user", "content": asked}]},
        "verifier_metadata": {"unit_tests": unit_tests},
    }


def domain_of(folder: Path, *listed: object) -> Coding:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in listed))
    return Coding(Coding.Config(source=str(path)))


def value(domain: Coding, prompt: Prompt, source: str) -> float | None:
    return domain.verify(Trajectory(prompt, (), f"```python\n{source}\n```")).value


def test_reads_the_blend_schema_and_judges_by_its_tests(tmp_path: Path) -> None:
    listed = [row(), row("other"), row("taco"), row(None, fn_name="f", inputs=["1\n2"], outputs=["3"])]
    domain = domain_of(tmp_path, *listed)
    domain.check()
    first, second, third = domain.prompts("train")
    assert [prompt.id for prompt in (first, second, third)] == ["train/000000", "train/000001", "train/000002"]
    assert first.messages[0]["content"] == "Add up."
    assert domain.gold(first) is None
    assert value(domain, first, "print(sum(map(int, input().split())))") == 1.0
    assert value(domain, first, "print(4)") == 0.0
    assert value(domain, third, "def f(x, y): return x + y") == 1.0
    assert value(domain, third, "def f(x, y): return x - y") == 0.0
    assert not set(domain.suites) - set(domain.published)
    assert not list(domain.demonstrations())


@pytest.mark.parametrize(
    "bad",
    [
        {**row(), "verifier_metadata": None},
        {**row(), "verifier_metadata": {}},
        row(inputs=[]),
        row(inputs=[], outputs=[]),
        row(outputs=[" "]),
        row(inputs=[7]),
        row(fn_name="f"),
        row(asked=7),  # type: ignore[arg-type]
        {**row(), "_hf_placeholder": {"row": 1}},
    ],
)
def test_a_bad_row_stops_the_check_and_is_named(tmp_path: Path, bad: object) -> None:
    domain = domain_of(tmp_path, row(), bad, row())
    with pytest.raises(DataError, match=r"rows\.jsonl, row 2"):
        domain.check()
    prompts = domain.prompts("train")
    next(prompts)
    with pytest.raises(DataError):
        next(prompts)
    assert next(prompts).messages[0]["content"] == "Add up."


def test_a_sound_data_set_has_its_sandbox_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="allow_weak_isolation"):
        Coding(Coding.Config.model_validate({"sandbox": {"use": "rlimit"}})).check()


@needs_shared
def test_real_rows_load() -> None:
    domain = Coding(Coding.Config(source=str(ROWS)))
    domain.check()
    prompts = list(domain.prompts("train"))
    assert [len(prompt.metadata["unit_tests"]["inputs"]) for prompt in prompts] == [1, 97, 100, 82, 3]
    for prompt in prompts:
        assert "python" in prompt.messages[-1]["content"]
        assert value(domain, prompt, "print(0)") == 0.0


DIGIT_JUMP = """
from collections import deque
s = input().strip()
places = {d: [i for i, c in enumerate(s) if c == d] for d in set(s)}
steps = {0: 0}
queue = deque([0])
while queue:
    here = queue.popleft()
    for there in [here - 1, here + 1, *places.pop(s[here], [])]:
        if 0 <= there < len(s) and there not in steps:
            steps[there] = steps[here] + 1
            queue.append(there)
print(steps[len(s) - 1])
"""
SHIRTS = """
from collections import Counter
n = int(input())
old = Counter(input().strip() for _ in range(n))
new = Counter(input().strip() for _ in range(n))
print(sum((old - new).values()))
"""
EDGY = """
n, k = map(int, input().split())
parent = list(range(n + 1))
def find(x):
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x
for _ in range(n - 1):
    u, v, black = map(int, input().split())
    if not black:
        parent[find(u)] = find(v)
sizes = {}
for x in range(1, n + 1):
    sizes[find(x)] = sizes.get(find(x), 0) + 1
print((n ** k - sum(s ** k for s in sizes.values())) % (10 ** 9 + 7))
"""
HILLS = """
M = 998244353
n = int(input())
a = list(map(int, input().split()))
# same[v], up[v]: ways so far that end with v, whose left neighbour is at least v, or smaller
allowed = lambda x: range(1, 201) if x < 0 else [x]
same, up = [0] * 202, [0] * 202
for v in allowed(a[0]):
    up[v] = 1
for x in a[1:]:
    less, equal_or_more = [0] * 202, [0] * 203
    for v in range(1, 202):
        less[v] = (less[v - 1] + same[v - 1] + up[v - 1]) % M
    for v in range(200, 0, -1):
        equal_or_more[v] = (equal_or_more[v + 1] + same[v]) % M
    new_same, new_up = [0] * 202, [0] * 202
    for v in allowed(x):
        new_same[v] = (equal_or_more[v] + up[v]) % M
        new_up[v] = less[v]
    same, up = new_same, new_up
print(sum(same) % M)
"""
PROGRAMS = {
    2: (DIGIT_JUMP, DIGIT_JUMP.replace(", *places.pop(s[here], [])", "")),
    3: (SHIRTS, SHIRTS.replace("old - new", "old")),
    6: (HILLS, HILLS.replace("sum(same)", "(sum(same) + sum(up))")),
    9: (EDGY, EDGY.replace("if not black", "if black")),
}


@needs_shared
@pytest.mark.parametrize("number", PROGRAMS)
def test_contest_problems_tell_right_from_wrong(number: int) -> None:
    domain = Coding(Coding.Config(source=str(CONTESTS), total_seconds=30.0))
    prompt = list(domain.prompts("train"))[number]
    right, wrong = PROGRAMS[number]
    assert right != wrong
    assert domain.verify(Trajectory(prompt, (), f"```python{right}\n```")).reason.endswith(" tests")
    assert value(domain, prompt, wrong) == 0.0


@needs_shared
def test_contest_problems_all_load() -> None:
    domain = Coding(Coding.Config(source=str(CONTESTS)))
    domain.check()
    prompts = list(domain.prompts("train"))
    assert len(prompts) == 10
    assert all(prompt.messages[0]["content"].endswith("ends with ```.") for prompt in prompts)


WINNER = "n = int(input())\ns = input().strip()\nt, a = s.count('T'), s.count('A')\nprint({})"


@needs_shared
def test_packed_problems_tell_right_from_wrong() -> None:
    prompts = list(Coding(Coding.Config(source=str(LCB))).prompts("train"))
    domain = Coding(Coding.Config(source=str(LCB)))
    letters, passengers, games = prompts
    assert all("```python" in prompt.messages[0]["content"] for prompt in prompts)
    swap = "for _ in range(int(input())):\n    s = input().strip()\n    print('YES' if s {} else 'NO')"
    assert value(domain, letters, swap.format("in ('abc', 'acb', 'bac', 'cba')")) == 1.0
    assert value(domain, letters, swap.format("== 'abc'")) == 0.0
    last = "'T' if t > a else 'A' if a > t else 'AT'[s[-1] == 'A']"
    assert value(domain, games, WINNER.format(last)) == 1.0
    assert value(domain, games, WINNER.format("'T' if t > a else 'A'")) == 0.0
    seniors = "class Solution:\n    def countSeniors(self, details: List[str]) -> int:\n        {}"
    assert value(domain, passengers, seniors.format("return sum(int(d[11:13]) > 60 for d in details)")) == 1.0
    assert value(domain, passengers, seniors.format("return sum(int(d[11:13]) >= 60 for d in details)")) == 0.0
