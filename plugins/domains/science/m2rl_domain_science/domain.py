"""The domain: where questions come from, and how an answer is judged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import count, cycle, islice
from random import Random
from typing import ClassVar

from pydantic import Field, field_validator

from m2rl_core.answers import UnreadableError, fold
from m2rl_core.errors import DataError
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.rows import gold, messages, rows
from m2rl_core.seeding import derive
from m2rl_core.types import Conversation, Message, Prompt, Reward, Suite, Trajectory
from m2rl_domain_science.choice import LETTERS, chosen, is_pattern
from m2rl_domain_science.questions import LEVELS, questions, solution

__all__ = ["Science"]

DATASETS = frozenset({"nano_v3_sft_profiled_stem_mcqa"})
HELD_OUT, HARD = 512, 256
PATIENCE = 1_000
"""Questions in a row that were asked before, after which a level counts as exhausted."""
HARDEST = max(LEVELS)


class Science(Domain):
    """Multiple-choice questions with up to ten options, A to J."""

    name: ClassVar[str] = "science"
    reference: ClassVar[str] = "the paper's section 3.1; NeMo-Gym's mcqa resources server"
    verify_seconds: ClassVar[float] = 10.0

    class Config(ComponentConfig):
        source: str = "generated"
        """``generated``: procedural questions. Otherwise a local .jsonl file in the blend's schema."""
        levels: tuple[int, ...] = Field((1, 2, 3), min_length=1)
        """Difficulties of the generated questions, mixed evenly; ``science-hard`` asks the hardest whatever this is."""
        size: int = Field(4096, gt=0)
        """Generated training prompts."""
        noise: float = Field(0.35, ge=0.0, le=1.0)
        """Share of demonstrations whose last result is miscalculated, so that SFT leaves RL something to do."""
        seed: int = 0
        """Of the generated questions."""

        @field_validator("levels")
        @classmethod
        def _known(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
            if unknown := set(levels) - set(LEVELS):
                raise ValueError(f"no level {sorted(unknown)}; allowed: {sorted(LEVELS)}")
            return levels

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def suites(self) -> Mapping[str, Suite]:
        if self.config.source != "generated":
            return {}
        return {
            "science-heldout": Suite("generated", "The levels of the training prompts, other numbers", max_tokens=64),
            "science-hard": Suite("generated", f"Level {HARDEST}: {LEVELS[HARDEST]}", max_tokens=64),
        }

    def prompts(self, split: str) -> Iterator[Prompt]:
        if split == "train" and self.config.source != "generated":
            return self._read()
        if split == "train":
            return islice(self._generate(split, self.config.levels, evaluation=False), self.config.size)
        if split not in self.suites:
            raise DataError(f"science has no prompts '{split}'", allowed=["train", *self.suites])
        levels, size = ((HARDEST,), HARD) if split == "science-hard" else (self.config.levels, HELD_OUT)
        return islice(self._generate(split, levels, evaluation=True), size)

    def demonstrations(self) -> Iterator[Conversation]:
        """Endless worked solutions of questions that are not held out."""
        if self.config.source != "generated":
            return
        draw = Random(derive(self.config.seed, self.name, "demonstrations"))
        sources = [questions(level, draw, evaluation=False) for level in LEVELS]
        for index, source in zip(count(), cycle(sources), strict=False):
            question = next(source)
            said = solution(question, draw, self.config.noise)
            turns = (Message(role="user", content=question.text), Message(role="assistant", content=said))
            yield Conversation(f"demonstration/{index:06d}", self.name, turns)

    def verify(self, trajectory: Trajectory) -> Reward:
        """1 where the answer chooses the gold letter and no other, else 0.

        Raises:
            DataError: the prompt's gold, options or pattern are no such thing.
        """
        letter, options, pattern = _key(trajectory.prompt)
        try:
            found = chosen(trajectory.answer, options, pattern)
        except UnreadableError as error:
            return Reward(0.0, f"unreadable: {error}")
        if not found:
            return Reward(0.0, "no answer")
        named = " and ".join(sorted(found))
        return Reward(1.0, named) if found == {letter} else Reward(0.0, f"chose {named}")

    def _generate(self, split: str, levels: tuple[int, ...], *, evaluation: bool) -> Iterator[Prompt]:
        """Prompts, the levels in turn. An evaluation asks nothing twice and leaves a level that has no more to ask."""
        draw = Random(derive(self.config.seed, self.name, split))
        sources = deque(questions(level, draw, evaluation=evaluation) for level in levels)
        asked: set[str] = set()
        index = 0
        while sources:
            source = sources.popleft()
            question = next((each for each in islice(source, PATIENCE) if each.text not in asked), None)
            if question is None:
                continue
            sources.append(source)
            if evaluation:
                asked.add(question.text)
            yield Prompt(
                id=f"{split}/{index:06d}",
                domain=self.name,
                messages=(Message(role="user", content=question.text),),
                ground_truth=question.letter,
                metadata={"level": question.level, "options": question.texts},
            )
            index += 1

    def _read(self) -> Iterator[Prompt]:
        for index, (place, row) in enumerate(rows(self.config.source, DATASETS)):
            metadata = {name: row[name] for name in ("options", "template_metadata") if row.get(name)}
            prompt = Prompt(f"train/{index:06d}", self.name, messages(place, row), gold(place, row), metadata)
            try:
                _key(prompt)
            except DataError as error:
                raise DataError(f"{place}: {error}") from error
            yield prompt


def _key(prompt: Prompt) -> tuple[str, dict[str, str], str | None]:
    """The right letter, the options by letter, and the row's pattern.

    Raises:
        DataError: the letter is none of the options, the options are malformed, or the pattern is no expression.
    """
    options = _options(prompt)
    letter = fold(str(prompt.ground_truth or "")).strip().upper()
    if letter not in (options or set(LETTERS)):
        raise DataError(
            f"prompt '{prompt.id}' has no gold letter", found=repr(prompt.ground_truth), allowed=options or LETTERS
        )
    template = prompt.metadata.get("template_metadata") or {}
    pattern = template.get("output_regex") if isinstance(template, Mapping) else template
    if pattern and not is_pattern(pattern):
        raise DataError(f"prompt '{prompt.id}' has an output_regex that is no expression", found=repr(pattern))
    return letter, options, pattern or None


def _options(prompt: Prompt) -> dict[str, str]:
    """Letter → text, from ``[{"A": "..."}, ...]`` or ``{"A": "...", ...}``; empty where the row names none."""
    given = prompt.metadata.get("options") or []
    listed = [given] if isinstance(given, Mapping) else given
    pairs = [pair for each in listed for pair in each.items()] if _are_mappings(listed) else [("", "")]
    options = {fold(str(letter)).strip().upper(): str(text) for letter, text in pairs}
    if not set(options) <= set(LETTERS) or len(options) != len(pairs):
        raise DataError(
            f"prompt '{prompt.id}' has malformed options", found=repr(given)[:200], allowed="[{'A': text}, ...] up to J"
        )
    return options


def _are_mappings(listed: object) -> bool:
    return isinstance(listed, list) and all(isinstance(each, Mapping) for each in listed)
