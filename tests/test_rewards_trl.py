"""Reward functions in TRL's signature as a domain: how they are called, what they may return, and TRL's own."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import DomainSection
from m2rl_core.errors import ComponentError, ConfigError, DataError
from m2rl_core.interfaces import Domain
from m2rl_core.plugins import load_plugins
from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.study.keys import _covered
from m2rl_core.types import Message, Prompt, Reward, Trajectory

TALK = [{"role": "user", "content": "1 + 1?"}]
ROWS: list[dict[str, Any]] = [
    {"prompt": TALK, "solution": "$2$", "level": 3},
    {"prompt": [{"role": "user", "content": "2 + 2?"}], "solution": "$4$"},
]
RIGHT = "<think>\none more\n</think>\n\\boxed{2}"


def domain(folder: Path, code: str, rows: Sequence[Mapping[str, Any]] = ROWS, **config: Any) -> Domain:
    file, data = folder / "mine.py", folder / "rows.jsonl"
    file.write_text(textwrap.dedent(code))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_plugins([file]).create("domain", {"use": "mine", "source": str(data), **config}, "domains.mine")


def said(prompt: Prompt, text: str) -> Trajectory:
    """What the core hands to a verifier: the answer without its reasoning, the messages with it."""
    return Trajectory(prompt, (Message(role="assistant", content=text),), text.rpartition("</think>")[2])


def rewards(mine: Domain, text: str = RIGHT) -> list[Reward]:
    return [mine.verify(said(prompt, text)) for prompt in mine.prompts("train")]


# ── how functions are called ─────────────────────────────────────────────────────────────────────────────────────────


EVERYTHING = """
def reward(prompts, completions, **kwargs):
    kwargs = {key: value if isinstance(value, list) else "function" for key, value in kwargs.items()}
    assert (prompts, completions, kwargs) == ASKED, (prompts, completions, kwargs)
    return [1.0]
