"""What a resources server is sent: the row that an episode is about, and the episode as an OpenAI response."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from m2rl_core.types import Prompt
from m2rl_domain_agent.calls import OPEN, THOUGHT, Call
from m2rl_domain_agent.prompts import responses_tool

__all__ = ["row_of", "verify_request"]

_Turns = Sequence[tuple[str, tuple[Call, ...]]]


def row_of(prompt: Prompt) -> dict[str, Any]:
    """The row of the blend that ``prompt`` was made of."""
    asked = {
        "input": [dict(message) for message in prompt.messages],
        "tools": [responses_tool(tool) for tool in prompt.tools],
        "parallel_tool_calls": prompt.metadata.get("parallel_tool_calls", False),
    }
    rest = {"id": 0, "category": "", "environment_name": "", **prompt.metadata.get("row", {})}
    return {**rest, "responses_create_params": asked, "ground_truth": prompt.ground_truth}


def verify_request(
    prompt: Prompt, turns: _Turns, answers: Sequence[str], is_sent: Callable[[Call], bool]
) -> dict[str, Any]:
    """The body of ``/verify``: the row with the whole episode as one response.

    Args:
        turns: the assistant's turns with their calls.
        answers: of the tools, in order.
        is_sent: whether a call had reached the server; the others have had no effect, and are left out.
    """
    row = row_of(prompt)
    return {**row, "response": _response(row, list(_items(turns, answers, is_sent)))}


def _items(turns: _Turns, answers: Sequence[str], is_sent: Callable[[Call], bool]) -> Iterator[dict[str, Any]]:
    left = iter(answers)
    for at, (text, made) in enumerate(turns):
        if said := _talk(text):
            part = {"type": "output_text", "text": said, "annotations": []}
            kind = {"type": "message", "role": "assistant", "status": "completed"}
            yield {"id": f"msg_{at}", **kind, "content": [part]}
        answered = [(number, call, next(left, "")) for number, call in enumerate(made)]
        sent = [each for each in answered if is_sent(each[1])]
        for number, call, _ in sent:
            made_of = {"name": call.name, "arguments": json.dumps(dict(call.arguments))}
            yield {"type": "function_call", "call_id": f"call_{at}_{number}", **made_of}
        for number, _, output in sent:
            yield {"type": "function_call_output", "call_id": f"call_{at}_{number}", "output": output}


def _talk(text: str) -> str:
    """What a turn says before its calls and after its reasoning."""
    said = text.partition(THOUGHT)[2] if THOUGHT in text else text
    return said.partition(OPEN)[0].strip()


def _response(row: dict[str, Any], output: list[dict[str, Any]]) -> dict[str, Any]:
    asked = row["responses_create_params"]
    return {
        "id": "resp_m2rl",
        "object": "response",
        "created_at": 0.0,
        "model": "policy",
        "output": output,
        "tools": asked["tools"],
        "tool_choice": "auto",
        "parallel_tool_calls": asked["parallel_tool_calls"],
    }
