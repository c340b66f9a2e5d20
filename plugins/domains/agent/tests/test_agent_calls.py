"""The reader of tool calls: what is a call, and what is refused."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from m2rl_domain_agent.calls import LONGEST, MOST, Call, CallError, calls, text_of

ONE = '<tool_call>\n{"name": "a_tool", "arguments": {"x": "1"}}\n</tool_call>'
CALL = Call("a_tool", {"x": "1"})


def called(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        ("", ()),
        ("Done.", ()),
        ("<think>a</think>", ()),
        (ONE, (CALL,)),
        (f"I search first. {ONE} Then I wait.", (CALL,)),
        (f"<think>so</think>\n\n{ONE}", (CALL,)),
        (f"so</think>{ONE}", (CALL,)),  # a template may have opened the reasoning
        (ONE + ONE, (CALL, CALL)),
        (f"<think>{ONE}</think>Done.", ()),
        (f"<think>{ONE} <tool_call></think>{ONE}", (CALL,)),
        (called('{"arguments": {}, "name": "b"}'), (Call("b", {}),)),
        (called('{"name": "b", "arguments": {"n": [{"x": null}]}}'), (Call("b", {"n": [{"x": None}]}),)),
        ('<tool_response>\n{"output":"Email sent successfully."}\n</tool_response>', ()),
    ],
)  # fmt: skip
def test_calls_in_their_order(turn: str, found: tuple[Call, ...]) -> None:
    assert calls(turn) == found


@pytest.mark.parametrize(
    "turn",
    [
        "<tool_call>",
        "</tool_call>",
        ONE.removesuffix("</tool_call>"),
        f"{ONE}</tool_call>",
        f"</tool_call>{ONE}",
        f"<tool_call>{ONE}</tool_call>",
        f"<think>a {ONE}",
        f"<think>a</think>b</think>{ONE}",
        f"<think>a</think><think>b</think>{ONE}",
        f"a</think>{ONE}<think>",
        called(""),
        called("null"),
        called("[]"),
        called('"a"'),
        called("{}"),
        called('{"name": "a"}'),
        called('{"arguments": {}}'),
        called('{"name": "", "arguments": {}}'),
        called('{"name": null, "arguments": {}}'),
        called('{"name": 7, "arguments": {}}'),
        called('{"name": ["a"], "arguments": {}}'),
        called('{"name": "a", "arguments": null}'),
        called('{"name": "a", "arguments": ["1"]}'),
        called('{"name": "a", "arguments": "{}"}'),
        called('{"name": "a", "arguments": {}, "id": 1}'),
        called('{"name": "a", "arguments": {}} and more'),
        called('{"name": "a", "arguments": {}}{"name": "a", "arguments": {}}'),
        called('[{"name": "a", "arguments": {}}]'),
        called('{"name": "a", "arguments": {}'),
        called("{'name': 'a', 'arguments': {}}"),
        called('{"name": "a", "arguments": {},}'),
        called('{"name": "a", "name": "b", "arguments": {}}'),
        called('{"name": "a", "arguments": {"x": 1, "x": 2}}'),
        called('{"name": "a", "arguments": {"x": [{"y": 1, "y": 1}]}}'),
        called('{"name": "a", "arguments": {"x": NaN}}'),
        called('{"name": "a", "arguments": {"x": -Infinity}}'),
        called('{"name": "a", "arguments": {"x": 1e999}}'),
        called('{"name": "a", "arguments": {"x": ' + "9" * 5_000 + "}}"),
        called('{"name": "a", "arguments": {"x": "\\ud800"}}'),
        called('{"name": "\\udfff", "arguments": {}}'),
        called('{"name": "a", "arguments": {"x": "</tool_call>"}}'),
        called('{"name": "a", "arguments": {"x": "<tool_call>"}}'),
        called('{"name": "a", "arguments": {"x": ' + "[" * 100_000 + "]" * 100_000 + "}}"),
        called('{"name": "a", "arguments": ' + '{"x":' * 50_000),
        ONE * (MOST + 1),
        " " * (LONGEST + 1),
    ],
)
def test_what_is_refused(turn: str) -> None:
    with pytest.raises(CallError):
        calls(turn)


def test_a_megabyte_is_read_at_once() -> None:
    body = json.dumps({"name": "a", "arguments": {"x": "a " * 500_000}})
    for turn in (called(body), "<tool_call>" * 90_000, "</think>" * 100_000, "x" * 1_000_000):
        started = time.process_time()
        with contextlib.suppress(CallError):
            calls(turn)
        assert time.process_time() - started < 0.5


def test_written_calls_are_read_back() -> None:
    made = (CALL, Call("b", {}), Call("c", {"text": 'quotes " and \\ and é and \n', "n": -1.5, "none": None}))
    assert calls(text_of(made)) == made
    assert text_of([CALL]) == ONE
    assert text_of([]) == ""
