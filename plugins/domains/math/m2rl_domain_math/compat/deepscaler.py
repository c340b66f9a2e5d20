r"""``deepscaler-compat``: the verdicts of the released code's evaluator.

The last ``\boxed{X}`` after the last ``Answer:`` is the answer. It is right where its normalised text is the gold's, or
else where, kind by kind, it simplifies to it. Facts: ``deepscaler.py`` and ``math_utils.py`` in slime's ``rm_hub``.
"""

from __future__ import annotations

import re
from contextlib import suppress

from m2rl_core.answers import UnreadableError
from m2rl_core.types import Reward
from m2rl_domain_math.compat.hendrycks import full_fractions, replaced, sided, slashed
from m2rl_domain_math.compat.latex_text import as_text
from m2rl_domain_math.symbolic import same

__all__ = ["judge"]

LONGEST_TEXT, LONGEST = 100_000, 1_000
"""Characters of a final answer, and of what its box holds."""
MOST_LETTERS = 2
"""Different letters of two expressions together, ``sqrt`` and ``frac`` not counted, that are still simplified."""

_WORD = re.compile(r"\\text\{(.+?)\}$")
_SPELLINGS = (
    ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
    ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""),
)  # fmt: skip
_DECIMALS = (("\\%", ""), (" .", " 0."), ("{.", "{0."))
_BARE_ROOT = re.compile(r"\\sqrt(?!\{)(.)", re.DOTALL)

_SIGNS = (("\\%", ""), ("%", ""), ("\\$", ""), ("$", ""), (" or ", " , "), (" and ", " , "))
_SCALES = (("million", "*10^6"), ("billion", "*10^9"), ("trillion", "*10^12"))
_UNIT = re.compile(
    r"(?:centimeter|degree|second|minute|meter|month|mile|hour|week|year|foot|feet|inch|yard|day|cm)(?:es)?s?"
    r" *(?:\^[0-9]+)?"
)
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_FRACTION = re.compile(r"-?[0-9]+.?/0*[1-9][0-9]*.?")
_REFUSED = re.compile(r"\^[{(]|\^[0-9]+\^|\^[0-9][0-9]+")
_MARKS = "()[]"


def judge(gold: str, answer: str) -> Reward:
    """1 where ``answer``, a text without its reasoning, gives ``gold``, which is not empty; else 0."""
    if len(answer) > LONGEST_TEXT:
        return Reward(0.0, f"unreadable: an answer of {len(answer)} characters")
    given = _boxed(answer.rpartition("Answer:")[2])
    expected = _boxed(gold) if "\\boxed" in gold else gold
    if given is None or not expected:
        return Reward(0.0, "no box")
    if len(given) > LONGEST:
        return Reward(0.0, f"unreadable: a box of {len(given)} characters")
    if (text := _spelled(given)) and text == _spelled(expected):
        return Reward(1.0, "equal as text")
    if _equal(_normal(given), _normal(expected)):
        return Reward(1.0, "equal")
    return Reward(0.0, f"not the gold answer: {given[:80]}")


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed")
    if start < 0 or not text.startswith("\\boxed{", start):
        return None
    depth = 0
    for brace in re.compile("[{}]").finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[start + len("\\boxed{") : brace.start()]
    return None


def _spelled(text: str) -> str:
    """The text that is compared as such."""
    text = text.strip()
    if word := _WORD.match(text):
        text = word.group(1).strip()
    spelled = replaced(text, _SPELLINGS)
    value, *units = spelled.split("\\text{ ")
    if len(units) > 1:
        return text
    spelled = replaced(value, _DECIMALS)
    if spelled.startswith("."):
        spelled = "0" + spelled
    spelled = _BARE_ROOT.sub(r"\\sqrt{\1}", sided(spelled)).replace(" ", "")
    spelled = full_fractions(spelled)
    return slashed("1/2" if spelled == "0.5" else spelled)


def _normal(text: str) -> str:
    """The text whose parts are compared as numbers and expressions."""
    if word := _WORD.match(text):
        text = word.group(1)
    text = _UNIT.sub("", replaced(replaced(text, _SIGNS), _SCALES))
    text = re.sub(r"\^ *\\circ", "", text)
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = re.sub(r",\\! *", "", text)
    text = _whole(text) or text
    if "\\" in text:
        text = as_text(text)
    text = re.sub("- *", "-", text)
    text = re.sub("([0-9]) +([0-9])", r"\1+\2", text)
    text = replaced(text, ((" ", ""), ("{", ""), ("}", ""))).lower()
    return _whole(_THOUSANDS.sub("", text)) or text


def _whole(text: str) -> str | None:
    """The integer that ``text`` is to seven places, by way of a float and with its precision."""
    with suppress(ValueError, OverflowError):
        value = float(text)
        if abs(value - round(value)) <= 1e-7:
            return str(round(value))
    return None


def _equal(given: str, gold: str) -> bool:
    if not given or not gold:
        return False
    if given == gold:
        return True
    parts, wanted = _parts(given), _parts(gold)
    if len(wanted) > 1 and (given[0], given[-1]) != (gold[0], gold[-1]):
        return False
    return len(parts) == len(wanted) and all(map(_equal_parts, parts, wanted))


def _parts(text: str) -> list[str]:
    text = _THOUSANDS.sub("", text)
    enclosed = len(text) > 2 and text[0] in _MARKS and text[-1] in _MARKS
    if enclosed and not any(mark in text[1:-1] for mark in _MARKS):
        return [part.strip() for part in text[1:-1].split(",")]
    return [text]


def _equal_parts(given: str, gold: str) -> bool:
    """Fractions must be reduced alike; where one is an integer, both must be; the rest may simplify to the same."""
    if _FRACTION.fullmatch(given) and _FRACTION.fullmatch(gold):
        return given == gold
    if (_whole(given) is None) != (_whole(gold) is None):
        return False
    both = f"({gold})-({given})"
    letters = {sign for sign in replaced(both, (("sqrt", ""), ("frac", ""))) if sign.isalpha()}
    if len(letters) > MOST_LETTERS or _REFUSED.search(both):
        return False
    with suppress(UnreadableError):
        return same(gold, given)
    return False
