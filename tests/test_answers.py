"""Reading final answers: claims, plain forms and exact numbers, against hand cases and Python's own arithmetic."""

from __future__ import annotations

import random
import time
from fractions import Fraction

import pytest

from m2rl_core.answers import (
    UnreadableError,
    claims,
    compact,
    enclosed,
    fold,
    otherwise,
    pieces,
    plain,
    rational,
    unwrap,
)


@pytest.mark.parametrize(
    ("text", "stated", "said"),
    [
        ("", (), ()),
        ("no claim at all, 204", (), ()),
        (r"\boxed{204}", ("204",), ()),
        (r"\boxed {a{b}c} then \boxed{a{b}c}", ("a{b}c",), ()),
        (r"\boxed{\{1\}} \fbox{2}", (r"\{1\}", "2"), ()),
        (r"$\boxed{\boxed{3}}$", ("3",), ()),
        ("Answer: 204", ("204",), ()),
        ("**Final Answer:** 204 \nmore", ("204",), ()),
        ("answer is: 204", ("204",), ()),
        ("Answer：204", ("204",), ()),
        ("The answer is 204.", (), ("204.",)),
        ("The answer is **C**", (), ("C",)),
        ("The answer is not C. Answer: B", ("B",), ()),
        ("Answer: A\nAnswer: B", ("A", "B"), ()),
        (r"Answer: \boxed{2}", ("2",), ()),
        (r"The answer is $\boxed{2}$ since 1+1 is 2", ("2",), ()),
        ("Final Answer: The final answer is $4$. I hope it is correct.", (), ("$4$.",)),
        ("The correct answer depends on it. Answers: 3", (), ()),
        ("Answer:\n204", (), ()),
        ("The answer is **204**.", (), ("204.",)),
        ("Answer: **204** cm, `x`", ("204 cm, x",), ()),
        ("Answer: 2**3**4", ("2**3**4",), ()),
        ("__Answer:__ 204", ("204",), ()),
        (r"\textbf{Answer:} 204", ("204",), ()),
        (r"\textbf{Final Answer: 204}", ("204",), ()),
        (r"$\text{Answer: }\frac{1}{2}$", (r"$ \frac{1}{2}$"[2:],), ()),
        ("The answer is therefore 204", (), ("204",)),
        ("The best choice is to add. The answer must be even. The answer is 204", (), ("204",)),
        ("Answer: Just Do It", ("Just Do It",), ()),
        (r"It goes into \boxed{}. So \boxed{204}", ("204",), ()),
        (r"Not all paths work: \boxed{204}", ("204",), ()),
    ],
)
def test_claims(text: str, stated: tuple[str, ...], said: tuple[str, ...]) -> None:
    assert claims(text) == (stated, said)


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{204",
        r"\boxed 204",
        r"\boxed",
        r"\boxed{the \boxed{1}}",
        r"\boxed{\boxed{1} \boxed{2}}",
        r"\boxed{204} or 205",
        r"\boxed{204}$, maybe",
        r"It is not \boxed{204}",
        r"It isn't $\boxed{204}$",
        r"It cannot be \boxed{204}",
        r"It is not equal to \boxed{204}",
        r"\boxed{204} is wrong",
        r"$\boxed{204}$ is not the answer",
        r"\boxed{1}" * 100,
        "Answer: 1\n" * 100,
        r"\boxed{" + "1" * 2000 + "}",
        "Answer: " + "1" * 2000,
        "x" * 200_000,
    ],
)
def test_unreadable_claims(text: str) -> None:
    with pytest.raises(UnreadableError):
        claims(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("204", "204"),
        ("-7", "-7"),
        ("1,234,567.5", "1234567.5"),
        (".5", "1/2"),
        ("3/4", "3/4"),
        (r"\frac{3}{4}", "3/4"),
        (r"\frac12", "1/2"),
        (r"\frac1{23}", "1/23"),
        (r"\frac{12}3", "4"),
        (r"1\frac{1}{2}", "3/2"),
        ("1 1/2", "3/2"),
        (r"-1\frac12", "-3/2"),
        (r"0.1\overline{6}", "1/6"),
        (r"50\%", "1/2"),
        ("2(3+4)", "14"),
        ("(2)(3)", "6"),
        ("23+4", "27"),
        ("-2^2", "-4"),
        ("2^{-2}", "1/4"),
        ("2^10", "1024"),
        (r"1.5 \times 10^{3}", "1500"),
        (r"6 \div 4 \cdot 2", "3"),
        ("5! - 3!", "114"),
        ("((((5))))", "5"),
    ],
)
def test_rational(text: str, value: str) -> None:
    assert rational(text) == Fraction(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "1 2", "12 345", "1,23", "1,2345", "(1,234)", "1_000", "1e3", "0x10", "２０４", "٥", "1/0", "0^0",
        "0^{-1}", "2{3}", "1/2(3)", r"2\frac{4}{3}", r"\frac{1}", "1+", "(1", "1)", "3.", "++1", "2^{1/2}", "(1/2)!",
        "(-1)!", r"\sqrt{4}", "1!2", r"1\overline{3}",
        "9^{9^{9^{9}}}", "1000!!", "2^" * 400 + "2", "(" * 400 + "1" + ")" * 400, "9" * 2000, "2^{99999}",
        "((2^{64})^{64})^{64}",
    ],
)  # fmt: skip
def test_no_number(text: str) -> None:
    started = time.process_time()
    assert rational(text) is None
    assert time.process_time() - started < 0.5


