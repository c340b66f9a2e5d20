"""Domains that can make their own prompts, so that a study needs no download.

A plugin says what a question is (:class:`Question`) and how to draw endless ones of a level; :class:`ProceduralDomain`
makes of them the training prompts, two suites and demonstrations. A hash of a question's identity, its numbers and not
its wording, decides whether it may be trained on or is held out, so the two never meet. Real data takes their place
where the settings name it: rows to train on, and copies of published suites.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, cycle, islice
from random import Random
from typing import ClassVar, Protocol

from pydantic import Field

from m2rl_core.errors import DataError
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.judging.demonstrations import judgements
from m2rl_core.rows import on_hub
from m2rl_core.seeding import derive
from m2rl_core.types import Conversation, Message, Prompt, Suite

__all__ = ["ProceduralConfig", "ProceduralDomain", "Question"]

GENERATED = "generated"
HELD_OUT, HARD = 512, 256
"""Prompts of the two suites, at most."""
SHARE = 5
"""One question in so many is held out."""
PATIENCE = 5_000
"""Questions in a row of which none is wanted, after which a level counts as exhausted."""


class Question(Protocol):
    """One question with its gold answer and two ways to demonstrate an answer; hashable, e.g. a frozen dataclass."""

    @property
    def identity(self) -> tuple[int | str, ...]:
        """What is asked, whatever the wording."""
        ...

    def prompt(self, key: str) -> Prompt:
        """The question as the model sees it, with its gold; ``key`` is the prompt's id."""
        ...

    def worked(self) -> tuple[Message, ...]:
        """A right answer that is worked out before it is said."""
        ...

    def guessed(self, draw: Random) -> tuple[Message, ...]:
        """An answer that is not thought about, and seldom right."""
        ...


class ProceduralConfig(ComponentConfig):
    """Settings of every procedural domain; its own ``levels`` come on top."""

    source: str = GENERATED
    """``generated``: procedural prompts. Otherwise where rows of the blend's schema are (:func:`m2rl_core.rows.rows`):
    a local .jsonl or .parquet file, a folder of such files, or a hub id with its commit, ``OWNER/NAME@COMMIT``."""
    levels: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    """Difficulties of the generated prompts, mixed evenly; the hard suite asks the hardest whatever this is."""
    size: int = Field(4096, gt=0)
    """Generated training prompts."""
    hasty: float = Field(0.35, ge=0.0, le=1.0)
    """Share of demonstrations that guess instead of thinking, so that SFT leaves RL something to teach."""
    judged: float = Field(0.0, ge=0.0, le=1.0)
    """Share of demonstrations that judge an answer instead of giving one (:mod:`m2rl_core.judging`), so that a small
    model can be measured as a judge of its own answers. Only for answers of one turn."""
    seed: int = 0
    """Of the generated prompts."""