"""


def test_conversations_are_given_as_conversations_with_all_columns(tmp_path: Path) -> None:
    more = {"log_extra": "function", "log_metric": "function"}
    asked = ([TALK], [[{"role": "assistant", "content": RIGHT}]], {"solution": ["$2$"], "level": [3], **more})
    mine = domain(tmp_path, f"ASKED = {asked!r}\n{EVERYTHING}", ROWS[:1])
    assert rewards(mine) == [Reward(1.0, metrics={"reward": 1.0})]


def test_texts_are_given_as_texts(tmp_path: Path) -> None:
    more = {"log_extra": "function", "log_metric": "function"}
    mine = domain(tmp_path, f"ASKED = {(['1 + 1?'], [RIGHT], more)!r}\n{EVERYTHING}", [{"prompt": "1 + 1?"}])
    assert rewards(mine) == [Reward(1.0, metrics={"reward": 1.0})]


def test_a_function_without_kwargs_gets_what_it_names_and_none_where_a_row_lacks_it(tmp_path: Path) -> None:
    code = """
    def reward(completions, level, weight=1):
        return [0.25 if level == [None] else level[0] / 4]
    """
    assert [each.value for each in rewards(domain(tmp_path, code))] == [0.75, 0.25]


def test_a_prompt_and_a_completion_in_a_row_are_no_columns(tmp_path: Path) -> None:
    code = """
    def reward(completions, **kwargs):
        return [float(sorted(kwargs) == ["log_extra", "log_metric", "prompts", "solution"])]
    """
    rows = [{**ROWS[1], "completion": "4", "completion_ids": [1]}]
    assert [each.value for each in rewards(domain(tmp_path, code, rows))] == [1.0]


def test_what_is_logged_becomes_a_metric(tmp_path: Path) -> None:
    code = """
    def reward(completions, log_extra, log_metric, **kwargs):
        log_extra("text", completions)
        log_metric("length", 7.0)
        return [0.5]
    """
    assert rewards(domain(tmp_path, code))[0] == Reward(0.5, metrics={"reward": 0.5, "length": 7.0})


# ── what they return ─────────────────────────────────────────────────────────────────────────────────────────────────


SEVERAL = """
def short(completions, **kwargs): return [1.0]
def hard(completions, level, **kwargs): return [None if level[0] is None else 0.5]
reward = [short, hard]
"""


def test_rewards_are_added_up_and_those_that_do_not_apply_left_out(tmp_path: Path) -> None:
    first, second = rewards(domain(tmp_path, SEVERAL, range=[0, 2]))
    assert first == Reward(0.75, metrics={"short": 1.0, "hard": 0.5})
    assert second == Reward(0.5, metrics={"short": 1.0})


def test_a_range_makes_penalties_rewards(tmp_path: Path) -> None:
    code = "def reward(completions, level, **kwargs): return [-1 if level == [3] else 1]"
    assert [each.value for each in rewards(domain(tmp_path, code, range=[-1, 1]))] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("[None]", "ValueError: none of reward applies to this row: all returned None"),
        ("[1.5]", "ValueError: the rewards add up to 1.5, which is not in 'range: [0, 1]' (reward 1.5)"),
        ("[float('nan')]", "ValueError: the rewards add up to nan"),
        ("1.0", "TypeError: reward returned 1.0, not a list with one reward per completion"),
        ("[1.0, 1.0]", "TypeError: reward returned [1.0, 1.0], not a list with one reward per completion"),
        ("['good']", "ValueError: could not convert string to float: 'good'"),
        ("[1 / 0]", "the reward function failed, mine.py, line 1: ZeroDivisionError"),
    ],
)
def test_what_is_no_reward_is_a_failed_verdict(tmp_path: Path, returned: str, reason: str) -> None:
    [reward] = rewards(domain(tmp_path, f"def reward(completions, **kwargs): return {returned}", ROWS[:1]))
    assert reward.value is None
    assert reason in reward.reason


@pytest.mark.parametrize("limits", [[1, 1], [1, 0]])
def test_a_range_ascends(tmp_path: Path, limits: list[int]) -> None:
    with pytest.raises(ConfigError, match="range should ascend"):
        domain(tmp_path, SEVERAL, range=limits)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def reward(completions, completion_ids, **k): return [1]",
            "reward asks for 'completion_ids', which only TRL's trainer has. Allowed: prompts, completions, log_extra",
        ),
        (
            "def f(completions, **k): return [1]\ndef g(response): return 1\nreward = [f, g]",
            "g does not ask for 'completions', as others in the list do",
        ),
        ("def f(completions): return [1]\nreward = [f, f]", "two reward functions have one name. Found: f, f."),
        ("def reward(completions, /): return [1]", "reward takes 'completions' by its place only; TRL calls by name"),
    ],
)
def test_functions_that_cannot_be_called_do_not_load(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(ComponentError) as caught:
        domain(tmp_path, code)
    assert message in str(caught.value)


def test_a_column_that_no_row_has_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    domain(tmp_path / "other", "def reward(completions, level): return [1]").check()
    with pytest.raises(DataError, match=r"asks for 'levle', which no row of .*rows\.jsonl has\. Found: prompt, sol"):
        domain(tmp_path, "def reward(completions, levle): return [1]").check()


def test_other_files_are_what_they_were(tmp_path: Path) -> None:
    mine = domain(tmp_path, "def reward(response, row): return float(response in row['solution'])")
    assert [each.value for each in rewards(mine, "2")] == [1.0, 0.0]


# ── async, workers, keys ─────────────────────────────────────────────────────────────────────────────────────────────


def test_async_functions_are_awaited_together_with_others(tmp_path: Path) -> None:
    code = """
    import asyncio
    async def remote(completions, level, **kwargs):
        await asyncio.sleep(0)
        return [None if level == [None] else 1.0]
    class Local:
        async def __call__(self, completions, **kwargs): return [0.5]
    reward = [remote, Local(), lambda completions, **kwargs: [0.25]]
    """
    mine = domain(tmp_path, code, range=[0, 2])
    assert mine.remote
    section = DomainSection(use="mine", config={"source": str(tmp_path / "rows.jsonl")})
    with VerifierPool({"mine": Spec.of(mine, section, [str(tmp_path / "mine.py")])}) as pool:
        found = pool.verify_all(("mine", said(prompt, RIGHT)) for prompt in mine.prompts("train"))
    assert [each.reward.value for each in found] == [0.875, 0.375]
    assert found[0].reward.metrics == {"remote": 1.0, "Local": 0.5, "<lambda>": 0.25}


def test_a_stages_key_covers_the_core_behind_it(tmp_path: Path) -> None:
    domain(tmp_path, SEVERAL)
    covered = _covered("domain mine", {"use": "mine"}, load_plugins([tmp_path / "mine.py"]))
    assert "m2rl_core.rewards.trl" in covered["code"]
    assert covered["config"]["range"] == [0.0, 1.0]


# ── TRL's own ────────────────────────────────────────────────────────────────────────────────────────────────────────


TEXTS = [
    RIGHT,
    "<think>a</think>\\boxed{3}",
    "\\boxed{2}",
    "",
    "<think>\na\n</think>\nmy answer is $2$",
    "a a a a a a a a",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["think_format_reward", "accuracy_reward", "reasoning_accuracy_reward"])
def test_trls_functions_say_what_they_say_in_trl(tmp_path: Path, name: str) -> None:
    if "accuracy" in name:
        pytest.importorskip("math_verify", reason="pip install math-verify")
    mine = domain(tmp_path, f"from trl.rewards import {name}\nreward = {name}")
    own = getattr(importlib.import_module("trl.rewards"), name)
    talks = [[{"role": "assistant", "content": text}] for text in TEXTS]
    expected = own(completions=talks, prompts=[TALK] * len(TEXTS), solution=["$2$"] * len(TEXTS))
    section = DomainSection(use="mine", config={"source": str(tmp_path / "rows.jsonl")})
    prompt = next(iter(mine.prompts("train")))
    with VerifierPool({"mine": Spec.of(mine, section, [str(tmp_path / "mine.py")])}) as pool:
        found = pool.verify_all(("mine", said(prompt, text)) for text in TEXTS)
    assert [each.reward.value for each in found] == expected
    assert len(set(expected)) > 1, "the texts tell right from wrong"


@pytest.mark.slow
@pytest.mark.parametrize("made", ["get_soft_overlong_punishment(9, 3)", "get_repetition_penalty_reward(2, -1.0)"])
def test_trls_functions_of_tokens_are_refused(tmp_path: Path, made: str) -> None:
    with pytest.raises(ComponentError, match="asks for 'completion_ids', which only TRL's trainer has"):
        domain(tmp_path, f"from trl.rewards import {made.partition('(')[0]}\nreward = {made}")


STUDY = """
name: trl
plugins: [./mine.py]
model: {dtype: float32}
domains:
  mine: {use: mine, source: rows.jsonl, suites: {mine-test: test.jsonl}, reasoning: "off", range: [0, 2]}
