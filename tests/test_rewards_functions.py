"""A reward function in a local file as a domain: what it is given, what it may return, and every way to be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import DomainSection
from m2rl_core.errors import ComponentError, DataError
from m2rl_core.interfaces import Domain
from m2rl_core.plugins import load_plugins
from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.study.keys import _covered
from m2rl_core.types import Message, Prompt, Reward, Trajectory

ROWS: list[dict[str, Any]] = [
    {"prompt": "1 + 1?", "answer": "2", "completion": "<think>one more</think>2"},
    {"prompt": [{"role": "system", "content": "Count."}, {"role": "user", "content": "2 + 2?"}], "answer": "4"},
    {"question": "3 + 3?", "answer": "6"},
]
TWO_LINES = """\
def reward(response, row):
    return float(row["answer"] in response)
"""


def written(folder: Path, code: str = TWO_LINES, rows: Sequence[Mapping[str, Any]] = ROWS) -> tuple[Path, Path]:
    """A file with a reward function, and one with rows."""
    file, data = folder / "my_reward.py", folder / "rows.jsonl"
    file.write_text(textwrap.dedent(code))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file, data


def domain(folder: Path, code: str = TWO_LINES, rows: Sequence[Mapping[str, Any]] = ROWS, **config: Any) -> Domain:
    file, data = written(folder, code, rows)
    use = {"use": "my_reward", "source": str(data), **config}
    return load_plugins([file]).create("domain", use, "domains.mine")


def said(prompt: Prompt, answer: str) -> Trajectory:
    return Trajectory(prompt, (Message(role="assistant", content=answer),), answer)


def reward_of(mine: Domain, answer: str = "2") -> Reward:
    return mine.verify(said(next(iter(mine.prompts("train"))), answer))


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_are_prompts_and_those_with_a_completion_are_demonstrations(tmp_path: Path) -> None:
    mine = domain(tmp_path, suites={"mine-test": str(tmp_path / "rows.jsonl")})
    prompts = list(mine.prompts("train"))
    assert [prompt.messages[-1]["content"] for prompt in prompts] == ["1 + 1?", "2 + 2?", "3 + 3?"]
    assert [len(prompt.messages) for prompt in prompts] == [1, 2, 1]
    assert [prompt.id for prompt in mine.prompts("mine-test")] == [f"mine-test/00000{i}" for i in range(3)]
    [shown] = mine.demonstrations()
    assert [message["content"] for message in shown.messages] == ["1 + 1?", "<think>one more</think>2"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": 1}, "rows.jsonl, row 1 asks nothing. Found: answer. Allowed: a 'prompt', text or a list"),
        ({"prompt": " "}, "rows.jsonl, row 1 asks nothing. Found: prompt."),
        ({"prompt": [{"role": "user"}]}, "rows.jsonl, row 1 asks nothing. Found: prompt."),
    ],
)
def test_a_row_that_asks_nothing_is_named_before_training(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        domain(tmp_path, rows=[row]).check()
    assert message in str(caught.value)


@pytest.mark.parametrize("completion", ["", 3, [{"role": "assistant"}], [{"role": "user", "content": "no"}]])
def test_a_completion_that_teaches_nothing_is_named(tmp_path: Path, completion: object) -> None:
    mine = domain(tmp_path, rows=[ROWS[0], {"prompt": "?", "completion": completion}])
    with pytest.raises(DataError, match=r"rows\.jsonl, row 2 has no completion that can be learned from: "):
        list(mine.demonstrations())


def test_a_row_of_a_suite_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    held_out = tmp_path / "test.jsonl"
    held_out.write_text('{"answer": "0", "prompt": "0 + 0?"}\n{"answer": "6", "question": "3 + 3?"}\n')
    with pytest.raises(
        DataError, match="suite 'mine-test' holds a row that is trained on: mine-test/000001 is train/0"
    ):
        domain(tmp_path, suites={"mine-test": str(held_out)}).check()
    held_out.write_text('{"answer": "0", "prompt": "0 + 0?"}\n')
    domain(tmp_path, suites={"mine-test": str(held_out)}).check()


def test_without_rows_there_is_advice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'my_reward' has no rows\. Next: name a file of them: 'source: rows\.jsonl'"):
        domain(tmp_path, source="").check()
    with pytest.raises(DataError, match=r"'my_reward' has no prompts 'tran'\. Allowed: train\."):
        domain(tmp_path).prompts("tran")


# ── the function ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (TWO_LINES, 1.0),
        ("def reward(prompt, response, row): return (prompt, response, row['answer']) == ('1 + 1?', '2', '2')", 1.0),
        ("def reward(row, *, response, strict=False): return 0", 0.0),
        ("import numpy\ndef reward(): return numpy.float32(0.25)", 0.25),
        ("reward = lambda response: len(response) / 4", 0.25),
        ("class Judge:\n    def __call__(self, response): return 1\nreward = Judge()", 1.0),
        ("from m2rl_core.types import Reward\ndef reward(): return Reward(0.5, 'half', {'x': 1.0})", 0.5),
    ],
)
def test_a_function_is_given_what_it_asks_for_by_name(tmp_path: Path, code: str, value: float) -> None:
    assert reward_of(domain(tmp_path, code)).value == value


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "def reward(): pass",
            "TypeError: it returned None, not a number in [0, 1]: is there a 'return' on every path?",
        ),
        ("def reward(): return 'good'", "TypeError: it returned 'good', of type str, not a number in [0, 1]"),
        ("def reward(): return [1.0]", "TypeError: it returned [1.0], of type list, not a number in [0, 1]"),
        ("def reward(): return float('nan')", "ValueError: it returned nan; a reward lies in [0, 1]"),
        ("def reward(): return -1", "ValueError: it returned -1; a reward lies in [0, 1]"),
        ("\ndef reward(row):\n    return row['gold']", ", my_reward.py, line 3: KeyError: 'gold'"),
        ("def half(x): return x / 0\ndef reward(): return half(1)", ", my_reward.py, line 1: ZeroDivisionError: "),
    ],
)
def test_a_function_that_fails_gives_no_reward_but_the_reason(tmp_path: Path, code: str, reason: str) -> None:
    reward = reward_of(domain(tmp_path, code))
    assert reward.value is None
    assert reward.reason.startswith("the reward function failed")
    assert reason in reward.reason


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "x = 1",
            "it offers nothing: there is no function 'reward' and no hook such as m2rl_domains. Next: define 'def re",
        ),
        ("reward = 1.0", "it offers nothing: there is no function 'reward'"),
        ("def rewards(response): return 1", "it offers nothing: there is no function 'reward'"),
        (
            "def reward(promt): return 1",
            "reward(promt) asks for 'promt'. Did you mean 'prompt'? Allowed: prompt, response,",
        ),
        ("def reward(response, /): return 1", "reward(response) asks for 'response'."),
        ("def reward(*args): return 1", "reward(*args) asks for 'args'."),
        ("def reward(response, **more): return 1", "reward(response, **more) asks for 'more'."),
    ],
)
def test_a_file_without_a_usable_function_does_not_load(tmp_path: Path, code: str, message: str) -> None:
    file, _ = written(tmp_path, code)
    with pytest.raises(ComponentError) as caught:
        load_plugins([file])
    assert f"plugins: {file} did not load: {message}" in str(caught.value)


def test_a_file_is_called_as_a_domain_may_be(tmp_path: Path) -> None:
    file, _ = written(tmp_path)
    with pytest.raises(ComponentError, match=r"a domain is called like its file\. Found: My Reward\. Allowed: a-z"):
        load_plugins([file.rename(tmp_path / "My Reward.py")])


def test_a_name_that_is_taken_is_told_with_both_ways_out(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [written(tmp_path)[0], written(tmp_path / "other")[0]]
    with pytest.raises(ComponentError, match=r"domain 'my_reward' of .* is refused.*Next: rename the file, or disable"):
        load_plugins(files)


def test_hooks_come_before_a_function(tmp_path: Path) -> None:
    file, _ = written(
        tmp_path, TWO_LINES + "from m2rl_core.hookspecs import hookimpl\n@hookimpl\ndef m2rl_step_end(): 0"
    )
    registry = load_plugins([file])
    assert [observer.distribution for observer in registry.observers] == [str(file)]
    assert "my_reward" not in registry.names("domain")


# ── in a worker ──────────────────────────────────────────────────────────────────────────────────────────────────────


WILD = """
import os, time
def reward(response):
    if response == "hang":
        time.sleep(1000)
    if response == "spin":
        while True: pass
    if response == "die":
        os.abort()
    if response == "exit":
        raise SystemExit(3)
    return "API_KEY" in os.environ
