r"""How ``qwq-compat`` spells an answer before it compares: units, percent signs, names and words taken off."""

from __future__ import annotations

import re

from m2rl_domain_math.compat.hendrycks import full_fractions, replaced, sided, slashed
from m2rl_domain_math.compat.words import number
from m2rl_domain_math.units import UNITS

__all__ = ["spelled"]

_FIRST = (
    ("bmatrix", "pmatrix"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\neq", "\\ne"), ("\\leq", "\\le"),
    ("\\geq", "\\ge"), ("\\left", ""), ("\\right", ""), ("\\{", "{"), ("\\}", "}"),
)  # fmt: skip
_ARRAYS = (
    (re.compile(r"\\begin\{array\}\{.*?\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{array\}"), r"\\end{pmatrix}"),
)
_LAST_TEXT = re.compile(r"\\text\{.*?\}$")
_LETTERS = "a|c|d|g|h|l|m|o|s|t"
_NOUNS = "percent|mark|coin|apple|toy|m[ae]n|wom[ae]n|prime|number|more|less|loss|gain|profit|increase|decrease"
_COMMANDS = frozenset({"in", "time", "times"})
_WORDS = sorted((word for word in UNITS if word.isalpha() and len(word) > 1 and word not in _COMMANDS), key=len)[::-1]
_UNIT = re.compile(rf"(^|\W)(?:{'|'.join(_WORDS)}|{_NOUNS}|{_LETTERS})s?($|\W)")
_FENCES = (("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""), ("$", ""), ("\\(", ""), ("\\)", ""))
_NAMES = tuple((name + sign, "") for sign in ("=", "\\in", "\\to") for name in "xyz")
_THEN = (
    ("\\emptyset", "{}"), ("(-\\infty,\\infty)", "\\mathbb{R}"), ("\\%", ""), ("%", ""), (" .", " 0."),
    ("{.", "{0."), ("infinity", "\\infty"),
)  # fmt: skip
_WRAPPED = re.compile(r"\\text\{(.*?)\}")
_HIDDEN = re.compile(r"\\mbox\{.*?\}")
_ZEROS = re.compile(r"([0-9]+)\.0*(?![0-9])")
_BARE_ROOT = re.compile(r"\\sqrt(\w+)")


def spelled(text: str) -> str:
    """``text`` in the evaluator's spelling; what is nothing but a unit stays."""
    text = text.strip().replace("\n", "").rstrip(".").replace("\\!", "")
    for pattern, replacement in _ARRAYS:
        text = pattern.sub(replacement, text)
    text = replaced(text, _FIRST)
    text = _LAST_TEXT.sub("", text).strip() or text
    for _ in range(2):
        text = _UNIT.sub(r"\1\2", text) or text
    text = replaced(text, _FENCES)
    words = number(text)
    text = text if words is None else str(words)
    text = replaced(_WRAPPED.sub(r"\1", text), _NAMES + _THEN)
    if "\\infty" not in text:
        text = text.replace("inf", "\\infty")
    text = _HIDDEN.sub("", replaced(text, (("and", ""), ("\\mathbf", ""))))
    if "i" not in text:
        text = text.replace("j", "i")
    return _short(_ZEROS.sub(r"\1", text))


def _short(text: str) -> str:
    if text.startswith("."):
        text = "0" + text
    text = _BARE_ROOT.sub(r"\\sqrt{\1}", sided(text)).replace(" ", "")
    return slashed(full_fractions(text), also="sqrt")
