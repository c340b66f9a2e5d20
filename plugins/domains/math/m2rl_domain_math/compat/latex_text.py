r"""LaTeX written as plain text, in the way of a converter that knows no precedence: ``\frac{a+b}{c}`` is ``a+b/c``."""

from __future__ import annotations

import re

from m2rl_domain_math.compat.hendrycks import full_fractions, replaced

__all__ = ["as_text"]

MOST_ROUNDS = 16
"""Groups within groups that are written out."""

_SPELLINGS = (
    ("\\tfrac", "\\frac"), ("\\dfrac", "\\frac"), ("\\frac", " \\frac"), ("\\left", ""), ("\\right", ""),
    ("\\cdot", "*"), ("\\times", "*"), ("\\pi", "pi"), ("\\infty", "inf"), ("\\cup", "U"), ("√", "sqrt"),
    ("π", "pi"), ("∞", "inf"), ("∪", "U"), ("·", "*"), ("×", "*"), ("\\{", "{"), ("\\}", "}"),
)  # fmt: skip
_SPACE = re.compile(r"\\[,;:! ]|\\q?quad(?![A-Za-z])|~")
_INNERMOST = (
    (re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\sqrt\s*\{([^{}]*)\}"), r"sqrt(\1)"),
    (re.compile(r"\\(?:text|mathrm|mathbf|mathit|textbf|mbox)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"(?<![A-Za-z}\]])\{([^{}]*)\}"), r"\1"),
)


def as_text(latex: str) -> str:
    """``latex`` with fractions, roots and fonts written out from the innermost; other commands are left as they are."""
    text = full_fractions(_SPACE.sub(" ", replaced(latex, _SPELLINGS)))
    for _ in range(MOST_ROUNDS):
        before = text
        for pattern, replacement in _INNERMOST:
            text = pattern.sub(replacement, text)
        if text == before:
            break
    return text.strip()
