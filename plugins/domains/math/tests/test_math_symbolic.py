"""Expressions with symbols: read as they are written, and equal only where they are."""

from __future__ import annotations

import cmath
import operator
import random
from collections.abc import Callable

import pytest

from m2rl_core.answers import UnreadableError
from m2rl_domain_math.harmless import harmless
from m2rl_domain_math.symbolic import factor, same

Written = tuple[str, complex]
X, Y = 1.37, -2.59
"""What the letters stand for; the verifier's first point."""
OPERATIONS: dict[str, Callable[[complex, complex], complex]] = {
    "({})+({})": operator.add,
    "{{({})}}-[{}]": operator.sub,
    r"({})\cdot {{({})}}": operator.mul,
    "({})({})": operator.mul,
    "[{}]{{({})}}": operator.mul,
    r"\frac{{{}}}{{{}}}": operator.truediv,
    "({})/({})": operator.truediv,
    r"\sqrt{{{}}}({})": lambda a, b: cmath.sqrt(a) * b,
    r"\sin({})\cos({})": lambda a, b: cmath.sin(a) * cmath.cos(b),
    "|{}|({})": lambda a, b: abs(a) * b,
    "({})^2({})^{{3}}": lambda a, b: a**2 * b**3,
}


def atom(draw: random.Random) -> Written:
    number = draw.randint(1, 9)
    return draw.choice(
        [(str(number), number + 0j), ("x", X + 0j), ("y", Y + 0j), (r"\pi", cmath.pi + 0j), ("0.5", 0.5 + 0j)]
    )


def expression(draw: random.Random, depth: int) -> Written:
    if depth == 0:
        return atom(draw)
    (left, a), (right, b) = expression(draw, depth - 1), expression(draw, draw.randint(0, depth - 1))
    form = draw.choice(list(OPERATIONS))
    return form.format(left, right), OPERATIONS[form](a, b)


def test_expressions_are_read_as_they_are_written() -> None:
    """``2(3)`` is six and no mixed number: against Python's arithmetic, at the verifier's first point."""
    from m2rl_domain_math.symbolic import POINTS, _parse, _Point

    assert POINTS[0][:2] == (137, -259)
    draw, compared = random.Random(5), 0
    while compared < 60:
        try:
            latex, wanted = expression(draw, draw.randint(1, 3))
            found = complex(_Point({"x": 137, "y": -259}).value(_parse(harmless(latex))))
        except (UnreadableError, ZeroDivisionError):
            continue
        compared += 1
        other_branch = wanted.conjugate()
        assert min(abs(found - wanted), abs(found - other_branch)) < 1e-6 * max(1.0, abs(wanted)), latex


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("(x+y)^3", "x^3+3x^2y+3xy^2+y^3"),
        (r"\tan x", r"\frac{\sin x}{\cos x}"),
        ("e^{2x}", "(e^x)^2"),
        (r"\ln 8", r"3\ln 2"),
    ],
)
def test_identities_hold(gold: str, answer: str) -> None:
    assert same(gold, answer)
    assert not same(gold, f"{answer}+1")
    assert not same(gold, f"{answer}+10^{{-40}}")
    assert not same(gold, f"(1+10^{{-40}})({answer})")


def test_equations_and_inequalities_may_be_multiplied_by_a_constant() -> None:
    assert factor(("x", "3"), ("2x", "6")) == 1
    assert factor(("x", "3"), ("3", "x")) == -1
    assert factor(("x", "3"), ("x^2", "3x")) == 0
    assert factor(("x", "3"), ("x", "4")) == 0
    assert factor(("x", "3"), ("0", "0")) == 0
    assert factor(("0", "0"), ("x", "3")) == 0


@pytest.mark.parametrize(
    "text",
    [
        "x" * 500, "abcd", "1 2", "x'", "x;y", '"x"', "x@y", "x__y", "().__class__", r"\sum x", r"\int x", r"\text{or}",
        "5?", "I", "x^{65}", "x^{9^{9}}", "(x^{64})^{65}", "100!", "(x)!", "x!!", "9" * 41, "(" * 11 + "x" + ")" * 11,
        "(x]", "(x", "|x||x||x|", r"\binom{9999}{2}",
    ],
)  # fmt: skip
def test_what_is_more_than_a_small_expression_never_reaches_the_grammar(text: str) -> None:
    with pytest.raises(UnreadableError):
        harmless(text)


@pytest.mark.parametrize(
    "text", ["f(x)", r"\frac{1}{0}", r"\infty", "9^{60x}9^{60x}9^{60x}", r"10^{64}\cdot 10^{64}x", "abcxyz"]
)
def test_what_has_no_moderate_value_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        same("x+1", text)
