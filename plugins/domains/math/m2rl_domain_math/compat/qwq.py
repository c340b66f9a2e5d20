r"""``qwq-compat``: the verdicts of the paper's evaluator, QwQ-32B's.

The answer is the last ``boxed``, or else what follows "he answer is" or "final answer is", or else the last number of
the text. Two answers are the same as text, as floats to 0.01 % and up to a factor of 100, without their brackets, part
by part, or as expressions. Facts: QwenLM/QwQ, ``eval/eval/math_opensource_utils``.
"""

from __future__ import annotations

import re
from contextlib import suppress
from math import isclose

from m2rl_core.answers import UnreadableError, rational
from m2rl_core.types import Reward
from m2rl_domain_math.compat.hendrycks import LONGEST_NAME
from m2rl_domain_math.compat.spelling import spelled
from m2rl_domain_math.symbolic import factor, number, same

__all__ = ["judge"]

LONGEST_TEXT, LONGEST = 100_000, 1_000
"""Characters of a final answer, and of the claim taken out of it."""
DEEPEST = 6
"""Structures within structures."""
TOLERANCE = 1e-4
"""Relative difference of two numbers that count as equal."""

_MINERVA = re.compile(r"final answer is \$(.*?)\$\. I hope", re.DOTALL)
_NUMBER = re.compile(r"-?\d*\.?\d+")
_CHOICES = frozenset("ABCDE")
_CHOICE = re.compile(r"\b[A-E]\b")
_LIST = re.compile(r"[(\[].+[)\]]")
_MATRIX = re.compile(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}")
_RELATION = re.compile(r"\\[lgn]e|[<>]=?|=")
_GLUED = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|log|ln|exp|pi|theta|alpha|beta|cdot|times)(?=[A-Za-z])")
_BRACKETS = str.maketrans("", "", "{}()")


def judge(gold: str, answer: str) -> Reward:
    """1 where ``answer``, a text without its reasoning, gives ``gold``, which is not empty; else 0."""
    if len(answer) > LONGEST_TEXT:
        return Reward(0.0, f"unreadable: an answer of {len(answer)} characters")
    claim = re.sub(r"\n\s*", "", _claim(answer)).removeprefix(":").removesuffix(".").removesuffix("/")
    if len(claim) > LONGEST:
        return Reward(0.0, f"unreadable: a claim of {len(claim)} characters")
    expected = spelled(gold)
    given = _chosen(spelled(spelled(claim)), expected)
    if _equal(given, expected, DEEPEST):
        return Reward(1.0, "equal")
    return Reward(0.0, f"not the gold answer: {claim[:80]}" if claim else "no answer")


def _claim(text: str) -> str:
    if minerva := _MINERVA.search(text):
        return minerva.group(1).strip()
    if "boxed" in text:
        return _boxed(text.rpartition("boxed")[2])
    for label in ("he answer is", "final answer is"):
        if label in text:
            return text.rpartition(label)[2].strip()
    numbers = _NUMBER.findall(text.replace(",", ""))
    return numbers[-1] if numbers else ""


def _boxed(text: str) -> str:
    """The group that ``text`` begins with, closed or not; without one, everything before the next ``$``."""
    if not text.startswith("{"):
        return text.partition("$")[0].strip()
    depth = 0
    for brace in re.finditer("[{}]", text):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[1 : brace.start()]
    return text[1:]


def _chosen(answer: str, gold: str) -> str:
    """The letters of ``answer`` where ``gold`` is one of A to E, or several of them."""
    if gold in _CHOICES:
        return _choice(answer)
    if gold and _CHOICES.issuperset(gold):
        return "".join(sign for sign in answer if sign in _CHOICES)
    return answer


def _choice(answer: str) -> str:
    letters = _CHOICE.findall(answer.upper())
    return letters[-1] if letters else answer.strip(" .").rstrip("/")


