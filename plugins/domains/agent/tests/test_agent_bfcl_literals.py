"""Arguments of Java and JavaScript functions: literals in strings."""

from __future__ import annotations

import time
from typing import Any

import pytest

from m2rl_domain_agent.bfcl.java import java
from m2rl_domain_agent.bfcl.javascript import javascript
from m2rl_domain_agent.bfcl.values import accepted

JAVA: list[tuple[str, str, str | None, Any]] = [
    ("12", "integer", None, 12),
    ("-7", "short", None, -7),
    ("12L", "long", None, 12),
    ("1.5f", "float", None, 1.5),
    ("1.5e2", "double", None, 150.0),
    ("true", "boolean", None, True),
    ("'c'", "char", None, "'c'"),
    ("plain", "String", None, "plain"),
    ('"quoted"', "String", None, '"quoted"'),
    ("anything(1)", "any", None, "anything(1)"),
    ("new int[]{1, 2, 3}", "Array", "integer", [1, 2, 3]),
    ("new int[] { }", "Array", "integer", []),
    ('new String[]{a, "b"}', "Array", "String", ["a", '"b"']),  # upstream keeps the quotes of arrays
    ('new ArrayList<String>(Arrays.asList("a", "b,c"))', "ArrayList", "String", ["a", "b,c"]),
    ("new ArrayList<Long>() {{ add(1L); add(2L); }}", "ArrayList", "long", [1, 2]),
    ('new ArrayList<>(Arrays.asList(1, "x", true, 2.5f))', "ArrayList", None, [1, "x", True, 2.5]),
    ("new ArrayList<>()", "ArrayList", "any", []),
    ('new HashMap<String, Object>() {{ put("a", 1); put("b", "x;y"); }}', "HashMap", None, {"a": 1, "b": "x;y"}),
    ("new HashMap<>()", "HashMap", None, {}),
    ("new HashMap<>() {{ }}", "HashMap", None, {}),
]
NO_JAVA: list[tuple[str, str, str | None]] = [
    ("12.0", "integer", None),
    ("12", "long", None),
    ("1.5", "float", None),
    ("1.5f", "double", None),
    ("True", "boolean", None),
    ("[1, 2]", "Array", "integer"),
    ("new int[]{1, 2", "Array", "integer"),
    ("new int[]{1} or new int[]{2}", "Array", "integer"),
    ("new ArrayList<Long>() {{ add(1L); remove(2L); }}", "ArrayList", "long"),
    ('x new HashMap<String, Object>() {{ put("a", 1); }}', "HashMap", None),
    ("9" * 5000, "integer", None),
]
JAVASCRIPT: list[tuple[str, str, str | None, Any]] = [
    ("'text'", "String", None, "text"),
    ("text", "String", None, "text"),
    ("3", "integer", None, 3),
    ("3", "float", None, 3.0),
    ("7n", "Bigint", None, 7),
    ("false", "Boolean", None, False),
    ("handler", "any", None, "handler"),
    ("['a', \"b, c\"]", "array", "String", ["a", "b, c"]),
    ("new Array(1, 2)", "array", "integer", [1, 2]),
    ("[1.5, 2]", "array", "float", [1.5, 2.0]),
    ("[]", "array", "String", []),
    ("[[1, 2], [3]]", "array", "array", [[1, 2], [3]]),
    ("[{a: 1}, {b: 'x'}]", "array", "dict", [{"a": 1}, {"b": "x"}]),
    ("{}", "dict", None, {}),
    ("{key: 'value', \"n\": 2.5, on: true}", "dict", None, {"key": "value", "n": 2.5, "on": True}),
    ("{list: ['a', f('b')], below: {x: 1}}", "dict", None, {"list": ["a", "f('b')"], "below": {"x": 1}}),
    ("{url: 'http://x/y?a=1,2'}", "dict", None, {"url": "http://x/y?a=1,2"}),
]
NO_JAVASCRIPT: list[tuple[str, str, str | None]] = [
    ("3.5", "integer", None),
    ("3", "Bigint", None),
    ("yes", "Boolean", None),
    ("[1, 2", "array", "integer"),
    ("[1, 2] trailing", "array", "integer"),
    ("{a}", "dict", None),
    ("{a: [1}", "dict", None),
]


@pytest.mark.parametrize(("text", "kind", "inner", "value"), JAVA)
def test_java(text: str, kind: str, inner: str | None, value: Any) -> None:
    assert repr(java(text, kind, inner)) == repr(value)


@pytest.mark.parametrize(("text", "kind", "inner", "value"), JAVASCRIPT)
def test_javascript(text: str, kind: str, inner: str | None, value: Any) -> None:
    assert repr(javascript(text, kind, inner)) == repr(value)


@pytest.mark.parametrize(("text", "kind", "inner"), NO_JAVA)
def test_what_is_no_java_stays_text(text: str, kind: str, inner: str | None) -> None:
    assert java(text, kind, inner) == text


@pytest.mark.parametrize(("text", "kind", "inner"), NO_JAVASCRIPT)
def test_what_is_no_javascript_stays_text(text: str, kind: str, inner: str | None) -> None:
    assert javascript(text, kind, inner) == text


def test_an_argument_is_a_string_that_holds_a_literal() -> None:
    assert accepted("5L", {"type": "long"}, [5], "java")
    assert not accepted(5, {"type": "long"}, [5], "java")
    assert not accepted("5", {"type": "long"}, [5], "java")
    assert accepted("[3.0, 4]", {"type": "array", "items": {"type": "float"}}, [[3, 4]], "javascript")
    assert not accepted([3, 4], {"type": "array", "items": {"type": "float"}}, [[3, 4]], "javascript")
    assert accepted("myList", {"type": "array", "items": {"type": "String"}}, ["myList"], "javascript")
    assert not accepted("mylist", {"type": "array", "items": {"type": "String"}}, ["myList"], "javascript")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 19_000,
        "[" * 9_000 + "]" * 9_000,
        "{a: " * 4_000 + "}" * 4_000,
        "[" + "'" * 19_001,
        "[" + "1, " * 6_000 + "]",
        "new HashMap<" + ">" * 19_000,
        "new ArrayList<>() {{" + " " * 19_000,
        "new " + " " * 19_000 + "Array(",
        '{{ put("' * 2_000,
        "[" * 3_000_000,
    ],
)
def test_hostile_text_takes_no_time(text: str) -> None:
    started = time.process_time()
    for kind in ("array", "dict", "Array", "ArrayList", "HashMap", "String", "integer"):
        java(text, kind, "any")
        javascript(text, kind, "any")
    assert time.process_time() - started < 3.0
