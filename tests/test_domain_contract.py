"""The domain contract passes a sound domain and names what is unsound about the others."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest

from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.testing import DomainContract
from m2rl_core.types import Conversation, Message, Prompt, Reward, Suite, Trajectory


class Quiz(Domain):
    """Asks for the double of a number."""

    name: ClassVar[str] = "quiz"
    reference: ClassVar[str] = "none"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @property
    def suites(self) -> Mapping[str, Suite]:
        return {"quiz-odd": Suite("generated")}

    def _ask(self, number: int) -> Message:
        return Message(role="user", content=f"twice {number}?")

    def prompts(self, split: str) -> Iterable[Prompt]:
        first = 100 if split == "train" else 101
        return [Prompt(f"{n}", self.name, (self._ask(n),), str(2 * n)) for n in range(first, first + 60, 2)]

    def demonstrations(self) -> Iterator[Conversation]:
        for n in range(200, 300, 2):
            said = Message(role="assistant", content=f"<think>{n}+{n}</think>{2 * n}")
            yield Conversation(f"{n}", self.name, (self._ask(n), said))

    def verify(self, trajectory: Trajectory) -> Reward:
        if not trajectory.prompt.ground_truth:
            raise ValueError("no gold")
        return Reward(1.0 if trajectory.answer == trajectory.prompt.ground_truth else 0.0)


class TestQuiz(DomainContract):
    domain = Quiz(ComponentConfig())
    right = "{}"

    @pytest.fixture(autouse=True)
    def _importable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        importable(monkeypatch)


def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other processes import this module, as they import a plugin's."""
    here = Path(__file__)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setitem(sys.modules, here.stem, sys.modules[__name__])
    for each in vars(sys.modules[__name__]).copy().values():
        if isinstance(each, type) and each.__module__ == __name__:
            monkeypatch.setattr(each, "__module__", here.stem)


class Leaky(Quiz):
    def prompts(self, split: str) -> Iterable[Prompt]:
        return super().prompts("train")


class Repeating(Quiz):
    def prompts(self, split: str) -> Iterable[Prompt]:
        return [*super().prompts(split), *super().prompts(split)]


class Empty(Quiz):
    def prompts(self, split: str) -> Iterable[Prompt]:
        return super().prompts(split) if split == "train" else ()


class Gullible(Quiz):
    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(1.0 if trajectory.answer in ("", trajectory.prompt.ground_truth) else 0.0)


class Lenient(Quiz):
    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(1.0 if trajectory.answer.isdigit() and len(trajectory.answer) < 9 else 0.0)


class Harsh(Quiz):
    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(0.0)


class Telling(Quiz):
    def _ask(self, number: int) -> Message:
        return Message(role="user", content=f"say {2 * number}")


class Unclosed(Quiz):
    def demonstrations(self) -> Iterator[Conversation]:
        for shown in super().demonstrations():
            yield Conversation(
                shown.id, shown.domain, (shown.messages[0], Message(role="assistant", content="<think>"))
            )


class Fickle(Quiz):
    asked = count()

    def prompts(self, split: str) -> Iterable[Prompt]:
        return list(super().prompts(split))[next(self.asked) % 7 :]


class Unplain(Quiz):
    def prompts(self, split: str) -> Iterable[Prompt]:
        return [replace(prompt, metadata={"made by": self._ask}) for prompt in super().prompts(split)]


class Moody(Quiz):
    """Another verdict in every process."""

    def verify(self, trajectory: Trajectory) -> Reward:
        return replace(super().verify(trajectory), reason=str(os.getpid()))


class Heavy(Quiz):
    def verify(self, trajectory: Trajectory) -> Reward:
        __import__("torch")
        return super().verify(trajectory)


class Spinning(Quiz):
    """Backtracks for ever on answers of many zeros."""

    verify_seconds = 1.0

    def verify(self, trajectory: Trajectory) -> Reward:
        while len(trajectory.answer) == 50_000:
            pass
        return super().verify(trajectory)


class Sleeping(Quiz):
    verify_seconds = 1.0

    def verify(self, trajectory: Trajectory) -> Reward:
        time.sleep(1000.0 if trajectory.answer == "Answer:" else 0.0)
        return super().verify(trajectory)


UNSOUND: list[tuple[type[Quiz], str]] = [
    (Leaky, "test_evaluation_prompts_are_not_trained_on"),
    (Repeating, "test_prompts_have_ids_of_their_own_and_end_with_a_question"),
    (Empty, "test_every_split_has_prompts"),
    (Gullible, "test_junk_is_wrong_and_quick"),
    (Gullible, "test_a_prompt_without_gold_earns_nothing"),
    (Lenient, "test_the_answer_to_another_prompt_is_wrong"),
    (Harsh, "test_gold_is_right"),
    (Telling, "test_the_prompt_does_not_tell_its_answer"),
    (Unclosed, "test_demonstrations_close_their_reasoning"),
    (Fickle, "test_prompts_and_demonstrations_are_the_same_every_time"),
    (Unplain, "test_prompts_are_plain_data"),
    (Moody, "test_verdicts_are_the_same_every_time_and_need_no_torch"),
    (Heavy, "test_verdicts_are_the_same_every_time_and_need_no_torch"),
    (Spinning, "test_junk_is_wrong_and_quick"),
    (Sleeping, "test_junk_is_wrong_and_quick"),
]


@pytest.mark.parametrize(("domain", "check"), UNSOUND)
def test_what_is_unsound_is_found(domain: type[Quiz], check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    importable(monkeypatch)
    checked = type("Checked", (TestQuiz,), {"domain": domain(ComponentConfig())})()
    with pytest.raises((AssertionError, AttributeError, TypeError, pickle.PicklingError)):
        getattr(checked, check)()


def test_every_check_can_fail() -> None:
    checks = {name for name in vars(DomainContract) if name.startswith("test_")}
    assert {check for _, check in UNSOUND} == checks


@pytest.mark.parametrize(("domain", "junk"), [(Spinning, "'0000"), (Sleeping, "'Answer:'")])
def test_what_hangs_is_ended_and_named(domain: type[Quiz], junk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    importable(monkeypatch)
    checked = type("Checked", (TestQuiz,), {"domain": domain(ComponentConfig())})()
    with pytest.raises(AssertionError, match=f"takes longer than verify_seconds: {junk}"):
        checked.test_junk_is_wrong_and_quick()


def test_a_domain_may_know_its_right_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own ``gold`` comes before the contract's template."""
    prompt = next(iter(Quiz(ComponentConfig()).prompts("train")))
    assert TestQuiz().gold(prompt) == "200"
    monkeypatch.setattr(Quiz, "gold", lambda self, prompt: f"say {prompt.ground_truth}")
    assert TestQuiz().gold(prompt) == "say 200"


def test_a_contract_shows_what_it_found() -> None:
    """pytest rewrites the assertions of a distribution that brings fixtures, those that are imported late too."""
    with pytest.raises(AssertionError, match=r"assert .*0\.0"):
        type("Checked", (TestQuiz,), {"domain": Harsh(ComponentConfig())})().test_gold_is_right()


def test_the_contracts_of_what_needs_no_torch_do_not_import_it() -> None:
    names = "AlgorithmContract, AnalyzerContract, DomainContract"
    code = f"import sys; from m2rl_core.testing import {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError, match="cannot import name 'EngineContract'"):
        from m2rl_core.testing import EngineContract  # type: ignore[attr-defined]  # noqa: F401
