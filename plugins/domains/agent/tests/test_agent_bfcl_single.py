"""BFCL's rows of one turn: which calls are the gold ones. All rows are made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_agent import bfcl
from m2rl_domain_agent.calls import Call, text_of

MISSING = object()


def function(name: str, required: Sequence[str] = (), **types: Any) -> dict[str, Any]:
    specs = {key: {"type": kind} if isinstance(kind, str) else kind for key, kind in types.items()}
    return {
        "name": name,
        "description": "",
        "parameters": {"type": "dict", "properties": specs, "required": list(required)},
    }


def row(category: str, functions: Sequence[Mapping[str, Any]], gold: Any) -> Prompt:
    metadata = {"suite": bfcl.SUITE, "category": category, "functions": list(functions)}
    return Prompt("bfcl-v3/made-up", "agent", ({"role": "user", "content": "Do it."},), gold, metadata)


def said(prompt: Prompt, answer: str) -> float | None:
    return bfcl.verify(Trajectory(prompt, (), answer)).value


def called(prompt: Prompt, *made: tuple[str, Mapping[str, Any]]) -> float | None:
    return said(prompt, text_of(Call(name, arguments) for name, arguments in made))


def one(kind: Any, answers: Sequence[Any], value: Any, category: str = "simple") -> float | None:
    """The verdict on one argument of this type."""
    prompt = row(category, [function("ask", x=kind)], [{"ask": {"x": list(answers)}}])
    return called(prompt, ("ask", {} if value is MISSING else {"x": value}))


def array(of: str, kind: str = "array") -> dict[str, Any]:
    return {"type": kind, "items": {"type": of}}


RIGHT: list[tuple[Any, list[Any], Any]] = [
    ("integer", [3, 4], 4),
    ("float", [3.0], 3),
    ("float", [0.5], 0.5),
    ("boolean", [True], True),
    ("any", ["red"], "red"),
    ("string", ["April 1, 2030"], "april 1 2030"),
    ("string", ["it's"], 'IT"S'),
    ("string", ["a_b-c/d^e*f.g"], "ABCDEFG"),
    ("string", ["", "left"], "left"),
    ("string", ["", "left"], MISSING),
    ("string", [5], 5),  # the gold has another type than the description: taken for a variable
    ("integer", ["today"], "today"),
    (array("string"), [["New York", "Rome"]], ["newyork", "ROME"]),
    (array("integer"), [[1, 2], [2, 1]], [2, 1]),
    (array("float"), [[1, 2]], [1, 2]),  # whole numbers where the gold writes whole ones
    (array("string", "tuple"), [["a", "b"]], ["a", "b"]),
    (array("string"), ["", ["a"]], []),  # what may be left out may be empty
    (array("integer"), [[]], []),
    ("dict", [{"size": ["big", "large"], "hot": [True, ""]}], {"size": "Large"}),
    ("dict", [{"size": ["big"]}, {"colour": ["red"]}], {"colour": "red"}),
    ("dict", [{"below": [{"k": 1}]}], {"below": {"k": 1}}),
    (array("dict"), [[{"n": [1]}, {"n": [2, 3]}]], [{"n": 1}, {"n": 3}]),
]
WRONG: list[tuple[Any, list[Any], Any]] = [
    ("integer", [3], 3.0),
    ("integer", [3], "3"),
    ("integer", [1], True),
    ("integer", [3], 4),
    ("integer", [3], None),
    ("float", [3.0], "3.0"),
    ("float", [1.0], True),
    ("float", [1.0], 10**400),
    ("boolean", [True], "true"),
    ("boolean", [True], 1),
    ("string", ["left"], "right"),
    ("string", ["left"], ["left"]),
    ("string", ["left"], MISSING),
    ("string", ["", "left"], "x"),
    ("string", ["two words"], "two\nwords"),
    (array("integer"), [[1, 2]], [2, 1]),
    (array("integer"), [[1, 2]], ["1", "2"]),
    (array("integer"), [[1, 2]], "[1, 2]"),
    (array("float"), [[1.5, 2.0]], [1.5, 2]),
    (array("string"), [["a"]], ["a", "a"]),
    ("dict", [{"size": ["big"]}], {}),
    ("dict", [{"size": ["big"]}], {"size": "big", "more": 1}),
    ("dict", [{"size": ["big"]}], {"size": ["big"]}),
    ("dict", [{"size": ["big"]}], [{"size": "big"}]),
    (array("dict"), [[{"n": [1]}, {"n": [2]}]], [{"n": 2}, {"n": 1}]),
    (array("dict"), [[{"n": [1]}]], [1]),
]


@pytest.mark.parametrize(("kind", "answers", "value"), RIGHT)
def test_an_accepted_argument(kind: Any, answers: list[Any], value: Any) -> None:
    assert one(kind, answers, value) == 1.0


@pytest.mark.parametrize(("kind", "answers", "value"), WRONG)
def test_an_argument_that_is_not_accepted(kind: Any, answers: list[Any], value: Any) -> None:
    assert one(kind, answers, value) == 0.0


def test_the_name_is_the_one_that_the_model_was_shown() -> None:
    prompt = row("simple", [function("maths.area", side="integer")], [{"maths.area": {"side": [2]}}])
    assert called(prompt, ("maths_area", {"side": 2})) == 1.0
    assert called(prompt, ("maths.area", {"side": 2})) == 0.0
    assert called(prompt, ("area", {"side": 2})) == 0.0


def test_arguments_must_be_described_given_where_required_and_no_others() -> None:
    two = function("ask", required=["x"], x="integer", y="integer")
    prompt = row("simple", [two], [{"ask": {"x": [1, ""], "y": [2, ""]}}])
    assert called(prompt, ("ask", {"x": 1})) == 1.0
    assert called(prompt, ("ask", {"y": 2})) == 0.0
    assert called(prompt, ("ask", {"x": 1, "z": 3})) == 0.0
    assert called(prompt, ("ask", {"x": 1, "y": 2})) == 1.0


def test_one_call_of_several_functions() -> None:
    functions = [function("left", x="integer"), function("right", x="integer")]
    prompt = row("live_multiple", functions, [{"right": {"x": [1]}}])
    assert called(prompt, ("right", {"x": 1})) == 1.0
    assert called(prompt, ("left", {"x": 1})) == 0.0
    assert called(prompt, ("right", {"x": 1}), ("left", {"x": 1})) == 0.0
    assert called(prompt) == 0.0


@pytest.mark.parametrize("category", ["parallel", "parallel_multiple", "live_parallel"])
def test_parallel_calls_have_no_order(category: str) -> None:
    gold = [{"ask": {"x": [1]}}, {"ask": {"x": [2]}}, {"tell": {"x": ["a"]}}]
    prompt = row(category, [function("ask", x="integer"), function("tell", x="string")], gold)
    made: list[tuple[str, Mapping[str, Any]]] = [("ask", {"x": 1}), ("ask", {"x": 2}), ("tell", {"x": "a"})]
    assert called(prompt, *made) == 1.0
    assert called(prompt, *made[::-1]) == 1.0
    assert called(prompt, *made[:2]) == 0.0
    assert called(prompt, *made, made[0]) == 0.0
    assert called(prompt, made[0], made[0], made[2]) == 0.0


def test_calls_that_python_takes_for_equal_are_still_told_apart() -> None:
    prompt = row("parallel", [function("ask", x="any")], [{"ask": {"x": [True]}}, {"ask": {"x": [1]}}])
    assert called(prompt, ("ask", {"x": 1}), ("ask", {"x": True})) == 1.0
    assert called(prompt, ("ask", {"x": True}), ("ask", {"x": True})) == 0.0


@pytest.mark.parametrize("category", ["irrelevance", "live_irrelevance", "live_relevance"])
def test_whether_a_call_is_wanted_at_all(category: str) -> None:
    wanted = category == "live_relevance"
    prompt = row(category, [function("ask", x="integer")], {"call": wanted})
    assert called(prompt, ("ask", {"x": 1})) == float(wanted)
    assert said(prompt, "I cannot do that.") == float(not wanted)
    assert said(prompt, "") == float(not wanted)
    assert said(prompt, '<tool_call>{"name": "ask", "arguments": {}}') == 0.0, "what cannot be read is never right"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "ask(x=1)",
        '{"name": "ask", "arguments": {"x": 1}}',
        '<tool_call>{"name": "ask", "arguments": {"x": 1}}',
        '<tool_call>{"name": "ask", "arguments": {"x": 1, "x": 1}}</tool_call>',
        '<tool_call>{"name": "ask", "arguments": {"x": NaN}}</tool_call>',
        '<tool_call>{"name": "ask", "arguments": ' + "[" * 5000 + "</tool_call>",
        '<think><tool_call>{"name": "ask", "arguments": {"x": 1}}</tool_call></think>Done.',
    ],
)
def test_text_that_is_no_call_is_wrong(answer: str) -> None:
    assert said(row("simple", [function("ask", x="integer")], [{"ask": {"x": [1]}}]), answer) == 0.0


@pytest.mark.parametrize(
    ("category", "gold"),
    [
        ("simple", None),
        ("simple", []),
        ("simple", ""),
        ("simple", {"ask": {"x": [1]}}),
        ("simple", [{"ask": {"x": [1]}, "tell": {}}]),
        ("simple", [{"ask": {"x": 1}}]),
        ("simple", [{"ask": {"x": []}}]),
        ("simple", [{"ask": {"x": [1], "z": [1]}}]),
        ("simple", [{"ask": {}}]),
        ("simple", [{"ask": {"x": [1], "odd": [1]}}]),
        ("multiple", [{"shout": {"x": [1]}}]),
        ("irrelevance", None),
        ("live_relevance", {"call": False}),
    ],
)
def test_bad_gold_is_an_error_and_no_verdict(category: str, gold: Any) -> None:
    functions = [function("ask", required=["x"], x="integer", odd="colour"), function("tell")]
    for answer in ("", '<tool_call>{"name": "ask", "arguments": {"x": 1}}</tool_call>'):
        with pytest.raises(DataError, match="made-up"):
            said(row(category, functions, gold), answer)


def test_gold_answers_are_right() -> None:
    functions = [function("deep.ask", required=["x"], x="integer", y=array("dict"), z="string")]
    prompt = row("parallel", functions, [{"deep.ask": {"x": ["", 3], "y": [[{"n": [1, 2], "m": ["", 2]}]], "z": [""]}}])
    answer = bfcl.gold(prompt)
    assert answer is not None
    assert '"x": 3' in answer
    assert said(prompt, answer) == 1.0
    assert said(row("irrelevance", functions, {"call": False}), bfcl.gold(row("irrelevance", [], None)) or "") == 1.0
    assert bfcl.gold(row("java", functions, [])) is None
    assert bfcl.gold(row("live_relevance", functions, {"call": True})) is None