"""


def test_a_wild_function_is_killed_and_the_next_one_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "this is a secret")
    mine = domain(tmp_path, WILD, seconds=1.0)
    section = DomainSection(use="my_reward", config={"source": str(tmp_path / "rows.jsonl"), "seconds": 1.0})
    spec = Spec.of(mine, section, [str(tmp_path / "my_reward.py")])
    prompt = next(iter(mine.prompts("train")))
    words = ["hang", "spin", "die", "exit", "fine"]
    with VerifierPool({"mine": spec}) as pool:
        found = pool.verify_all(("mine", said(prompt, word)) for word in words)
    assert [each.reward.value for each in found] == [None, None, None, None, 0.0]
    reasons = [each.reward.reason for each in found]
    assert reasons[0] == "verifier exceeded 2 s (domain mine)"
    assert "verifier exceeded" in reasons[1]
    assert "the verifier worker died: Aborted" in reasons[2]
    assert reasons[3] == "SystemExit: 3 (domain mine)"


def test_an_async_function_is_awaited_where_the_core_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_URL", "http://judge")
    code = """
    import asyncio, os
    async def reward(response):
        await asyncio.sleep(0)
        return {"right": 1, "junk": None}[response] if os.environ["JUDGE_URL"] else 0
    """
    mine = domain(tmp_path, code)
    assert mine.remote
    spec = Spec.of(mine, DomainSection(use="my_reward"), [str(tmp_path / "my_reward.py")])
    prompt = next(iter(mine.prompts("train")))
    with VerifierPool({"mine": spec}) as pool:
        found = pool.verify_all(("mine", said(prompt, word)) for word in ("right", "junk", "else"))
    assert [each.reward.value for each in found] == [1.0, None, None]
    assert "my_reward.py, line 5: KeyError: 'else'" in found[2].reward.reason


def test_a_stages_key_covers_the_function_its_rows_and_the_core_behind_it(tmp_path: Path) -> None:
    file, data = written(tmp_path)
    registry = load_plugins([file])
    use = {"use": "my_reward", "source": str(data)}
    covered = _covered("domain mine", use, registry)
    assert "m2rl_core.rewards.functions" in covered["code"]
    file.write_text(TWO_LINES + "# changed\n")
    other = _covered("domain mine", use, registry)
    assert other["code"]["domain my_reward"] != covered["code"]["domain my_reward"]
    data.write_text('{"prompt": "other?"}\n')
    assert _covered("domain mine", use, registry)["config"] != covered["config"]


# ── in a study ───────────────────────────────────────────────────────────────────────────────────────────────────────


STUDY = """
name: mine
plugins: [./my_reward.py]
model: {dtype: float32}
domains:
  mine: {use: my_reward, source: rows.jsonl, suites: {mine-test: test.jsonl}, reasoning: "off"}
