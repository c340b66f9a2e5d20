"""What counts as the same output and the same value."""

from __future__ import annotations

from typing import Any

import pytest

from m2rl_domain_coding.comparison import same_text, same_value


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("6\n", "6"),
        ("6", "6\n\n\n"),
        ("6\r\n7\r\n", "6\n7\n"),
        ("1 2 \n3", "1 2\n3  \n"),
        ("    1842\n", "1842"),
        ("\n6", "6"),
        ("0\n\n2\n1 2 \n", "0\n\n2\n1 2\n"),
        ("a\n  b\n", "a\n  b\t\n"),
        ("", " \n"),
    ],
)
def test_whitespace_around_the_text_and_at_ends_of_lines_means_nothing(expected: str, printed: str) -> None:
    assert same_text(expected, printed)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("6", ""),
        ("6", "6 6"),
        ("6", "6\n6"),
        ("6", "6\0"),
        ("6", "06"),
        ("6", "6.0"),
        ("6", "+6"),
        ("6", "\ufeff6"),
        ("6", "６"),
        ("6", "6\u00a0"),
        ("0.5", "0.50"),
        ("0.333333", "0.3333333"),
        ("10000000", "10000010"),
        ("YES", "yes"),
        ("1 2", "1  2"),
        ("1\n2", "1 2"),
        ("1\n2", "1\n\n2"),
        ("a\n  b", "a\nb"),
        ("6\ufffd", "6\ufffd\ufffd"),
    ],
)
def test_everything_else_does(expected: str, printed: str) -> None:
    assert not same_text(expected, printed)


@pytest.mark.parametrize(
    ("expected", "returned"),
    [
        (6, "6"),
        (6, "6.0"),
        (6.0, "6"),
        (0.1, "0.1"),
        (10**30, str(10**30)),
        (True, "true"),
        (None, "null"),
        ("a", '"a"'),
        ([1, [2, "b"]], '[1, [2, "b"]]'),
        ({"a": [1], "b": None}, '{"b": null, "a": [1.0]}'),
        ([], "[]"),
    ],
)
def test_equal_values(expected: Any, returned: str) -> None:
    assert same_value(expected, returned)


@pytest.mark.parametrize(
    ("expected", "returned"),
    [
        (6, "7"),
        (6, '"6"'),
        (6, "[6]"),
        (1, "true"),
        (True, "1"),
        (0, "false"),
        (0, "null"),
        (False, "null"),
        (0.3, "0.30000000000000004"),
        (1e-7, "0"),
        (2**53, str(2**53 + 1)),
        (float(2**53), str(2**53 + 1)),
        (float("nan"), "NaN"),
        (1.0, "Infinity"),
        ([1, 2], "[2, 1]"),
        ([1, 2], "[1, 2, 3]"),
        ([1, 2], '{"0": 1, "1": 2}'),
        ({"a": 1}, '{"a": 1, "b": 2}'),
        ({"a": 1}, '{"a": true}'),
        ("a", '"A"'),
        ("", "null"),
        ([], "{}"),
        (6, ""),
        (6, "6 6"),
        (6, "6,"),
        (6, "9" * 5000),
        ([], "[" * 100_000),
    ],
)
def test_other_values(expected: Any, returned: str) -> None:
    assert not same_value(expected, returned)
