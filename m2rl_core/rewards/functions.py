"""A reward function and a file of rows as a domain: the least that can be trained on.

A local file that a study lists, ``plugins: [./my_reward.py]``, may hold just this::

    def reward(response, row):
        return float(row["answer"] in response)

It offers a domain that is called like the file. The function is given by name what it asks for: ``prompt``, the text of
the last message; ``response``, what the model says after its reasoning; ``row``, the row as it was read. It returns a
number in [0, 1] or a :class:`~m2rl_core.types.Reward`. Where it raises, returns something else or takes too long, the
*verifier* has failed, which is never a reward of 0. It runs in a worker that is killed at its limit and sees no
credentials; an ``async def`` is awaited in the core's own process, with the same limit, e.g. to ask a service.

Rows are JSON objects with a ``prompt``, text or a list of messages, or else in the blend's schema
(:mod:`m2rl_core.rows`). Those that have a ``completion``, in the same forms, are demonstrations, too.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from pydantic import Field, PositiveFloat

import m2rl_core
from m2rl_core.errors import ComponentError, DataError, nearest
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.rows import UnusableError, conversation, messages, numbered, on_hub
from m2rl_core.types import Conversation, Message, Prompt, Reward, Suite, Trajectory

__all__ = ["FUNCTION", "RewardConfig", "RewardDomain", "domain_of", "given", "reward_domain", "row_of"]

FUNCTION = "reward"
"""Name of the function that a local file is looked at for."""
GIVEN = ("prompt", "response", "row")
SHOWN = 80
"""Characters of a returned value that a message shows."""


class RewardConfig(ComponentConfig):
    """Settings of a domain that is made of a reward function."""

    source: str = ""
    """Rows to train on: a .jsonl or .parquet file, a folder of such files, or a data set of the hub at a commit,
    ``OWNER/NAME@COMMIT:SPLIT``. Only ``m2rl verify`` does without."""
    suites: dict[str, str] = Field(default_factory=dict)
    """Name of an evaluation set → its rows, in the forms of ``source``."""
    seconds: PositiveFloat = 10.0
    """Limit of one reward, in CPU seconds and, doubled, in wall seconds."""


class RewardDomain(Domain):
    """Rows whose responses a function judges; a subclass has a ``name``, a ``reference`` and :meth:`value`, or
    :meth:`found`."""

    Config: type[RewardConfig] = RewardConfig

    def __init__(self, config: RewardConfig) -> None:
        self.config = config

    def value(self, prompt: list[Message], response: str, row: Mapping[str, Any]) -> object:
        """A number in [0, 1], a :class:`Reward`, or an awaitable of one where the domain is :attr:`remote`.

        Args:
            prompt: the messages that the model was shown.
            response: what it said after its reasoning.
            row: as it was read.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither 'value' nor 'found'")

    def found(self, trajectory: Trajectory) -> object:
        """What :meth:`value` is of a trajectory. To be overridden where the reward depends on more of it."""
        return self.value(*_arguments(trajectory))

    @property
    def verify_seconds(self) -> float:
        return self.config.seconds

    @property
    def suites(self) -> Mapping[str, Suite]:
        return {name: Suite(source) for name, source in self.config.suites.items()}

    def check(self) -> None:
        """Read local rows to their end; a row of a suite that is trained on, too, is refused."""
        if not self.config.source and not self.config.suites:
            raise DataError(f"'{self.name}' has no rows", then="name a file of them: 'source: rows.jsonl'")
        trained = {_digest(prompt.ground_truth): prompt.id for prompt in self._local("train", self.config.source)}
        for name, source in self.config.suites.items():
            for prompt in self._local(name, source):
                if twin := trained.get(_digest(prompt.ground_truth)):
                    raise DataError(
                        f"suite '{name}' holds a row that is trained on: {prompt.id} is {twin}",
                        then="leave it out of one of the two files; it would measure what is known by heart",
                    )

    def _local(self, split: str, source: str) -> Iterator[Prompt]:
        return self._prompts(split, source) if source and not on_hub(source) else iter(())

    def prompts(self, split: str) -> Iterator[Prompt]:
        if split != "train" and split not in self.config.suites:
            raise DataError(f"'{self.name}' has no prompts '{split}'", allowed=["train", *self.config.suites])
        source = self.config.source if split == "train" else self.config.suites[split]
        if not source:
            raise DataError(f"'{self.name}' has no rows to train on", then="name a file of them: 'source: rows.jsonl'")
        return self._prompts(split, source)

    def _prompts(self, split: str, source: str) -> Iterator[Prompt]:
        def prompt(index: int, placed: tuple[str, int, dict[str, Any]]) -> Prompt:
            origin, number, row = placed
            return Prompt(f"{split}/{index:06d}", self.name, asked(f"{origin}, row {number}", row), row)

        return map(prompt, count(), numbered(source))  # unlike a generator, a map goes on after a bad row

    def demonstrations(self) -> Iterator[Conversation]:
        """The training rows that have a ``completion``."""
        for index, (origin, number, row) in enumerate(numbered(self.config.source) if self.config.source else ()):
            if (said := row.get("completion")) is not None:
                shown = [{"role": "assistant", "content": said}] if isinstance(said, str) else said
                place = f"{origin}, row {number}"
                try:
                    spoken, tools = conversation({**row, "messages": [*asked(place, row), *shown]})
                except (UnusableError, TypeError) as error:
                    raise DataError(f"{place} has no completion that can be learned from: {error}") from error
                yield Conversation(f"train/{index:06d}", self.name, spoken, tools)

    def verify(self, trajectory: Trajectory) -> Reward:
        """What the function says, or a failed verdict with the reason."""
        try:
            return judged(self.found(trajectory))
        except Exception as error:
            return Reward(None, _blamed(error))

    async def verify_remote(self, trajectory: Trajectory) -> Reward:
        """Like :meth:`verify`, for a function that must be awaited."""
        try:
            found: Any = self.found(trajectory)
            return judged(await found)
        except Exception as error:
            return Reward(None, _blamed(error))