def test_rational_agrees_with_python() -> None:
    """Random expressions, written for both."""
    draw = random.Random(3)

    def build(depth: int) -> tuple[str, str]:
        if depth == 0:
            number = str(draw.randint(0, 99))
            return number, f"Fraction({number})"
        (a, x), (b, y) = build(depth - 1), build(depth - 1)
        kind = draw.choice(("+", "-", "*", "frac", "^"))
        if kind == "frac":
            return rf"\frac{{{a}}}{{{b}}}", f"(({x})/({y}))"
        if kind == "^":
            power = draw.randint(0, 3)
            return f"({a})^{{{power}}}", f"(({x})**{power})"
        return f"({a}){kind}({b})", f"(({x}){kind}({y}))"

    compared = 0
    for _ in range(300):
        latex, python = build(draw.randint(1, 3))
        try:
            wanted = eval(python, {"Fraction": Fraction})
        except ZeroDivisionError:
            assert rational(latex) is None
            continue
        if "^{0}" not in latex:  # 0^0 is refused
            compared += 1
            assert rational(latex) == wanted, latex
    assert compared > 100


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (" $204$. ", "204"),
        (r"\(\frac{1}{2}\)", r"\frac{1}{2}"),
        ("$$x$$", "x"),
        (r"\left(1,2\right]", "(1,2]"),
        (r"\dfrac12", r"\frac12"),
        (r"x\le3", r"x\leq 3"),
        ("x ≥ 3", r"x \geq 3"),
        ("1{,}234", "1,234"),
        (r"10,\! 000", "10,000"),
        (r"1\,234", "1,234"),
        (r"1\ 2", "1 2"),
        ("1, 2, ...", "1, 2, ..."),
        ("−5", "-5"),
        ("14 {, }916", "14,916"),
        (r"1,\quadx_2", "1, x_2"),
        ("x != 5", r"x \neq 5"),
        ("5!=120", "5!=120"),
        (r"\$5", r"\$5"),
        (r"1 \\ 2", r"1 \\ 2"),
        (r"\lbrace 1\rbrace", r"\{ 1\}"),
    ],
)
def test_plain(latex: str, text: str) -> None:
    assert plain(latex) == text


def test_brackets() -> None:
    assert unwrap("{(5)}") == "5"
    assert unwrap("(" * 40 + "5" + ")" * 40) == "5"
    assert unwrap("(1,2)") == "(1,2)"
    assert unwrap("(1)(2)") == "(1)(2)"
    assert unwrap("((1,2),(3,4))") == "((1,2),(3,4))"
    assert enclosed("(1,2]")
    assert not enclosed("(1)+(2)")
    assert pieces(r"a,(b,c),\{d,e\},f{g,h}", frozenset({","})) == (["a", "(b,c)", r"\{d,e\}", "f{g,h}"], [","] * 3)
    assert pieces("1<x<2", frozenset({"<"})) == (["1", "x", "2"], ["<", "<"])


def test_spaces_between_digits_mean_something() -> None:
    assert compact("1 2") == "1 2"
    assert compact("( 1 , 2 )") == "(1,2)"


def test_full_width_text_is_folded_on_request_only() -> None:
    assert fold("Ａｎｓｗｅｒ：Ｃ　２０４") == "Answer:C 204"
    assert plain("２０４") == "２０４"


@pytest.mark.parametrize(
    ("text", "below"),
    [
        ("**Answer:**\n\n**204**\n\nThe end.", ("204",)),
        ("The answer is:\n204", ("204",)),
        ("Answer:\n204\n205", ("204\n205",)),
        ("Answer:\n203\n\nAnswer:\n204", ("203", "204")),
        ("The answer must be 204", ("204",)),
        ("The **correct option is** C", ("C",)),
        ("Best choice: C", ("C",)),
        ("The right answer choice is not C", ()),
        ("The answer\n204", ()),
        ("Answer:", ()),
        ("Answer:\n\n  \n", ()),
    ],
)
def test_what_is_claimed_otherwise(text: str, below: tuple[str, ...]) -> None:
    assert otherwise(text) == below


def test_a_page_below_a_label_is_no_answer() -> None:
    with pytest.raises(UnreadableError):
        otherwise("Answer:\n" + "5 " * 1000)


def test_a_long_sentence_does_not_spoil_what_is_stated() -> None:
    sentence = "The answer is " + "well explained, " * 100
    assert claims(sentence + "\n\\boxed{5}") == (("5",), ())
    with pytest.raises(UnreadableError, match="more than 1000 characters"):
        claims(sentence)
    with pytest.raises(UnreadableError, match="more than 1000 characters"):
        claims("Answer: " + "1" * 1001)