stages:
  init:  {kind: init, domains: [mine], vocab: 384, hidden: 32, layers: 2, ffn: 64, context: 64}
  sft:   {kind: sft, init: init, domains: [mine], conversations: 20, epochs: 20, batch: 10, lr: 3.0e-3}
  rl:    {kind: rl, init: sft, domains: [mine], algorithm: grpo, steps: 3, prompts: 4, group: 4, max_tokens: 4}
  evals: {kind: eval, models: [sft, rl], suites: [mine-test]}
"""
GUESSES = [{"prompt": f"{n}?", "answer": str(n % 2), "completion": str(n // 2 % 2)} for n in range(20)]


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """A study of 20 questions with two possible answers, half of whose demonstrations are wrong."""
    written(folder, code, GUESSES)
    (folder / "test.jsonl").write_text('{"prompt": "21?", "answer": "1"}\n')
    (folder / "study.yaml").write_text(STUDY)
    command = [sys.executable, "-c", "from m2rl_core.cli import main; main()", "run", "study.yaml"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.slow
def test_two_lines_are_enough_to_train_and_to_evaluate(tmp_path: Path) -> None:
    done = run(tmp_path, TWO_LINES)
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs" / "mine"
    steps = [json.loads(line) for line in (runs / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 3
    assert any(0.0 < step["reward/mine"] < 1.0 and step["grad_norm"] > 0.0 for step in steps)
    assert json.loads((runs / "evals" / "rl" / "mine-test" / "scores.json").read_text())["prompts"] == 1


@pytest.mark.slow
def test_a_function_that_fails_stops_its_stage_and_says_where(tmp_path: Path) -> None:
    done = run(tmp_path, "def reward(response, row):\n    return row['gold']")
    assert done.returncode == 1
    told = " ".join((done.stdout + done.stderr).split())
    assert "16 of 16 verdicts failed, the first in domain 'mine' at prompt train/" in told
    assert "the reward function failed, my_reward.py, line 2: KeyError: 'gold'" in told
    assert "mend the verifier, then run the same command again" in told
