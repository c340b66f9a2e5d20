"""BFCL v3, the Berkeley Function-Calling Leaderboard: its rows as prompts, its conversations, its verdicts."""

from __future__ import annotations

from typing import Literal

from m2rl_core.interfaces import Episode, SingleTurn
from m2rl_core.types import Prompt, Reward, Trajectory
from m2rl_domain_agent.bfcl import conversation, single
from m2rl_domain_agent.bfcl.answers import gold
from m2rl_domain_agent.bfcl.categories import MULTI_TURN, SUITE
from m2rl_domain_agent.bfcl.suite import PUBLISHED, prompts

__all__ = ["PUBLISHED", "SUITE", "gold", "open", "prompts", "verify"]


def open(prompt: Prompt, history: Literal["keep", "drop"] = "keep") -> Episode:  # noqa: A001  # reads as bfcl.open
    """A conversation for the multi-turn categories, one answer for the others.

    Raises:
        DataError: ``bfcl-eval``, whose classes a conversation needs, is not installed.
    """
    several = prompt.metadata["category"] in MULTI_TURN
    return conversation.Conversation(prompt, history) if several else SingleTurn()


def verify(trajectory: Trajectory) -> Reward:
    """1 where the calls are right as the row's category has it, else 0.

    Raises:
        DataError: the prompt's gold is malformed or missing; for a multi-turn prompt also that ``bfcl-eval``, whose
            classes it needs, is not installed.
    """
    prompt = trajectory.prompt
    if prompt.metadata["category"] in MULTI_TURN:
        return conversation.judge(prompt, trajectory.messages)
    return single.judge(prompt, trajectory.answer)
