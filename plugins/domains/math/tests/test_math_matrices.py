"""Matrices and what is computed from them: against Python's own arithmetic."""

from __future__ import annotations

import random

import pytest

from m2rl_core.answers import UnreadableError
from m2rl_domain_math.matching import matches
from m2rl_domain_math.matrices import matrix

Rows = list[list[int]]
STYLES = (
    r"\begin{pmatrix}%s\end{pmatrix}",
    r"\begin{bmatrix}%s\\\end{bmatrix}",
    r"\left[\begin{array}{cc}%s\end{array}\right]",
    r"\left(\begin{array}{c|c} %s \end{array}\right)",
    r"\begin{smallmatrix}%s\end{smallmatrix}",
)


def drawn(draw: random.Random) -> Rows:
    return [[draw.randint(-5, 9) for _ in range(2)] for _ in range(2)]


def written(rows: Rows, draw: random.Random) -> str:
    return draw.choice(STYLES) % r" \\ ".join(" & ".join(map(str, row)) for row in rows)


def times(a: Rows, b: Rows) -> Rows:
    return [[sum(a[i][k] * b[k][j] for k in range(2)) for j in range(2)] for i in range(2)]


def test_sums_and_products_are_what_they_come_to_and_nothing_else() -> None:
    draw = random.Random(11)
    for _ in range(60):
        a, b, c = drawn(draw), drawn(draw), drawn(draw)
        factor, sign, dot = draw.randint(2, 9), draw.choice((1, -1)), draw.choice(("", r" \cdot ", r"\times "))
        left, right = times(a, b), c
        wanted = [[left[i][j] * factor + sign * right[i][j] for j in range(2)] for i in range(2)]
        text = f"{factor}{dot}{written(a, draw)}{dot}{written(b, draw)} {'+' if sign > 0 else '-'} {written(c, draw)}"
        assert matches(written(wanted, draw), text), text
        wanted[draw.randint(0, 1)][draw.randint(0, 1)] += 1
        assert not matches(written(wanted, draw), text), text


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\frac{1}{2}\begin{pmatrix}2\\4\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"-\frac{1}{2}\begin{pmatrix}-2\\-4\end{pmatrix}"),
        (r"\begin{pmatrix}6\\12\end{pmatrix}", r"2 \cdot 3 \cdot \begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\begin{pmatrix}x^2\\x\end{pmatrix}", r"x\begin{pmatrix}x\\1\end{pmatrix}"),
        (r"A = \begin{pmatrix}1\\2\end{pmatrix}", r"\left[\begin{array}{c}1\\2\end{array}\right]"),
    ],
)
def test_a_factor_in_front_belongs_to_every_entry(gold: str, answer: str) -> None:
    assert matches(gold, answer)


@pytest.mark.parametrize(
    "text",
    ["5", r"\begin{vmatrix}1\end{vmatrix}", r"\begin{pmatrix}1\end{pmatrix}^2", r"\begin{pmatrix}1\end{pmatrix}2",
     r"\begin{pmatrix}1\end{pmatrix}/\begin{pmatrix}1\end{pmatrix}", r"2+\begin{pmatrix}1\end{pmatrix}"],
)  # fmt: skip
def test_what_is_no_sum_of_products_is_no_matrix(text: str) -> None:
    assert matrix(text) is None


@pytest.mark.parametrize(
    "text",
    [r"\begin{pmatrix}1&2\end{pmatrix}\begin{pmatrix}1&2\end{pmatrix}", r"(\begin{array}{c}1\end{array}]",
     r"\begin{pmatrix}1&2\end{pmatrix}+\begin{pmatrix}1\\2\end{pmatrix}",
     r"\begin{pmatrix}1&2\\3\end{pmatrix}\begin{pmatrix}1\\2\end{pmatrix}",
     r"\begin{pmatrix}1&2\\3&4\end{pmatrix}" * 20],
)  # fmt: skip
def test_shapes_that_do_not_fit_and_endless_products_are_unreadable(text: str) -> None:
    with pytest.raises(UnreadableError):
        matrix(text)


def test_a_matrix_is_no_number_and_no_determinant() -> None:
    assert not matches("5", r"\begin{pmatrix}5\end{pmatrix}")
    assert not matches(r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}")
