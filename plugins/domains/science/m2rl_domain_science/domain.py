"""The domain: where questions come from, and how an answer is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from random import Random
from string import ascii_uppercase
from typing import Any, ClassVar, Literal

from pydantic import Field

from m2rl_core.answers import UnreadableError, fold
from m2rl_core.errors import DataError
from m2rl_core.procedural import ProceduralConfig, ProceduralDomain
from m2rl_core.rows import gold, messages, rows
from m2rl_core.types import Prompt, Reward, Suite, Trajectory
from m2rl_domain_science.choice import LETTERS, chosen, is_pattern
from m2rl_domain_science.freeform import answers, same
from m2rl_domain_science.questions import LEVELS, Question, questions
from m2rl_domain_science.suites import FREE, KINDS, PUBLISHED, published

__all__ = ["Science", "is_free", "key_text"]

DATASETS = frozenset({"nano_v3_sft_profiled_stem_mcqa"})
MOST_PATTERNS = 8
"""Of a row; each has its own limit of time."""


class Science(ProceduralDomain):
    """Multiple-choice questions, and free-form ones that have one right text or number."""

    name: ClassVar[str] = "science"
    reference: ClassVar[str] = "the paper's section 3.1; NeMo-Gym's mcqa resources server"
    verify_seconds: ClassVar[float] = 10.0
    levels: ClassVar[Mapping[int, str]] = LEVELS
    published: ClassVar[Mapping[str, Suite]] = PUBLISHED

    class Config(ProceduralConfig):
        levels: tuple[Literal[1, 2, 3, 4], ...] = Field((1, 2, 3), min_length=1)
        """Difficulties of the generated questions, mixed evenly; ``science-hard`` asks the hardest whatever this is."""

        seed: int = 0
        """Of the generated questions, and of the order of GPQA's options."""
        gpqa_diamond: str | None = None
        """Path of a local .jsonl copy of the diamond set of Idavidrein/gpqa: the suite ``gpqa-diamond``."""
        hle: str | None = None
        """Path of a local .jsonl copy of cais/hle: the suite ``hle``, which leaves out questions with an image."""

    config: Config

    def __init__(self, config: Config) -> None:
        self.config = config

    def questions(self, level: int, draw: Random) -> Iterator[Question]:
        return questions(level, draw)

    def rows(self) -> Iterator[Prompt]:
        return map(self._prompt, count(), rows(self.config.source, DATASETS))

    def published_prompts(self, suite: str, source: str) -> Iterator[Prompt]:
        return published(suite, source, self.name, self.config.seed)

    def _prompt(self, index: int, placed: tuple[str, Mapping[str, Any]]) -> Prompt:
        place, row = placed
        metadata = {name: row[name] for name in ("options", "template_metadata") if row.get(name)}
        prompt = Prompt(f"train/{index:06d}", self.name, messages(place, row), gold(place, row), metadata)
        try:
            _key(prompt)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        return prompt

    def gold(self, prompt: Prompt) -> str:
        return f"Answer: {prompt.ground_truth}"

    def verify(self, trajectory: Trajectory) -> Reward:
        """1 where the answer is the gold letter or, for a free-form question, the gold answer, and no other; else 0.

        Raises:
            DataError: the prompt's gold, options or pattern are no such thing.
        """
        prompt = trajectory.prompt
        try:
            return _free(prompt, trajectory.answer) if is_free(prompt) else _choice(prompt, trajectory.answer)
        except UnreadableError as error:
            return Reward(0.0, f"unreadable: {error}")


def is_free(prompt: Prompt) -> bool:
    """Whether the gold is a text, and not the letter of an option.

    Raises:
        DataError: an unknown ``answer_type``.
    """
    kind = prompt.metadata.get("answer_type")
    if kind is not None and kind not in KINDS:
        raise DataError(f"prompt '{prompt.id}' has an unknown answer_type", found=repr(kind), allowed=KINDS)
    return bool(kind == FREE)


def _choice(prompt: Prompt, answer: str) -> Reward:
    letter, options, patterns = _key(prompt)
    found = chosen(answer, options, patterns)
    if not found:
        return Reward(0.0, "no answer")
    named = " and ".join(sorted(found))
    return Reward(1.0, named) if found == {letter} else Reward(0.0, f"chose {named}")


def _free(prompt: Prompt, answer: str) -> Reward:
    gold = key_text(prompt)
    claimed = answers(answer)
    if not claimed:
        return Reward(0.0, "no answer")
    wrong = next((claim for claim in claimed if not same(gold, claim)), None)
    return Reward(1.0, "equal") if wrong is None else Reward(0.0, f"not the gold answer: {wrong[:80]}")


def key_text(prompt: Prompt) -> str:
    """The right answer to a free-form question.

    Raises:
        DataError: there is none.
    """
    gold = prompt.ground_truth
    text = str(gold).strip() if isinstance(gold, str | int | float) and not isinstance(gold, bool) else ""
    if not text:
        raise DataError(f"prompt '{prompt.id}' has no gold answer", found=repr(gold))
    return text


def _key(prompt: Prompt) -> tuple[str, dict[str, str], list[str]]:
    """The right letter, the options by letter, and the row's patterns.

    Raises:
        DataError: the letter is none of the options, the options are malformed, or the pattern is no expression.
    """
    options = _options(prompt)
    letter = fold(str(prompt.ground_truth or "")).strip().upper()
    if letter not in (options or set(LETTERS)):
        raise DataError(
            f"prompt '{prompt.id}' has no gold letter", found=repr(prompt.ground_truth), allowed=options or LETTERS
        )
    return letter, options, _patterns(prompt)


def _patterns(prompt: Prompt) -> list[str]:
    """The row's ``output_regex``: one expression or a list of them."""
    template = prompt.metadata.get("template_metadata") or {}
    given = template.get("output_regex") if isinstance(template, Mapping) else template
    patterns = given if isinstance(given, list) else [given] if given else []
    if len(patterns) > MOST_PATTERNS or not all(map(is_pattern, patterns)):
        raise DataError(f"prompt '{prompt.id}' has an output_regex that is no expression", found=repr(given))
    return patterns


def _options(prompt: Prompt) -> dict[str, str]:
    """Letter → text, from ``[{"A": "..."}, ...]`` or ``{"A": "...", ...}``; empty where the row names none."""
    given = prompt.metadata.get("options") or []
    listed = [given] if isinstance(given, Mapping) else given
    pairs = [pair for each in listed for pair in each.items()] if _are_mappings(listed) else [("", "")]
    options = {fold(str(letter)).strip().upper(): str(text) for letter, text in pairs}
    if not set(options) <= set(ascii_uppercase) or len(options) != len(pairs):
        raise DataError(
            f"prompt '{prompt.id}' has malformed options",
            found=repr(given)[:200],
            allowed="[{'A': text}, ...], a capital letter each",
        )
    return options


def _are_mappings(listed: object) -> bool:
    return isinstance(listed, list) and all(isinstance(each, Mapping) for each in listed)
