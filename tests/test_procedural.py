"""Generated prompts: exact splits, even levels, suites that end, and a share of hasty demonstrations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from m2rl_core.errors import DataError
from m2rl_core.procedural import ProceduralConfig, ProceduralDomain
from m2rl_core.rows import messages, rows
from m2rl_core.types import Message, Prompt, Reward, Suite, Trajectory


@dataclass(frozen=True)
class Square:
    """``n`` times ``n``, in one of two phrasings."""

    level: int
    n: int
    phrase: str

    @property
    def identity(self) -> tuple[int | str, ...]:
        return (self.n,)

    def prompt(self, key: str) -> Prompt:
        message = Message(role="user", content=self.phrase.format(self.n))
        return Prompt(key, "squares", (message,), str(self.n**2), {"level": self.level})

    def worked(self) -> tuple[Message, ...]:
        return (Message(role="assistant", content=f"<think>{self.n}*{self.n}</think>{self.n**2}"),)

    def guessed(self, draw: Random) -> tuple[Message, ...]:
        return (Message(role="assistant", content=f"<think></think>{draw.randrange(100)}"),)


class Squares(ProceduralDomain):
    """Level 1 has 40 numbers, level 2 another 40."""

    name = "squares"
    reference = "a test"
    levels = {1: "small", 2: "large"}
    Config = ProceduralConfig

    def __init__(self, config: ProceduralConfig) -> None:
        self.config = config

    def questions(self, level: int, draw: Random) -> Iterator[Square]:
        while True:
            yield Square(level, draw.randrange(40) + 40 * (level - 1), draw.choice(("{}^2?", "Square {}.")))

    def rows(self) -> Iterator[Prompt]:
        yield Prompt("train/0", self.name, (Message(role="user", content=self.config.source),), "1")

    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(float(trajectory.answer == trajectory.prompt.ground_truth))


def squares(**config: object) -> Squares:
    return Squares(ProceduralConfig.model_validate({"levels": (1, 2)} | config))


def numbers(domain: Squares, split: str) -> list[int]:
    return [int(prompt.ground_truth) for prompt in domain.prompts(split)]


def test_training_and_evaluation_never_meet_whatever_the_phrasing() -> None:
    domain = squares(size=2000)
    trained, held_out, hard = (numbers(domain, s) for s in ("train", "squares-heldout", "squares-hard"))
    shown = [
        int(c.messages[1]["content"].partition("</think>")[2]) for c in islice(squares(hasty=0).demonstrations(), 2000)
    ]
    assert not set(held_out + hard) & set(trained + shown)
    assert set(held_out) | set(trained) == {n**2 for n in range(80)}


def test_a_suite_asks_nothing_twice_and_ends_where_nothing_is_left() -> None:
    held_out = [prompt.messages[0]["content"] for prompt in squares().prompts("squares-heldout")]
    assert 10 < len(held_out) == len(set(held_out)) < 60
    assert all(n >= 1600 for n in numbers(squares(), "squares-hard"))


def test_levels_take_turns() -> None:
    assert Counter(prompt.metadata["level"] for prompt in squares(size=100).prompts("train")) == {1: 50, 2: 50}
    assert {prompt.metadata["level"] for prompt in squares(levels=(2,), size=9).prompts("train")} == {2}


@pytest.mark.parametrize("hasty", [0.0, 0.3, 1.0])
def test_a_share_of_the_demonstrations_is_hasty(hasty: float) -> None:
    shown = list(islice(squares(hasty=hasty).demonstrations(), 1000))
    empty = sum("<think></think>" in conversation.messages[-1]["content"] for conversation in shown)
    assert empty / 1000 == pytest.approx(hasty, abs=0.05)


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    assert numbers(squares(), "train") == numbers(squares(), "train") != numbers(squares(seed=1), "train")


def test_a_file_replaces_what_is_generated() -> None:
    domain = squares(source="rows.jsonl")
    assert [prompt.id for prompt in domain.prompts("train")] == ["train/0"]
    assert not domain.suites
    assert not list(domain.demonstrations())


def test_an_unknown_split_names_those_there_are() -> None:
    with pytest.raises(DataError, match=r"squares-heldout.*squares-hard"):
        list(squares().prompts("test"))


class Narrow(Squares):
    """Levels that ask one number each; which of them are held out is up to the hash."""

    levels = {level: str(level) for level in range(1, 21)}

    def questions(self, level: int, draw: Random) -> Iterator[Square]:
        while True:
            yield Square(level, level, "{}^2?")


def test_a_level_with_nothing_on_one_side_of_the_split_ends_and_says_so() -> None:
    domain = Narrow(ProceduralConfig(levels=tuple(range(1, 21)), size=100))
    held_out = numbers(domain, "squares-heldout")
    assert len(held_out) == len(set(held_out)) < 20
    assert not set(held_out) & set(numbers(domain, "train"))
    with pytest.raises(DataError, match=r"squares: level \d+ has no question that may be trained on"):
        list(islice(domain.demonstrations(), 100))


def test_checking_reads_a_file_to_its_end() -> None:
    class Broken(Squares):
        def rows(self) -> Iterator[Prompt]:
            yield from super().rows()
            raise DataError("row 2 has no gold")

    squares().check()
    squares(source="rows.jsonl").check()
    with pytest.raises(DataError, match="row 2 has no gold"):
        Broken(ProceduralConfig(source="rows.jsonl")).check()


class Contest(Squares):
    """With two published suites."""

    name = "contest"
    published = {
        "open-24": Suite("maths/open-24", k=4),
        "closed": Suite("maths/closed", missing="ask the authors for a copy"),
    }

    class Config(ProceduralConfig):
        open_24: str | None = None
        closed: str | None = None

    def published_prompts(self, suite: str, source: str) -> Iterator[Prompt]:
        return (Prompt(suite, self.name, messages(*placed)) for placed in rows(source, ()))


def contest(**config: str) -> Contest:
    return Contest(Contest.Config.model_validate(config))


def test_a_published_suite_is_read_from_the_copy_that_the_settings_name(tmp_path: Path) -> None:
    (path := tmp_path / "open.jsonl").write_text('{"question": "1^2?"}\n')
    domain = contest(open_24=str(path))
    assert [prompt.messages[0]["content"] for prompt in domain.prompts("open-24")] == ["1^2?"]
    suite = domain.suites["open-24"]
    assert (suite.source, suite.k, suite.missing) == (str(path), 4, "")
    domain.check()


@pytest.mark.parametrize(
    ("suite", "advice"),
    [
        ("open-24", "download maths/open-24 as .jsonl or .parquet and set domains.contest.open_24 to its path"),
        ("closed", "ask the authors for a copy and set domains.contest.closed to its path"),
    ],
)
def test_without_a_copy_a_published_suite_says_how_to_get_one(suite: str, advice: str, tmp_path: Path) -> None:
    assert contest().suites[suite].missing == advice
    contest().check()
    nowhere = str(tmp_path / "nowhere.jsonl")
    for domain in (contest(), contest(**{suite.replace("-", "_"): nowhere})):
        with pytest.raises(DataError, match=f"suite '{suite}'.*{advice}"):
            domain.prompts(suite)
    with pytest.raises(DataError, match=f"suite '{suite}'.*nowhere"):
        domain.check()


def test_a_check_reads_the_copies_to_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "open.jsonl"
    path.write_text("")
    with pytest.raises(DataError, match="suite 'open-24' has no prompt"):
        contest(open_24=str(path)).check()
    path.write_text('{"question": "1^2?"}\n{}\n')
    with pytest.raises(DataError, match="row 2 asks nothing"):
        contest(open_24=str(path)).check()
