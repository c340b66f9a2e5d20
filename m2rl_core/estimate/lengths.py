"""How long sequences are taken to be: the one assumption about data, from which everything else follows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Lengths"]

PROMPT = 512
"""Tokens of a prompt, or half of ``max_tokens`` where that is less. A study does not say; the paper's limit is 2048."""


ALIGN = 16
"""Packed rows are a multiple of so many tokens long (:data:`m2rl_core.packing.ALIGN`)."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Sequences whose trained part is as likely to have any length up to ``longest`` as any other.

    So half of ``longest`` on average: nobody knows the responses of a model that is not trained yet, a limit is usually
    set at about twice the mean, and one limit fixes mean, mean square and tail together. Where responses are shorter,
    time is overestimated, about in proportion; memory is not affected.
    """

    prompt: int
    longest: int
    """Most tokens of a response."""

    @classmethod
    def of_samples(cls, max_tokens: int, context: int) -> Lengths:
        """Of episodes; the engine ends them where the model's context ends."""
        prompt = min(PROMPT, max_tokens // 2, context // 2)
        return cls(prompt, min(max_tokens, context - prompt))

    @property
    def mean(self) -> float:
        """Tokens of a response."""
        return self.longest / 2

    @property
    def tokens(self) -> float:
        """Of prompt and response."""
        return self.prompt + self.mean

    @property
    def whole(self) -> int:
        """Tokens of the longest sequence."""
        return self.prompt + self.longest

    @property
    def row(self) -> int:
        """Columns of the packed row that holds the longest sequence."""
        return -(-self.whole // ALIGN) * ALIGN

    @property
    def pairs(self) -> float:
        """(token, token that it attends to) in one sequence: half the mean of the square of its length."""
        return (self.prompt**2 + 2 * self.prompt * self.mean + self.longest**2 / 3) / 2

    @property
    def context(self) -> float:
        """Tokens before one that is drawn; long responses have more of those."""
        return self.prompt + self.longest / 3