class ProceduralDomain(Domain, Protocol):
    """A domain whose prompts are generated unless ``config.source`` names rows.

    Suites: ``NAME-heldout`` has the training levels, ``NAME-hard`` the hardest one, and there are the published ones.
    """

    levels: ClassVar[Mapping[int, str]]
    """Level → what it asks; demonstrations show all of them."""
    max_tokens: ClassVar[int] = 64
    """Of an answer in the generated suites, all its turns together."""
    published: ClassVar[Mapping[str, Suite]] = {}
    """Suites of others, each with the hub id of its source; ``missing`` says how to get a copy, if not just by
    downloading it. Where the copy is says the setting of the same name, with underscores, ``None`` by default."""
    config: ProceduralConfig

    def questions(self, level: int, draw: Random) -> Iterator[Question]:
        """Endless questions of one level."""
        ...

    def rows(self) -> Iterator[Prompt]:
        """The prompts of the rows that ``config.source`` names.

        Raises:
            DataError: no such source, or a row that is no prompt of this domain; it names the row.
        """
        ...

    def published_prompts(self, suite: str, source: str) -> Iterator[Prompt]:
        """The prompts of one of :attr:`published`, from the copy ``source``.

        Raises:
            DataError: no such copy, or a row that is no prompt of the suite; it names the row.
        """
        raise TypeError(f"domain '{self.name}' publishes '{suite}' but has no published_prompts")

    def check(self) -> None:
        """Read the local files that the settings name to their ends, so that a bad row is found before training.

        The network is not used: of what lies on the hub, only the name and the commit are checked.
        """
        if self.config.judged and self.config.source == GENERATED:
            asked = self.questions(self.config.levels[0], Random(self.config.seed))
            self._judge(Random(self.config.seed))(next(asked), next(asked), "check")
        if self.config.source != GENERATED and not on_hub(self.config.source):
            for _ in self.rows():
                pass
        for name, suite in self.suites.items():
            local = name in self.published and not suite.missing and not on_hub(suite.source)
            if local and not sum(1 for _ in self.prompts(name)):
                raise DataError(f"suite '{name}' has no prompt", found=repr(suite.source))

    @property
    def suites(self) -> Mapping[str, Suite]:
        return {**self._generated_suites(), **{name: self._declared(name) for name in self.published}}

    def _generated_suites(self) -> dict[str, Suite]:
        if self.config.source != GENERATED:
            return {}
        hardest = max(self.levels)
        texts = {
            f"{self.name}-heldout": "The levels of the training prompts, other questions",
            f"{self.name}-hard": f"Level {hardest}: {self.levels[hardest]}",
        }
        return {name: Suite(GENERATED, text, max_tokens=self.max_tokens) for name, text in texts.items()}

    def _declared(self, name: str) -> Suite:
        """A published suite with its copy as the source, or with the advice how to get one."""
        copy = getattr(self.config, _setting(name))
        missing = "" if copy else self._advice(name)
        return dataclasses.replace(self.published[name], source=copy or self.published[name].source, missing=missing)

    def _advice(self, name: str) -> str:
        suite = self.published[name]
        get = suite.missing or f"download {suite.source} as .jsonl or .parquet"
        return f"{get} and set domains.{self.name}.{_setting(name)} to its path"

    def prompts(self, split: str) -> Iterator[Prompt]:
        if split == "train":
            if self.config.source != GENERATED:
                return self.rows()
            return islice(self._generate(split, self.config.levels, held_out=False), self.config.size)
        if (suite := self.suites.get(split)) is None:
            raise DataError(f"{self.name} has no prompts '{split}'", allowed=["train", *self.suites])
        if suite.missing:
            raise DataError(f"suite '{split}' has nothing to read", then=suite.missing)
        if split in self.published:
            return self._copied(split, suite.source)
        hard = split == f"{self.name}-hard"
        levels, size = ((max(self.levels),), HARD) if hard else (self.config.levels, HELD_OUT)
        return islice(self._generate(split, levels, held_out=True), size)

    def _copied(self, suite: str, source: str) -> Iterator[Prompt]:
        try:
            return self.published_prompts(suite, source)
        except DataError as error:  # there is no such file
            raise DataError(f"suite '{suite}': {error}", then=self._advice(suite)) from error

    def demonstrations(self) -> Iterator[Conversation]:
        """Endless answers to questions that are not held out, a share of them hasty, and a share of judgements."""
        if self.config.source != GENERATED:
            return
        draw = Random(derive(self.config.seed, self.name, "demonstrations"))
        judges = Random(derive(self.config.seed, self.name, "judgements"))
        judge = self._judge(judges)
        sources = {level: self._split(level, draw, held_out=False) for level in self.levels}
        for index, level in zip(count(), cycle(sources), strict=False):
            if (question := next(sources[level], None)) is None:
                raise DataError(f"{self.name}: level {level} has no question that may be trained on")
            if judges.random() < self.config.judged and (other := next(sources[level], None)) is not None:
                yield judge(question, other, f"demonstration/{index:06d}")
                continue
            said = question.guessed(draw) if draw.random() < self.config.hasty else question.worked()
            asked = question.prompt(f"demonstration/{index:06d}")
            yield Conversation(asked.id, self.name, (*asked.messages, *said), asked.tools)

    def _judge(self, draw: Random) -> Callable[[Question, Question, str], Conversation]:
        return judgements(self.name, draw, lambda shown: self.verify(shown).verdict == "right")

    def _split(self, level: int, draw: Random, *, held_out: bool) -> Iterator[Question]:
        """A level's questions of one side of the split, none twice in the same words if they are held out.

        Ends where the level has no more of them.
        """
        asked: set[Question] = set()
        missed = 0
        for question in self.questions(level, draw):
            here = (derive(self.name, *question.identity) % SHARE == 0) == held_out
            if here and question not in asked:
                missed = 0
                if held_out:
                    asked.add(question)
                yield question
            elif (missed := missed + 1) == PATIENCE:
                return

    def _generate(self, split: str, levels: Iterable[int], *, held_out: bool) -> Iterator[Prompt]:
        """Prompts, the levels in turn; a level that has no more to ask is left."""
        draw = Random(derive(self.config.seed, self.name, split))
        sources = deque(self._split(level, draw, held_out=held_out) for level in levels)
        numbers = count()
        while sources:
            source = sources.popleft()
            if (question := next(source, None)) is not None:
                sources.append(source)
                yield question.prompt(f"{split}/{next(numbers):06d}")


def _setting(suite: str) -> str:
    return suite.replace("-", "_")