def asked(place: str, row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation that a row starts.

    Raises:
        DataError: none, in words for the user; ``place`` says which row.
    """
    try:
        return messages(place, {"question": row["prompt"]} if "prompt" in row else row)
    except DataError as error:
        raise DataError(
            f"{place} asks nothing", found=", ".join(row), allowed="a 'prompt', text or a list of messages"
        ) from error


def _arguments(trajectory: Trajectory) -> tuple[list[Message], str, Mapping[str, Any]]:
    """For :meth:`RewardDomain.value`. Of a response that comes from a file, the row alone says what was asked."""
    row = row_of(trajectory)
    shown = trajectory.prompt.messages or (asked("the row", row) if "prompt" in row else ())
    return list(shown), trajectory.answer, row


def row_of(trajectory: Trajectory) -> Mapping[str, Any]:
    """The row that a trajectory answers.

    Raises:
        DataError: its gold is none.
    """
    row = trajectory.prompt.ground_truth
    if not isinstance(row, Mapping):
        raise DataError("the gold of a reward function is the row as an object", found=repr(row)[:SHOWN])
    return row


def judged(value: object) -> Reward:
    """``value``, which a reward function has returned, as a reward.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(value, Reward):
        return value
    found = repr(value)[:SHOWN]
    if value is None:
        raise TypeError("it returned None, not a number in [0, 1]: is there a 'return' on every path?")
    if not hasattr(value, "__float__"):
        raise TypeError(f"it returned {found}, of type {type(value).__name__}, not a number in [0, 1]")
    number = float(value)
    if not 0.0 <= number <= 1.0:  # so is what is not a number
        raise ValueError(f"it returned {found}; a reward lies in [0, 1]")
    return Reward(number)


def _blamed(error: Exception) -> str:
    """What went wrong, and on which line of the function's own file."""
    core = str(Path(m2rl_core.__file__).parent)
    foreign = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(core)]
    own = [frame for frame in foreign if frame.filename == foreign[0].filename]
    where = f", {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
    return f"the reward function failed{where}: {type(error).__name__}: {error}"


def _digest(row: Mapping[str, Any]) -> bytes:
    return hashlib.blake2b(repr(sorted(row.items())).encode(errors="replace"), digest_size=16).digest()


# ── from a file to a domain ──────────────────────────────────────────────────────────────────────────────────────────


def reward_domain(module: ModuleType, file: Path) -> type[RewardDomain] | None:
    """The domain of the function ``reward`` in a local file, or ``None`` where the file has hooks instead.

    Raises:
        ComponentError: neither is there, or the function asks for what it cannot be given, or the file's name is none
            that a domain could have.
    """
    if any(name.startswith("m2rl_") and callable(member) for name, member in vars(module).items()):
        return None
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        raise ComponentError(
            f"it offers nothing: there is no function '{FUNCTION}' and no hook such as m2rl_domains",
            then=f"define 'def {FUNCTION}({', '.join(GIVEN)})', or mark a hook with @hookimpl",
        )
    names = given(function)

    def value(self: RewardDomain, prompt: list[Message], response: str, row: Mapping[str, Any]) -> object:
        text = prompt[-1]["content"] if prompt else ""
        every = {"prompt": text, "response": response, "row": row}
        return function(**{name: every[name] for name in names})

    about = inspect.getdoc(function) or inspect.getdoc(module)
    members = {"__doc__": about, "remote": inspect.iscoroutinefunction(function), "value": value}
    return domain_of(module, file, RewardDomain, members)


def domain_of(module: ModuleType, file: Path, base: type[Any], members: Mapping[str, object]) -> type[RewardDomain]:
    """A subclass of ``base``, a :class:`RewardDomain`, with ``members``; it is called like its local file.

    Raises:
        ComponentError: the file's name is none that a domain could have.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", file.stem):
        allowed = "a-z, 0-9, '.', '_' and '-'"
        raise ComponentError("a domain is called like its file", found=file.stem, allowed=allowed, then="rename it")
    about = {"__module__": module.__name__, "name": file.stem, "reference": f"'{FUNCTION}' in {file.name}"}
    return cast("type[RewardDomain]", type("Reward", (base,), {**about, **members}))


def given(function: Callable[..., object]) -> tuple[str, ...]:
    """Which of :data:`GIVEN` a reward function asks for.

    Raises:
        ComponentError: it asks for something else.
    """
    parameters = inspect.signature(function).parameters.values()
    for each in parameters:
        by_name = each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        if not by_name or (each.name not in GIVEN and each.default is each.empty):
            raise ComponentError(
                f"{FUNCTION}({', '.join(map(str, parameters))}) asks for '{each.name}'.{nearest(each.name, GIVEN)}",
                allowed=f"{', '.join(GIVEN)}, each by its name; any may be left out",
            )
    return tuple(each.name for each in parameters if each.name in GIVEN)
