"""Environments of the real package: as domains hold their contract, in a worker, in a study; and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import DomainSection
from m2rl_core.errors import DataError
from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.testing import DomainContract
from m2rl_core.types import Message, Prompt, Reward, Trajectory
from m2rl_domain_verifiers import Verifiers

pytest.importorskip("verifiers.v1", reason="pip install 'verifiers>=0.4,<0.5'")

HERE = Path(__file__).parent
README = (HERE.parent / "README.md").read_text()


def questions(domain: Verifiers, split: str) -> set[str]:
    return {prompt.messages[-1]["content"] for prompt in domain.prompts(split)}


def built(environment: str = "little-sums", **config: Any) -> Verifiers:
    return Verifiers(Verifiers.Config.model_validate({"environment": environment, "heldout": 10, **config}))


def said(prompt: Prompt, text: str, *, truncated: bool = False) -> Trajectory:
    """What the core hands to a verifier: the answer without its reasoning, the messages with it."""
    answer = text.rpartition("</think>")[2].strip()
    return Trajectory(prompt, (Message(role="assistant", content=text),), answer, truncated)


@pytest.fixture(scope="class")
def sums(request: pytest.FixtureRequest, installed: None) -> None:
    request.cls.domain = built()


@pytest.mark.usefixtures("sums")
class TestVerifiers(DomainContract):
    secret = False  # 0 + 3

    def gold(self, prompt: Prompt) -> str:
        return str((prompt.ground_truth or {}).get("answer", 0))


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tasks_become_prompts_with_their_system_prompt_and_data() -> None:
    sums = built(heldout=0)
    assert not sums.suites
    prompts = sums.prompts("train")
    assert len(prompts) == 100
    assert [message["role"] for message in prompts[12].messages] == ["system", "user"]
    assert prompts[12].messages[1]["content"] == "1 + 2 = ?"
    assert prompts[12].id == "task/000012"
    assert prompts[12].ground_truth["answer"] == 3


def test_settings_reach_the_environment_and_the_number_of_tasks_is_cut() -> None:
    assert len(built(args={"largest": 4}, heldout=0).prompts("train")) == 25
    assert [prompt.id for prompt in built(tasks=3, heldout=0).prompts("train")] == [f"task/00000{n}" for n in range(3)]


def test_what_is_held_out_is_a_sample_that_does_not_depend_on_other_tasks() -> None:
    few, many = built(args={"largest": 8}, heldout=20), built(heldout=20)
    held_out = questions(many, many.suite)
    assert len(held_out) == 20
    assert held_out.isdisjoint(questions(many, "train"))
    in_order = [prompt.messages[-1]["content"] for prompt in built(heldout=0).prompts("train")]
    assert held_out not in (set(in_order[:20]), set(in_order[-20:]))
    assert held_out.isdisjoint(questions(few, "train"))


def test_the_same_question_falls_on_one_side(environment: Callable[[str], str]) -> None:
    twice = environment("\nclass Twice(LittleSums):\n    def load(self):\n        yield from super().load()\n"
                        "        yield from super().load()\n\n__all__ = ['Twice']\n")  # fmt: skip
    doubled = built(twice, args={"largest": 3}, heldout=5)
    assert len(questions(doubled, doubled.suite)) == 5
    assert questions(doubled, doubled.suite).isdisjoint(questions(doubled, "train"))
    assert len(doubled.prompts(doubled.suite)) == 10


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rewards_are_weighted_and_metrics_kept() -> None:
    sums = built()
    prompt = sums.prompts("train")[0]
    right = str(prompt.ground_truth["answer"])
    assert sums.verify(said(prompt, f"<think>\nwell\n</think>\n\n{right}")) == Reward(
        1.0, metrics={"characters": float(len(right)), "right": 1.0, "brief": 1.0}
    )
    assert sums.verify(said(prompt, right, truncated=True)).value == 0.9
    assert sums.verify(said(prompt, "no")).value == 0.0


def test_verdicts_are_those_of_the_package_itself() -> None:
    """Against a trace that the package's own graph has recorded, as when a model answers its trainer."""
    import asyncio

    import verifiers.v1 as vf
    from verifiers.v1.types import AssistantMessage, SystemMessage, UserMessage

    sums = built()
    task = next(iter(sums.environment.tasks()))
    for text in ("0", "<think>a</think>0", "1", ""):
        answer = text.rpartition("</think>")[2]
        messages = [
            SystemMessage(content=task.data.system_prompt),
            UserMessage(content=task.data.prompt),
            AssistantMessage(content=answer),
        ]
        nodes = [
            vf.MessageNode(message=message, parent=place - 1 if place else None, sampled=place == 2)
            for place, message in enumerate(messages)
        ]
        agent = vf.AgentInfo(config=vf.AgentConfig())
        trace = vf.Trace(task=vf.TraceTask(type="SumTask", data=task.data), agent=agent, nodes=nodes)
        asyncio.run(task.score(trace))
        prompt = Prompt("p", "verifiers", sums.environment.asked(task), sums.environment.stored(task))
        assert sums.verify(said(prompt, text)).value == pytest.approx(trace.reward)


