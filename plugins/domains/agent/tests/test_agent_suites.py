"""BFCL v3 as a suite of the domain: found by its setting, and routed to its own episodes and verdicts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Message, Prompt, Trajectory
from m2rl_domain_agent import Agent
from m2rl_domain_agent.calls import Call, text_of

ASK = {
    "name": "ask",
    "description": "Asks.",
    "parameters": {"type": "dict", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
}
PROMPT = Prompt(
    "bfcl-v3/simple_0",
    "agent",
    (Message(role="user", content="Ask 7."),),
    [{"ask": {"x": [7]}}],
    {"suite": "bfcl-v3", "category": "simple", "functions": [ASK]},
    ({"type": "function", "function": ASK},),
)


def judged(domain: Agent, text: str) -> float | None:
    trajectory = Trajectory(PROMPT, (Message(role="assistant", content=text),), text)
    verify = domain.verify_remote(trajectory)
    remote = asyncio.run(verify).value
    assert domain.verify(trajectory).value == remote
    return remote


@pytest.mark.parametrize("environment", [{"use": "workplace"}, {"use": "nemo-gym", "url": "http://127.0.0.1:9"}])
def test_its_prompts_have_their_own_episodes_and_verdicts(environment: dict[str, Any]) -> None:
    domain = Agent(Agent.Config.model_validate({"environment": environment, "source": "rows.jsonl"}))
    assert domain.open(PROMPT).max_turns == 1
    assert judged(domain, text_of([Call("ask", {"x": 7})])) == 1.0
    assert judged(domain, text_of([Call("ask", {"x": 8})])) == 0.0
    assert judged(domain, str(domain.gold(PROMPT))) == 1.0


def test_without_a_copy_it_says_how_to_get_one() -> None:
    domain = Agent(Agent.Config())
    assert set(domain.suites) == {"agent-heldout", "agent-hard", "bfcl-v3"}
    assert "bfcl-eval" in domain.suites["bfcl-v3"].missing
    with pytest.raises(DataError, match=r"bfcl-eval.*domains\.agent\.bfcl_v3"):
        domain.prompts("bfcl-v3")
    domain.check()


def test_a_copy_that_is_none_is_a_data_error() -> None:
    domain = Agent(Agent.Config(bfcl_v3="/no/such/folder"))
    assert domain.suites["bfcl-v3"].source == "/no/such/folder"
    with pytest.raises(DataError, match="bfcl-v3"):
        domain.check()