def _equal(answer: str, gold: str, depth: int) -> bool:
    answer, gold = answer.strip(), gold.strip()
    if not answer or not gold:
        return False
    if answer.lower() == gold.lower() or (gold in _CHOICES and _choice(answer) == gold):
        return True
    values = _value(answer), _value(gold)
    if values[0] is not None and values[1] is not None:
        return any(isclose(values[0], values[1] * factor, rel_tol=TOLERANCE) for factor in (0.01, 1, 100))
    if depth == 0:
        return False
    return _equal_bare(answer, gold) or _equal_parts(answer, gold, depth - 1) or _equal_sides(answer, gold, depth - 1)


def _value(text: str) -> float | None:
    with suppress(ValueError):
        return float(text.replace(",", ""))
    return None


def _equal_bare(answer: str, gold: str) -> bool:
    """Whether nothing but brackets tells them apart."""
    enclosed = (answer[0] + answer[-1], gold[0])
    if enclosed[0] in ("[]", "()") and enclosed not in (("[]", "("), ("()", "[")):
        answer, gold = answer.strip("[]()"), gold.strip("[]()")
    answer, gold = answer.translate(_BRACKETS), gold.translate(_BRACKETS)
    return bool(gold) and answer.lower() == gold.lower()


def _equal_parts(answer: str, gold: str, depth: int) -> bool:
    """Whether they are lists, whatever their brackets, or matrices, and equal part by part."""
    if _LIST.match(answer) and _LIST.match(gold):
        return _pairwise(answer[1:-1].split(","), gold[1:-1].split(","), depth)
    one, other = _MATRIX.fullmatch(answer), _MATRIX.fullmatch(gold)
    if not one or not other:
        return False
    rows, wanted = _rows(one.group(1)), _rows(other.group(1))
    return len(rows) == len(wanted) and all(_pairwise(a, g, depth) for a, g in zip(rows, wanted, strict=True))


def _rows(matrix: str) -> list[list[str]]:
    return [row.split("&") for row in matrix.split("\\\\") if row.strip()]


def _pairwise(answers: list[str], golds: list[str], depth: int) -> bool:
    return len(answers) == len(golds) and all(_equal(a, g, depth) for a, g in zip(answers, golds, strict=True))


def _equal_sides(answer: str, gold: str, depth: int) -> bool:
    """Relations by the difference of their sides, whatever the sign; ``k=5`` by its right side; else as expressions."""
    sides, wanted = _RELATION.split(answer), _RELATION.split(gold)
    if len(sides) == len(wanted) == 2:
        return _same_relation((sides[0], sides[1]), (wanted[0], wanted[1]))
    if len(wanted) == 1 and _named(answer) and _equal(answer.partition("=")[2], gold, depth):
        return True
    if len(sides) == 1 and _named(gold) and _equal(answer, gold.partition("=")[2], depth):
        return True
    return _same(answer, gold)


def _named(text: str) -> bool:
    return text.count("=") == 1 and len(text.partition("=")[0].strip()) <= LONGEST_NAME


def _same_relation(answer: tuple[str, str], gold: tuple[str, str]) -> bool:
    with suppress(UnreadableError):
        return factor((_spaced(gold[0]), _spaced(gold[1])), (_spaced(answer[0]), _spaced(answer[1]))) != 0
    return False


def _same(answer: str, gold: str) -> bool:
    """Whether two expressions are equal, or their values nearly so; a comma makes them no expression."""
    if "," in answer or "," in gold:
        return False
    answer, gold = _spaced(answer), _spaced(gold)
    values = _number(answer), _number(gold)
    if values[0] is not None and values[1] is not None:
        return isclose(values[0], values[1], rel_tol=TOLERANCE)
    with suppress(UnreadableError):
        return same(gold, answer)
    return False


def _number(text: str) -> float | None:
    """The value of an expression that is a real number."""
    with suppress(UnreadableError, OverflowError):
        exact = rational(text)
        value = number(text) if exact is None else complex(exact)
        return None if value.imag else value.real
    return None


def _spaced(text: str) -> str:
    """``text`` with the spaces after commands that the spelling has taken out."""
    return _GLUED.sub(r"\g<0> ", text)