def test_a_worker_says_the_same() -> None:
    config = {"environment": "little-sums", "heldout": 10}
    sums = built()
    prompt = sums.prompts("train")[0]
    spec = Spec.of(sums, DomainSection(use="verifiers", config=config))
    texts = [str(prompt.ground_truth["answer"]), "no"]
    with VerifierPool({"sums": spec}) as pool:
        found = pool.verify_all(("sums", said(prompt, text)) for text in texts)
    assert [each.reward.value for each in found] == [1.0, 0.0]


def test_sums_outside_the_range_are_failed_verdicts(environment: Callable[[str], str]) -> None:
    code = """
async def penalty(self, trace: vf.Trace) -> float:
    return -1.0
SumTask.penalty = vf.reward(penalty)
"""
    name = environment(code)
    strict, wide = built(name), built(name, range=[-1, 1])
    prompt = strict.prompts("train")[0]
    with pytest.raises(DataError, match=r"add up to -1 \(.*penalty -1.*\)\. Allowed: 0 to 1\. Next: set 'range'"):
        strict.verify(said(prompt, "no"))
    assert wide.verify(said(prompt, "no")).value == 0.0
    assert wide.verify(said(prompt, str(prompt.ground_truth["answer"]))).value == 0.5


def test_an_environments_error_is_its_own(environment: Callable[[str], str]) -> None:
    name = environment("\nasync def broken(self, trace):\n    return 1 / 0\nSumTask.broken = vf.reward(broken)\n")
    broken = built(name)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        broken.verify(said(broken.prompts("train")[0], "1"))


def test_hooks_around_the_turn_are_called_where_they_need_no_runtime(environment: Callable[[str], str]) -> None:
    code = """
async def setup(self, trace):
    trace.info["ready"] = 1
async def finalize(self, trace):
    trace.info["length"] = len(trace.last_reply)
async def hooked(self, trace):
    return float(trace.info == {"ready": 1, "length": 3})
SumTask.setup, SumTask.finalize, SumTask.hooked = setup, finalize, vf.reward(hooked)
"""
    hooked = built(environment(code))
    hooked.check()
    assert hooked.verify(said(hooked.prompts("train")[0], "abc")).metrics["hooked"] == 1.0


def test_a_prompt_of_another_domain_is_refused() -> None:
    sums = built()
    prompt = dataclasses.replace(sums.prompts("train")[0], ground_truth="3")
    with pytest.raises(DataError, match=r"prompt 'task/.*' holds no task of 'little-sums'"):
        sums.verify(said(prompt, "3"))


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


