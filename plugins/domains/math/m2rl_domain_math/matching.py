"""Whether an answer is the gold answer: same text, same exact number, same words, or same expression, kind by kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from m2rl_core.answers import UnreadableError, compact, pieces, plain, rational, unwrap
from m2rl_domain_math.decimals import is_long, is_rounded, terminates
from m2rl_domain_math.ranges import interval
from m2rl_domain_math.shapes import ORDERED, UNORDERED, Link, Shape, is_name, shape
from m2rl_domain_math.symbolic import factor, number, same
from m2rl_domain_math.units import split_unit

__all__ = ["matches"]

LONGEST = 1_000
"""Characters of an answer."""
MOST_PARTS = 16
DEEPEST = 6
"""Structures within structures."""

_PERCENT = re.compile(r"(?<=[0-9}])\s*(?:\\text\s*\{\s*percent\s*\}|percent(?:age)?|pct)$")
_WRAPPED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|normal)?|math(?:rm|bf|it|sf)|mbox|emph|boldsymbol|operatorname)\s*\{([^{}]*)\}"
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]{2}[A-Za-z' -]*")

_SUM = re.compile(r"(?P<range>\\sum\s*_\{[^{}]*\}\s*\^(?:\{[^{}]*\}|[A-Za-z0-9]))\s*(?P<of>.+)")
_SIGNS = frozenset({"+", "-"})


def matches(gold: str, answer: str) -> bool:
    """Whether ``answer`` is right where ``gold`` is. Neither is trusted; nothing is executed.

    Raises:
        UnreadableError: the answer is beyond the bounds or cannot be read as an answer.
    """
    if len(answer) > LONGEST:
        raise UnreadableError(f"an answer of {len(answer)} characters")
    return _equal(_PERCENT.sub(r"\\%", plain(gold)), _PERCENT.sub(r"\\%", plain(answer)), DEEPEST)


def _equal(gold: str, answer: str, depth: int) -> bool:
    if compact(gold) == compact(answer):
        return bool(gold)
    if (equal := _numbers(gold, answer)) is not None:
        return equal
    if not gold or not answer or depth == 0:
        return False
    left, right = shape(gold), shape(answer)
    if "equation" in (left.kind, right.kind):
        return _equations(left, right, gold, answer, depth)
    if "relation" in (left.kind, right.kind):
        return _relations(left, right, depth - 1)
    if left.kind == right.kind == "scalar":
        return _scalars(left.parts[0], right.parts[0])
    return _parts(left, right, depth - 1)


def _parts(gold: Shape, answer: Shape, depth: int) -> bool:
    if {gold.kind, answer.kind} == {"list", "union"}:
        gold, answer = _united(gold), _united(answer)
    kinds = {gold.kind, answer.kind}
    if kinds == {"list", "set"} or (len(kinds) == 1 and kinds <= UNORDERED):
        return _in_any_order(gold.parts, answer.parts, depth)
    in_order = kinds == {"tuple", "list"} or (len(kinds) == 1 and kinds <= ORDERED and gold.marks == answer.marks)
    if not in_order or len(gold.parts) != len(answer.parts) or len(gold.parts) > MOST_PARTS:
        return False
    return all(_equal(g, a, depth) for g, a in zip(gold.parts, answer.parts, strict=True))


def _united(listed: Shape) -> Shape:
    r"""The intervals of ``x<1 \text{ or } x>2`` as their union; anything else as it is."""
    ranges = [interval(shape(part)) for part in listed.parts] if listed.kind == "list" else []
    known = [found for found in ranges if found is not None and found.kind != "union"]
    if not known or len(known) != len(ranges):
        return listed
    return Shape("union", tuple(f"{found.marks[0]}{','.join(found.parts)}{found.marks[1]}" for found in known))


def _in_any_order(gold: Sequence[str], answer: Sequence[str], depth: int) -> bool:
    """Whether each part has its partner."""
    left = list(answer)
    if len(gold) != len(left) or len(gold) > MOST_PARTS:
        return False
    for part in gold:
        match = next((index for index, other in enumerate(left) if _tolerant(part, other, depth)), None)
        if match is None:
            return False
        del left[match]
    return True


def _tolerant(gold: str, answer: str, depth: int) -> bool:
    try:
        return _equal(gold, answer, depth)
    except UnreadableError:
        return False


def _equations(gold: Shape, answer: Shape, gold_text: str, answer_text: str, depth: int) -> bool:
    """``x = 5`` is 5; a chain is right where every side is; other equations are the same up to a constant factor."""
    if answer.kind != "equation":
        named = gold.kind == "equation" and is_name(gold.parts[0])
        return named and _equal(gold.parts[1], answer_text, depth - 1)
    sides = list(answer.parts)
    if gold.kind != "equation":
        if is_name(sides[0]):
            del sides[0]
        elif len(sides) == 2 and is_name(sides[1]):
            del sides[1]
        return bool(sides) and all(_equal(gold_text, side, depth - 1) for side in sides)
    if compact(gold.parts[0]) == compact(sides[0]) and is_name(sides[0]):
        return all(_equal(gold.parts[1], side, depth - 1) for side in sides[1:])
    if len(gold.parts) == len(sides) == 2:
        return factor((gold.parts[0], gold.parts[1]), (sides[0], sides[1])) != 0
    return False


def _relations(gold: Shape, answer: Shape, depth: int) -> bool:
    """Inequalities are compared link by link; one of them may be an interval instead."""
    if gold.kind == answer.kind:
        left, right = gold.links, answer.links
        if not left or len(left) != len(right):
            return False
        return all(any(_same_link(link, other) for other in right) for link in left)
    one, other = (gold, answer) if gold.kind == "relation" else (answer, gold)
    allowed = interval(one)
    if allowed is None:
        return False
    return _parts(allowed, other, depth) if one is gold else _parts(other, allowed, depth)


def _same_link(gold: Link, answer: Link) -> bool:
    sign = factor((gold.less, gold.more), (answer.less, answer.more))
    return gold.sign == answer.sign and (sign > 0 or (sign < 0 and gold.sign == "\\neq"))


def _scalars(gold: str, answer: str) -> bool:
    (gold, gold_unit), (answer, answer_unit) = split_unit(gold), split_unit(answer)
    if gold_unit and answer_unit and gold_unit != answer_unit:
        return False
    gold, answer = _bare(gold), _bare(answer)
    if compact(gold) == compact(answer):
        return bool(gold)
    if (equal := _numbers(gold, answer)) is not None:
        return equal
    if words := _words(gold):
        return words == _words(answer)
    if is_long(gold):
        value = number(answer)
        return value.imag == 0 and is_rounded(gold, Fraction(value.real))
    return _same_sum(gold, answer) or same(gold, answer)


def _numbers(gold: str, answer: str) -> bool | None:
    """Whether they are the same exact number; ``None`` where one of them is none."""
    left, right = rational(gold), rational(answer)
    if left is None or right is None:
        return None
    decimal, exact = (answer, left) if terminates(right) else (gold, right)
    return left == right or (is_rounded(decimal, exact) and not terminates(exact))


def _same_sum(gold: str, answer: str) -> bool:
    """Whether both are sums over the same range, of the same product."""
    left, right = _SUM.fullmatch(gold), _SUM.fullmatch(answer)
    if not left or not right or compact(left["range"]) != compact(right["range"]):
        return False
    return not any(pieces(found["of"], _SIGNS)[1] for found in (left, right)) and same(left["of"], right["of"])


def _bare(text: str) -> str:
    """``text`` without brackets, a font or a plus sign around the whole of it."""
    text = unwrap(text)
    if font := _WRAPPED.fullmatch(text):
        text = unwrap(font.group(1))
    return text.removeprefix("+")


def _words(text: str) -> str:
    text = _WRAPPED.sub(r"\1", text).strip()
    return " ".join(text.casefold().split()) if _WORDS.fullmatch(text) else ""
