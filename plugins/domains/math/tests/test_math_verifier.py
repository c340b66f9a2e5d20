"""The verifier against hand-written answers: right ones in other words, wrong ones dressed up, and attacks."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from m2rl_core.errors import DataError
from m2rl_core.rewards.reasoning import split
from m2rl_core.types import Prompt, Reward, Trajectory
from m2rl_domain_math import Math

CATALOGUE = Path(__file__).resolve().parents[5] / "shared" / "data" / "adversarial.jsonl"
DOMAIN = Math(Math.Config())


def judge(gold: object, text: str) -> Reward:
    return DOMAIN.verify(Trajectory(Prompt("p", "math", (), gold), (), text))


def boxed(gold: str, answer: str) -> bool:
    return judge(gold, f"\\boxed{{{answer}}}").value == 1.0


RIGHT = [
    # numbers
    ("204", "204"), ("204", "0204"), ("204", "204.0"), ("204", "+204"), ("204", "204."), ("204", "408/2"),
    ("-5", "- 5"), ("-5", "−5"), ("1234", "1,234"), ("1,234", "1234"), ("1234567", "1{,}234{,}567"),
    ("32349", r"32,\! 349"), ("1000", "10^3"), ("1000", r"1\,000"), ("0.001", "10^{-3}"),
    ("1500", r"1.5 \times 10^3"), ("120", "5!"),
    ("12345678901234567890123456789012345678902", "12345678901234567890123456789012345678902"),
    ("1267650600228229401496703205376", "2^{100}"), ("5", "{5}"), ("5", "$5$"), ("5", r"\(5\)"), ("5", r"\text{5}"),
    ("204", "(" * 40 + "204" + ")" * 40),
    # fractions
    (r"\frac{1}{2}", "0.5"), ("0.5", r"\frac12"), ("1/2", "2/4"), (r"\frac1{23}", "1/23"), (r"\dfrac{1}{2}", ".5"),
    ("3.5", r"3\frac{1}{2}"), ("7/2", "3 1/2"), (r"\frac{1}{3}", r"0.\overline{3}"), ("1", r"0.\overline{9}"),
    # percent, units
    ("0.5", r"50\%"), (r"50\%", r"\frac{1}{2}"), (r"28\%", r"28 \text{ percent}"), ("204", r"204 \text{ cm}"),
    (r"5\text{ cm}", "5"), ("5 cm", r"5\text{ centimeters}"), (r"6\text{ cm}^2", r"6\text{ square centimeters}"),
    (r"90^\circ", "90"), ("90", r"90^{\circ}"), ("5", r"\$5"), (r"6\pi\text{ cm}", r"6\pi"),
    # symbols
    ("(x+1)^2", "x^2+2x+1"), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"), (r"2\sqrt{3}", r"\sqrt{12}"),
    ("2√3", r"\sqrt{12}"), (r"\sqrt{2}", "2^{1/2}"), (r"\log_2 8", "3"), (r"\sin 2x", r"2\sin x\cos x"),
    (r"\frac{\pi}{4}", "π/4"), ("2+3i", "3i+2"), (r"\frac{a}{b}", "a/b"), ("x", r"\frac{x^2}{x}"),
    ("0.5x", r"\frac{x}{2}"), (r"\frac{7x}{2}", r"3\frac{1}{2}x"), (r"6\sqrt{2}", r"2(3)\sqrt{2}"), ("x y", "yx"),
    (r"\binom{5}{2}", "10"),
    # equations and inequalities
    ("204", "x=204"), ("204", "204=x"), ("204", "x=200+4=204"), ("x=5", "5"), ("y=2x+1", "y-2x=1"),
    ("x^2+y^2=1", "2x^2+2y^2=2"), ("x>3", "3<x"), ("x>3", "-x<-3"), ("1<x<2", "2>x>1"), ("[1,2]", r"1\leq x\leq 2"),
    (r"x\in[1,2]", "[1,2]"), (r"(-\infty,3)", "x<3"), ("(p,q)=(3,2)", "(3,2)"),
    # structures
    ("(1,2)", "(1, 2)"), ("(1,2)", r"\left(1,\frac42\right)"), ("1,2", "2,1"), (r"\{1,2\}", r"\{2,1,1\}"),
    ("1,2", "1 and 2"), (r"\pm 2", "2,-2"), ("x=2,x=-2", r"x=\pm 2"),
    (r"(-\infty,1)\cup(2,\infty)", r"(2,\infty)\cup(-\infty,1)"), ("3:4", "3:4"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ \frac{4}{2} \end{bmatrix}"),
    (r"x_{1}=1,\quadx_{2}=2", "1, 2"), ("(1,2),(3,4)", "(3,4),(1,2),(1, 2)"), ("x=2or-3", "2, -3"),
    ("p=5,q=2;p=7,q=2", "(7,2),(5,2)"), ("p=5,q=2;p=7,q=2", r"p=7, q=2 \text{ or } p=5, q=2"), ("1,2,3", "1,2;3"),
    ("x=1;y=2", "x=1,y=2"), (r"14{,}916", r"14 {, }916"),
    # ranges
    ("(1,2)", "1<x<2"), ("(a,b)", "a<x<b"), (r"(-\infty,-1)", "-1>x"), ("(-3,3)", "|x|<3"), ("|x|<3", "(-3,3)"),
    (r"(-\infty,-3]\cup[3,\infty)", r"|x|\geq 3"), (r"1<|x|\leq\frac32", r"x\in[-\frac32,-1)\cup(1,\frac32]"),
    (r"x\neq 5", "x != 5"), ("x != 5", r"x\ne 5"),
    (r"(-\infty,3)\cup(3,\infty)", r"x\neq 3"), (r"x\neq 3", r"(3,\infty)\cup(-\infty,3)"),
    # long decimals of numbers that no decimal equals
    (r"\frac{1}{12}", "0.0833333333333333"), ("2/3", "0.666666666666667"), (r"-\frac17", "-0.142857142857142857"),
    ("0.333333333333333", r"\frac13"), ("4.123105625617661", r"\sqrt{17}"), ("3.14159265358979", r"\pi"),
    # indices, roots in exponents, sums
    ("a_n=2a_{n-1}+1", "a_n-1=2a_{n-1}"), (r"10^{\frac{-5+\sqrt{13}}{6}}", r"10^{\frac{\sqrt{13}-5}{6}}"),
    (r"F_n=\sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n=\sum_{k=0}^{n-1} F_{n-k-1} F_k"),
    # fonts, fences and other commands for the same
    ("204", r"\bf 204"), ("204", r"\Large{204}"), ("204", r"\ 204\ "), (r"\frac13", r"0.\bar{3}"),
    (r"\frac16", r"0.1\bar{6}"), (r"\mathbb{R}", r"\mathbb R"), ("ℝ", r"(-\infty,+\infty)"),
    ("120", r"\dbinom{10}{3}"), (r"\emptyset", r"\varnothing"), (r"\emptyset", "∅"), ("|x|", r"\lvert x\rvert"),
    (r"1010_{2}", "1010_2"), (r"(-\infty,\infty)", r"\mathbb{R}"),
    (r"\emptyset", r"\{\}"), ("5", r"\mbox{5}"), ("5", r"\boldsymbol{5}"), ("5", r"5\text{ sq. units}"),
    (r"(-\infty,1)\cup(2,\infty)", r"x<1 \text{ or } x>2"), (r"x\leq 1 \text{ or } x>2", r"(2,\infty)\cup(-\infty,1]"),
    # words, and what only compares as text
    (r"\text{Monday}", "Monday"), ("Yes", r"\text{yes}"), ("A", "(A)"),
    (r"\sum_{k=1}^{n} a_k", r"\sum_{k=1}^{n} a_k"),
    (r"\frac{(3-\sqrt{3})(2-\sqrt{3})^{2016}}{6}", r"\frac{(3-\sqrt{3})(2-\sqrt{3})^{2016}}{6}"),
]  # fmt: skip

WRONG = [
    # near misses: no tolerance anywhere
    ("204", "205"), ("12345", "12346"), ("10000000000", "9999999999"), ("0.0000002", "0.0000001"),
    ("1", "0.9999999999"), (r"\frac{1}{3}", "0.333333"), (r"\pi", "3.14159"),
    (r"\pi", "3.141592653589793238462643383279502884197"), (r"\sqrt{2}", "1.41421356237"), ("0", "10^{-60}"),
    (r"\sqrt{2}", r"\sqrt{2}+10^{-60}"), ("204", "2.04"), ("204", "20400"),
    (r"\frac{\pi^2}{6}", r"\sum_{i=1}^{10000000} \frac{1}{i^2}"),
    (r"\frac{1}{12}", "0.08333333333333"), (r"\frac{1}{12}", "0.0833333333333334"), ("2/3", "0.666666666666666"),
    ("0.123456789012346", "0.1234567890123456"), ("0.1234567890123456", "0.123456789012346"),
    ("4.12310562561766", r"\sqrt{17}+10^{-14}"), ("4.1231", r"\sqrt{17}"), ("1", "0.999999999999999999"),
    (r"\frac{1}{3}", "0.33333333333333333x"), ("0", "0.0000000000000000000001"),
    # percent is one hundredth, units must agree, letters are no units
    ("50", r"50\%"), (r"50\%", "50"), (r"5\text{ km}", r"5\text{ m}"), (r"90^\circ", r"\frac{\pi}{2}"),
    ("204", "204m"), ("204", "204 bananas"), (r"6\text{ cm}^2", r"6\text{ cm}^3"),
    # what concatenates or parses to the gold
    ("12345", "12 345"), ("12345", "123,45"), ("12345", "1,2345"), ("1234", "(1,234)"), ("12", "1 2"), ("1 2", "12"),
    ("23+4", "2(3+4)"), (r"5\sqrt{2}", r"2(3)\sqrt{2}"), ("4x", "(3)(1)x"), ("x^4", "x^{3(1)}"), ("5", "2[3]"),
    (r"\frac{1}{23}", r"\frac{12}{3}"), ("1500", "1.5e3"),
    # hedges and structures that contain the gold
    ("204", "203,204"), ("204", "204,204"), ("204", "204 or 205"), ("204", r"204 \text{ and } 205"),
    ("5", r"5 \text{ or maybe } 7"), ("204", r"\{204\}"), ("204", "[204]"), ("204", r"204 \pm 0"),
    ("204", "204or205"), ("5", "5oranges"),
    ("204", r"204 \pm 100"), ("2", r"\pm 2"), ("204", "204..."), ("5", "5;6"), ("5", r"5\\6"), ("5", "5|6"),
    ("1,2", "1,2,3"), ("1,2", "1,1"), ("1,1,2", "1,2,2"), ("1, 2", "1, 2, ..."),
    # false equations, inequalities
    ("204", "203=204"), ("204", "1=2=204"), ("204", "x=203=204"), ("204", "x+1=204"), ("204", "2x=204"),
    ("204", r"\geq 204"), ("204", r"x\geq 204"), ("204", ">204"), ("204", r"\approx 204"), ("5", r"5\ne 6"),
    ("x=5", "y=5"), ("x>3", r"x\geq 3"), ("x>3", "x<3"), ("x^2+y^2=1", "x^2+y^2=2"), ("y=2x", "y=x"),
    ("x=5", "5=5=5"), ("204", "="), ("204", "=204="),
    (r"(-\infty,3)", "|x|<3"), ("(1,3)", "1<|x|<3"), ("x>3", "|x|>3"), (r"(0,\infty)", "1<x>0"), (r"(1,2)", "x<2"),
    (r"(-\infty,\infty)", r"x\neq 3"), (r"(-\infty,3)\cup(3,\infty)", r"x\neq -3"),
    (r"(-\infty,3)\cup(3,\infty)", r"|x|\neq 3"), (r"(-\infty,3]\cup[3,\infty)", r"x\neq 3"),
    ("5", "x != 5"), ("5", "5 != 6"),
    ("1010_{2}", "1010_{3}"), ("1010", "1010_2"), ("x^{2}3", "x^{23}"), (r"\mathbb{R}", r"\mathbb{Z}"),
    (r"\mathbb{R}", "R"),
    (r"\mathbb{R}", r"(-\infty,0)"), (r"\mathbb{R}", r"[-\infty,\infty]"), (r"\emptyset", r"\{0\}"),
    (r"\emptyset", "0"),
    (r"(-\infty,1)\cup(2,\infty)", r"x\leq 1 \text{ or } x>2"), (r"(-\infty,1)\cup(2,\infty)", r"x<1, x>3"),
    (r"(1,2)", "x>1, x<2"), (r"(-\infty,1)\cup(2,\infty)", "x<1"), (r"(-\infty,1)\cup(2,\infty)", "1,2"),
    # brackets and order mean something
    ("(1,2)", "[1,2]"), ("[1,2)", "(1,2]"), ("(1,2)", "(2,1)"), ("(1,2)", r"\{1,2\}"), ("[1,2)", "1<x<2"),
    ("3:4", "4:3"), (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    (r"\infty", r"-\infty"), ("204", r"\infty"),
    ("p=5,q=2;p=7,q=2", "(2,5),(2,7)"), ("p=5,q=2;p=7,q=2", "(5,7),(2,2)"), ("(1,2)", "(1,2),(1,2)"),
    ("1,2", "(1),(2),(2)"), ("1,2", "1,2,2"),
    (r"\sum_{k=0}^{n} a_k b_k", r"\sum_{k=1}^{n} b_k a_k"), (r"\sum_{k=0}^{n} a_k b_k", r"\sum_{k=0}^{n} b_k a_k + 0"),
    (r"\sum_{k=0}^{n} a_k + 1", r"\sum_{k=0}^{n} 1 + a_k"), ("a_{n-1}", "a_{n+1}"),
    # letters
    ("x+d", "x+h"), ("x+a", "x+A"), ("x", "X"), ("e", "E"), ("i", "j"), ("i", "I"), ("|x|", "x"),
    (r"\sqrt{x^2}", "x"), (r"\text{Monday}", "Mondya"), ("No", "Yes"), ("204", r"\text{nan}"), ("nan", "0"),
    (r"\frac{a}{b}", "b/a"),
    # digits that are not ASCII, and look-alikes
    ("204", "２０４"), ("5", "٥"), ("5", "5\u200b"), ("x", "х"), ("a", "а"),
]  # fmt: skip

HOSTILE = [
    r"9^{9^{9^{9}}}", r"9^{9^{9^{x}}}", r"((((x^{64})^{64})^{64})^{64})", r"(((9^{64})^{64})^{64})\sqrt{2}",
    r"e^{e^{e^{e^{x}}}}", r"10000000!", r"(99!)!", r"99!99!99!x", r"x!!", r"\sum_{i=1}^{10000000} i",
    r"\prod_{i=1}^{10^9} i", r"\int_0^1 x dx", "9" * 999, "9" * 200_000, "1+" * 450 + "1", "2^" * 450 + "2",
    "-" * 900 + "1", "(" * 450 + "1" + ")" * 450, "{" * 20_000 + "5" + "}" * 20_000,
    r"\frac{1}{" * 60 + "x" + "}" * 60, r"\log_{2}{" * 9 + "x" + "}" * 9, r"\log_{x}{" * 9 + "x" + "}" * 9,
    "|x|" * 60, "x^{" * 9 + "x" + "}" * 9, r"\cos^{2} (\log_{\log_{\tan x^{x+1}}{2}}{2})", r"(a+b+c+d+f)^{64}",
    r"\exp(\exp(\exp(\exp(x))))", r"\binom{999999}{500000}", "exec(\"open('PWNED','w')\")",
    "__import__('os').system('touch PWNED')", "().__class__.__bases__[0].__subclasses__()", "open('PWNED','w')",
    "lambda: 5", "5 if True else 6", "x.subs(x,5)", r"\begin{pmatrix}" * 30, "{" * 500, "}" * 500, "\\" * 999, "\x00",
    "√" * 300,
    r"9^{\frac{\frac{6400}{1}\sqrt{9}}{6}}", r"9^{\frac{\sqrt{4}}{\frac{1}{9999999999}}}",
    r"9^{\frac{\sqrt{4}}{\frac{\sqrt{1}}{9999999999}}}", r"9^{\frac{x}{\frac{1}{9999999999}}}",
    r"2^{\sqrt{99999}}x", r"9^{{5}{64}{64}}",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}" * 20, r"2\begin{pmatrix}1\end{pmatrix}", "(1,2);" * 100,
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_right_in_other_words(gold: str, answer: str) -> None:
    assert boxed(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong_however_close(gold: str, answer: str) -> None:
    assert not boxed(gold, answer)


@pytest.mark.parametrize("gold", ["5", "x+1", r"\sqrt{2}"])
@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_answers_are_wrong_soon(
    gold: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    boxed("x+1", "1+x")  # imports sympy
    started = time.process_time()
    reward = judge(gold, f"\\boxed{{{answer}}}")
    assert reward.value == 0.0
    assert time.process_time() - started < 4.0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Answer: 204", True),
        ("**Answer:** 204", True),
        ("**Answer: 204**", True),
        ("Answer: $204$.", True),
        ("Some steps.\nFinal Answer: The final answer is $204$. I hope it is correct.", True),
        ("The answer is 204.", True),
        ("We get \\boxed{204}. So the final answer is \\boxed{204.0}.", True),
        ("Answer: \\boxed{204}", True),
        ("$\\boxed{\\boxed{204}}$", True),
        ("\\boxed {204}", True),
        ("The answer is easy to see. \\boxed{204}", True),
        ("The answer is not 205. Answer: 204", True),
        ("The answer is **204**.", True),
        ("Answer:\n204", True),
        ("**Final Answer:**\n\n$$\n204\n$$\n\nIt was easy.", True),
        (r"\textbf{Answer: } $204$", True),
        ("The answer is thus $204$.", True),
        ("Answer:\n204\n205", False),
        ("Answer:\n204\n\nAnswer:\n205", False),
        ("Answer:\n204 or 205", False),
        ("Answer:\nWe add 4 to 200.\n\n204", False),
        ("Answer: **2**04", False),
        ("It cannot be \\boxed{204}.", False),
        ("\\boxed{204} is wrong.", False),
        ("Put it into \\boxed{}. It is \\boxed{204}.", True),
        ("Final Answer: The largest $n$ is 204.", True),
        ("Final Answer: The volume of $ABCD$ is 204. I hope it is correct.", True),
        ("The final answer is $204$. I hope it is correct. Otherwise it is $205$.", False),
        ("Final Answer: Our guess is 204.", False),
        ("Final Answer: The largest $n$ is not 204.", False),
        ("Final Answer: The largest of 203 and 204 is 204.", False),
        ("Final Answer: The largest $n$, or maybe the smallest, is 204.", False),
        ("Final Answer: The largest $n$ is 204 or 205.", False),
        ("Final Answer: The largest $n$ is at least 204.", False),
        ("The largest $n$ is $204$.", False),
        ("$204$", False),
        ("204", False),
        ("I cannot decide, but there are 204 cases.", False),
        ("The answer is 204 or maybe 205.", False),
        ("Answer: 204 or 205", False),
        ("Answer: 204\nAnswer: 205", False),
        ("Answer: 205\n\\boxed{204}", False),
        ("\\boxed{205} \\boxed{204}", False),
        ("\\boxed{2}\\boxed{04}", False),
        ("\\boxed{204} or maybe 205", False),
        ("It is not \\boxed{204}.", False),
        ("\\boxed{204", False),
        ("\\boxed 204", False),
        ("\\boxed{}", False),
        ("\\boxed{the number \\boxed{204}}", False),
        ("boxed{204}", False),
        ("Answer:", False),
        ("The answer: 204 = 205 - 1 is what I would say", False),
        ("\\boxed{1}\\boxed{2} " * 40, False),
    ],
)
def test_what_counts_as_an_answer(text: str, right: bool) -> None:
    assert (judge("204", text).value == 1.0) == right


def test_several_boxes_may_be_one_list() -> None:
    assert judge("1, -2", r"$\boxed{-2}$ and $\boxed{1}$").value == 1.0
    assert judge("(1,2),(3,4)", r"\boxed{(3,4)}, \boxed{(1,2)}").value == 1.0
    assert judge("12345", r"\boxed{12} and \boxed{345}").value == 0.0
    assert judge("12,345", r"\boxed{12} and \boxed{345}").value == 0.0
    assert judge("1", r"\boxed{1} and \boxed{2}").value == 0.0


@pytest.mark.parametrize(
    "text", [r"\boxed{28}\%", r"$\boxed{28}$ percent", r"\boxed{ 28 }$\%$", r"\boxed{28\%}", r"\boxed{0.28}"]
)
def test_a_percent_sign_may_stand_behind_the_box(text: str) -> None:
    assert judge(r"28\%", text).value == 1.0
    assert judge(r"29\%", text).value == 0.0


def test_a_percent_sign_behind_the_box_changes_no_other_gold() -> None:
    assert judge("28", r"\boxed{28}\%").value == 1.0
    assert judge("28", r"\boxed{0.28}\%").value == 0.0
    assert judge(r"28\%", r"\boxed{28} of 100\%").value == 0.0
    assert judge(r"28\%", r"\boxed{0.28}\%").value == 0.0
    assert judge(r"0.28\%", r"\boxed{0.28}\%").value == 1.0


@pytest.mark.parametrize(
    "gold", [None, "", "  ", [], {}, True, math.nan, math.inf, "$$", r"\text{ }", r"\boxed{}", "()", "[]", "."]
)
def test_a_missing_gold_is_no_reward(gold: object) -> None:
    with pytest.raises(DataError, match="no gold answer"):
        judge(gold, "")
    with pytest.raises(DataError, match="no gold answer"):
        judge(gold, rf"\boxed{{{gold}}}")


def test_numbers_may_be_gold() -> None:
    assert judge(204, r"\boxed{204}").value == 1.0
    assert judge(1e-05, r"\boxed{0.00001}").value == 1.0
    assert judge(1e20, r"\boxed{10^{20}}").value == 1.0


def test_a_gold_may_be_boxed_or_the_only_one_of_a_list() -> None:
    assert judge('["204"]', "Answer: 204").value == 1.0
    with pytest.raises(DataError, match="not exactly one gold answer"):
        judge('["204", "205"]', "Answer: 204")
    assert judge(r"$\boxed{204}$", "Answer: 204").value == 1.0
    assert judge(r"\boxed{2} or \boxed{3}", r"\boxed{2}").value == 0.0
    assert judge(r"\{\}", r"\boxed{\{\}}").value == 1.0


def test_500_simple_answers_a_second() -> None:
    answers = [(str(n), f"Thus we find $x = {n}$.\n\n\\boxed{{{n if n % 3 else n + 1}}}") for n in range(1000)]
    started = time.process_time()
    right = sum(judge(gold, text).value == 1.0 for gold, text in answers)
    assert right == 666
    assert time.process_time() - started < 2.0


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="needs ../shared beside the repository")
@pytest.mark.parametrize("tier", ["must", "control", "hardened"])
def test_the_catalogue(tier: str) -> None:
    rows = [row for row in map(json.loads, CATALOGUE.read_text().splitlines()) if row["domain"] == "math"]
    judged = [row for row in rows if row["tier"] == tier]
    assert judged
    for row in judged:
        answer, _ = split(row["response"], "required" if row["metadata"].get("reasoning") == "think" else "off")
        if not row["ground_truth"]:
            with pytest.raises(DataError):
                judge(row["ground_truth"], answer or "")
            continue
        value = 0.0 if answer is None else judge(row["ground_truth"], answer).value
        assert value == row["expected_reward"], row["id"]