OBSTACLES = {
    "its tasks have tools": """
class Tools(vf.Toolset[vf.ToolsetConfig]):
    @vf.tool
    def echo(self, text: str) -> str:
        "Say it again."
        return text
SumTask.toolsets = classmethod(lambda cls, config: [Tools(vf.ToolsetConfig())])
""",
    "its tasks need a container": "\nSumTask.NEEDS_CONTAINER = True\n",
    "SumTask.run needs a runtime": """
async def run(self, trace, runtime):
    return 1.0
SumTask.run = vf.reward(run)
""",
    "SumTask.setup needs a runtime": """
async def setup(self, trace, runtime):
    await runtime.run(["true"], {})
SumTask.setup = setup
""",
    "its agents are run by its own Both": """
class Both(vf.Env[vf.SingleAgentEnvConfig]):
    async def run(self, task, agents):
        await agents.agent.run(task)
__all__ = ["LittleSums", "Both"]
""",
    "its tasks rewrite what is said on the way": """
@vf.intercept
async def censor(self, response: vf.Trace):
    return None
SumTask.censor = censor
""",
    "its tasks have no reward": "\ndel SumTask.right, SumTask.brief\n",
}


@pytest.mark.parametrize("reason", OBSTACLES)
def test_what_cannot_be_played_in_one_turn_is_refused(environment: Callable[[str], str], reason: str) -> None:
    name = environment(OBSTACLES[reason])
    with pytest.raises(DataError, match=re.escape(f"the environment '{name}' cannot be used: {reason}")):
        built(name).check()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("prompt=None", "task 0 of '.*' asks nothing"),
        ("prompt='?', image='python:3.12'", "task 0 of '.*' needs a container"),
        ("prompt=[{'role': 'assistant', 'content': 'Hm.'}]", "task 0 of '.*' does not end with the user's message"),
        (
            "prompt=[{'role': 'user', 'content': [{'type': 'text', 'text': '?'}]}]",
            "task 0 of '.*' has a message that is more than text",
        ),
    ],
)
def test_tasks_that_do_more_than_ask_are_refused(environment: Callable[[str], str], data: str, message: str) -> None:
    code = f"\nLittleSums.load = lambda self: [SumTask(SumData({data}, answer=1), self.config.task)]\n"
    with pytest.raises(DataError, match=message):
        built(environment(code), heldout=0).prompts("train")


def test_other_refusals_say_what_to_do(environment: Callable[[str], str]) -> None:
    with pytest.raises(DataError, match=r"there is no environment 'owner/nowhere'.*Next: install its package"):
        built("owner/nowhere")
    with pytest.raises(DataError, match=r"'json' is no environment of verifiers.v1"):
        built("json")
    with pytest.raises(DataError, match=r"'little-sums' refuses its settings: args.largets: .*Allowed: .*largest"):
        built(args={"largets": 3})
    with pytest.raises(DataError, match=r"has 100 different tasks, and 100 are held out. Next: lower 'heldout'"):
        built(heldout=100).prompts("train")
    with pytest.raises(DataError, match=r"has no prompts 'test'. Allowed: train, little-sums-heldout"):
        built().prompts("test")
    with pytest.raises(DataError, match=r"have no end. Next: say how many: 'tasks: 1000'"):
        built(environment("\nLittleSums.INFINITE = True\n")).check()


def test_judges_make_it_remote() -> None:
    assert not built().remote
    assert built(remote=True).remote
    assert built(args={"task": {"judges": [{"id": "reference"}]}}).remote


# ── the README ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_readmes_study_trains_on_the_readmes_environment(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", README, re.S)
    study = re.findall(r"```yaml\n(.*?)```", README, re.S)[-1]
    (tmp_path / "counting.py").write_text(code)
    (tmp_path / "study.yaml").write_text(study)
    command = [sys.executable, "-c", "from m2rl_core.cli import main; main()", "run", "study.yaml"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    [runs] = (tmp_path / "runs").iterdir()
    with (runs / "rl" / "metrics.jsonl").open() as lines:
        steps = [json.loads(line) for line in lines]
    assert len(steps) == 2
    assert all(step["verifier_failures/counting"] == 0 and 0.0 <= step["reward/counting"] <= 1.0 for step in steps)
    assert json.loads((runs / "evals" / "rl" / "counting-heldout" / "scores.json").read_text())["prompts"] == 20
    shutil.rmtree(tmp_path / "runs")