stages:
  init:  {kind: init, domains: [mine], vocab: 384, hidden: 32, layers: 2, ffn: 64, context: 64}
  sft:   {kind: sft, init: init, domains: [mine], conversations: 20, epochs: 20, batch: 10, lr: 3.0e-3}
  rl:    {kind: rl, init: sft, domains: [mine], algorithm: grpo, steps: 2, prompts: 4, group: 4, max_tokens: 4}
"""
CODE = """
def exact(completions, answer, **kwargs):
    return [float(c == a) for c, a in zip(completions, answer)]
def brief(completions, **kwargs):
    return [float(len(c) < 3) for c in completions]
reward = [exact, brief]
"""


@pytest.mark.slow
def test_a_study_trains_on_functions_in_trls_signature(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "answer": str(n % 2), "completion": str(n // 2 % 2)} for n in range(20)]
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text('{"prompt": "21?", "answer": "1"}\n')
    (tmp_path / "study.yaml").write_text(STUDY)
    command = [sys.executable, "-c", "from m2rl_core.cli import main; main()", "run", "study.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "runs" / "trl" / "rl" / "metrics.jsonl").open() as lines:
        steps = [json.loads(line) for line in lines]
    assert all(0.0 < step["reward/mine"] <= 1.0 and step["verifier_failures/mine"] == 0 for step in steps)
