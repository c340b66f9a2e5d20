"""The compatible modes: what the other evaluators were seen to accept and refuse, without what made them dangerous."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from m2rl_core.errors import DataError
from m2rl_core.rewards.reasoning import split
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_math import Math
from m2rl_domain_math.compat.words import number
from m2rl_domain_math.judging import Mode

CATALOGUE = Path(__file__).resolve().parents[5] / "shared" / "data" / "adversarial.jsonl"
QWQ: Mode = "qwq-compat"
DEEPSCALER: Mode = "deepscaler-compat"
BOTH: tuple[Mode, ...] = (QWQ, DEEPSCALER)


def judge(mode: Mode, gold: object, text: str) -> float | None:
    domain = Math(Math.Config(mode=mode))
    return domain.verify(Trajectory(Prompt("p", "math", (), gold), (), text)).value


def boxed(mode: Mode, gold: str, answer: str) -> bool:
    return judge(mode, gold, f"\\boxed{{{answer}}}") == 1.0


PLAIN = [
    ("204", "204"), ("204", "204.0"), ("1234", "1,234"), ("1,234", "1234"), ("42", "x=42"), ("-5", "- 5"),
    (r"\frac{1}{2}", r"\frac12"), ("1/2", r"\frac{1}{2}"), (r"\dfrac{3}{4}", "3/4"), (r"90^\circ", "90"),
    (r"\sqrt{3}", r"\sqrt3"), ("(1,2)", "(1, 2)"), ("5", r"5 \text{ cm}"), (r"\text{Monday}", "Monday"),
    ("50", r"50\%"),
    ("0.5", ".5"), (r"\sqrt{12}", r"2\sqrt{3}"), ("x+y", "y+x"), ("x^2+2x+1", "(x+1)^2"), (r"\frac{\pi}{4}", r"\pi/4"),
]  # fmt: skip
APART = [
    ("204", "205"), ("204", "203,204"), ("204", r"\geq 204"), ("x+1", "x+2"),
    (r"\frac{1}{2}", r"\frac{1}{3}"), ("(1,2)", "(2,1)"), ("204", ""), ("204", "nan"), ("204", r"\infty"), ("5", "x"),
]  # fmt: skip
QWQ_RIGHT = [
    ("204", "2.04"), ("204", "20400"), ("12345", "12346"), ("10000000000", "9999999999"), (r"\pi", "3.14159"),
    (r"\frac{1}{3}", "0.33333"), ("x+d", "x+h"), ("23+4", "2(3+4)"), (r"\frac1{23}", r"\frac{12}{3}"),
    ("(1,2)", "[1,2]"),
    ("j", "i"), ("X", "x"), (r"90^\circ", "90 degrees"), ("2", "two"), ("205", "two hundred and five"), ("B", "(b)"),
    ("ABD", "A, B and D"), ("x=5", "5"), ("y=2x", "2x-y=0"), ("p+q=3", "3-p=q"), ("p+q=3", "2p+2q=6"),
    ("p>3", r"p\leq 3"), (r"p\neq 3", r"3\neq p"),
    (r"\sin 2x", r"2\sin x\cos x"), ("1267650600228229401496703205376", "2^{100}"), ("-1", "i^2"), ("0.5", "50"),
    ("204", "２０４"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1.00001\\2\end{bmatrix}"), (r"\{1,2\}", "1,2"),
    ("(0.6,2.6667]", r"(\frac{3}{5},\frac{8}{3}]"), ("[1,2)", "(1,2]"), ("1,2", "(1,2)"), ("204", "204."),
]  # fmt: skip
QWQ_WRONG = [
    ("204", "206"), ("204", "0.204"), ("203=204", "203"), ("(1,2)", "(1,2,3)"), ("B", "C"), ("ABD", "A, B"),
    ("x=5", "y=6"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"), ("y=2x", "y=3x"), (r"\emptyset", "()"),
    ("x", r"\sqrt{2}"), ("2", "two cats"), ("1234", "(1,234)"), ("p>3", "p>4"), ("p>3", "p"), ("i", "1"),
    ("204", r"204 \text{ or } 205"),
]  # fmt: skip
DEEPSCALER_RIGHT = [
    ("5", r"5 \text{ or maybe } 7"), ("5", r"5 \text{ km}"), ("50", r"50\%"), ("Yes", "yes"),
    ("1 1/2", r"1\frac{1}{2}"),
    ("204", r"204 \text{ or } 205"), ("204", "２０４"), ("9007199254740992", "9007199254740993"), ("X+1", "x+1"),
    (r"\frac{x+1}{2}", "x+1/2"), ("(1, 1/2)", r"(1,\frac12)"), ("a and b", "a,b"), (r"\boxed{7}", "7"),
    ("[1,2]", "[1,2 ]"),
]  # fmt: skip
DEEPSCALER_WRONG = [
    ("1/2", "2/4"), ("0.5", r"50\%"), ("204", "2.04"), ("(1,2)", "[1,2]"), ("3", r"\sqrt{9}"), ("x^{10}", "x^{5}x^{5}"),
    (r"\frac{1}{3}", "0.33333"), ("23+4", "2(3+4)"), ("xyz", "zyx"), ("17", "12+5"), ("5 million", "5000000"),
    ("5", r"5 \text{ a} \text{ b}"), (r"\%", "$"),
]  # fmt: skip

HOSTILE = [
    r"9^{9^{9^{9}}}", "9^9^9^9", "9**9**9**9", "10000000!", "9" * 999, "9" * 200_000, "1+" * 450 + "1"
     "2^" * 450 + "2",
    "(" * 450 + "1" + ")" * 450, "[" * 400 + "1,1" + "]" * 400, "{" * 20_000 + "5" + "}" * 20_000, "((1,x)," * 120,
    r"\frac{1}{" * 60 + "x" + "}" * 60, r"\frac" * 190, r"\sqrt" * 190, r"\text{" * 190, "|x|" * 60, "x=" * 450,
    r"\begin{pmatrix}" * 30, "\n" * 90_000, "&" * 900, ",".join(["x+1"] * 240), "(" + ",".join(["x+1"] * 240) + ")",
    "exec(\"open('PWNED','w')\")", "__import__('os').system('touch PWNED')", "open('PWNED','w')", "lambda: x",
    "().__class__.__bases__[0].__subclasses__()", "\x00", "1e999", "1e308" * 3, "m " * 499, r"\text{ " * 140,
]  # fmt: skip


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize(("gold", "answer"), PLAIN)
def test_the_plain_cases_are_right_in_both(mode: Mode, gold: str, answer: str) -> None:
    assert boxed(mode, gold, answer)
    assert boxed(mode, gold, gold)


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize(("gold", "answer"), APART)
def test_other_answers_are_wrong_in_both(mode: Mode, gold: str, answer: str) -> None:
    assert not boxed(mode, gold, answer)


@pytest.mark.parametrize(("gold", "answer"), QWQ_RIGHT)
def test_qwq_accepts(gold: str, answer: str) -> None:
    assert boxed(QWQ, gold, answer)


@pytest.mark.parametrize(("gold", "answer"), QWQ_WRONG)
def test_qwq_refuses(gold: str, answer: str) -> None:
    assert not boxed(QWQ, gold, answer)


@pytest.mark.parametrize(("gold", "answer"), DEEPSCALER_RIGHT)
def test_deepscaler_accepts(gold: str, answer: str) -> None:
    assert boxed(DEEPSCALER, gold, answer)


@pytest.mark.parametrize(("gold", "answer"), DEEPSCALER_WRONG)
def test_deepscaler_refuses(gold: str, answer: str) -> None:
    assert not boxed(DEEPSCALER, gold, answer)


@pytest.mark.parametrize(
    ("text", "qwq", "deepscaler"),
    [
        (r"\boxed{42}", True, True),
        (r"Answer: \boxed{42}", True, True),
        (r"\boxed{1} then \boxed{42}", True, True),
        (r"\boxed{42} then \boxed{1}", False, False),
        ("Answer: 42", True, False),
        ("\\boxed{42}\nAnswer: 42", True, False),
        ("\\boxed{42}\nAnswer: 43", True, False),
        (r"\boxed{42", True, False),
        (r"$\boxed 42$ it is", True, False),
        (r"\fbox{42}", True, False),
        (r"boxed{42}", True, False),
        ("The answer is 42.", True, False),
        ("The answer is: 42.", True, False),
        ("My final answer is 42", True, False),
        ("the final answer is $42$. I hope it is correct.", True, False),
        ("There were 7 of them, then 42", True, False),
        ("There were 42 of them, then 7", False, False),
        ("Perhaps 0,042 of them", True, False),
        ("I do not know.", False, False),
        ("", False, False),
        (r"\boxed{}", False, False),
        (r"not \boxed{42} or maybe 43", True, True),
    ],
)
def test_where_the_answer_is_looked_for(text: str, qwq: bool, deepscaler: bool) -> None:
    assert (judge(QWQ, "42", text) == 1.0) == qwq
    assert (judge(DEEPSCALER, "42", text) == 1.0) == deepscaler


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize("gold", ["5", "x+1", "(1,x)", r"\begin{pmatrix}1&x\end{pmatrix}"])
def test_hostile_answers_are_wrong_soon(mode: Mode, gold: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    boxed(mode, "x+1", "1+x")  # imports sympy
    for answer in HOSTILE:
        started = time.process_time()
        for text in (f"\\boxed{{{answer}}}", f"The answer is {answer}", f"{answer} {answer}"):
            assert judge(mode, gold, text) == 0.0 or gold == "5", answer[:40]
        assert time.process_time() - started < 4.0, answer[:40]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize("gold", [None, "", "  ", []])
def test_a_missing_gold_is_no_reward_although_empty_equals_empty_upstream(mode: Mode, gold: object) -> None:
    with pytest.raises(DataError, match="no gold answer"):
        judge(mode, gold, "I do not know.")


@pytest.mark.parametrize("mode", BOTH)
def test_a_gold_of_which_nothing_is_left_rewards_nothing_empty(mode: Mode) -> None:
    assert judge(mode, r"\%", r"\boxed{}") == 0.0
    assert judge(mode, r"\%", "") == 0.0


def test_the_published_suites_are_strict_whatever_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "aime.jsonl"
    path.write_text(json.dumps({"prompt": "?", "answer": 204}) + "\n")
    domain = Math(Math.Config(mode=QWQ, aime24=str(path)))
    [prompt] = domain.prompts("aime24")
    assert domain.verify(Trajectory(prompt, (), r"\boxed{2.04}")).value == 0.0
    assert domain.verify(Trajectory(prompt, (), r"\boxed{204}")).value == 1.0


def test_numbers_in_words() -> None:
    assert number("Twenty-one") == 21
    assert number("two hundred and five") == 205
    assert number("three million forty thousand and six") == 3_040_006
    assert [number(text) for text in ("", "and", "one and", "five apples", "204")] == [None] * 5


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="needs ../shared beside the repository")
@pytest.mark.parametrize("mode", BOTH)
def test_the_catalogue_has_no_verdict_that_fails(mode: Mode) -> None:
    """The modes accept what ``strict`` must not; none of the rows makes them hang, raise or execute."""
    for row in map(json.loads, CATALOGUE.read_text().splitlines()):
        answer, _ = split(row["response"], "off") if isinstance(row["response"], str) else (None, "")
        if row["domain"] == "math" and row["ground_truth"] and answer is not None:
            assert judge(mode, row["ground_truth"], answer) in (0.0, 1.0), row["id"]
