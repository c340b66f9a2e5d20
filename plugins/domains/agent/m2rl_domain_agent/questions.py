"""Procedural tasks for a model of a million parameters: something must be found out before it can be acted on.

Every prompt has a small company of its own in ``metadata["tables"]``, so that nothing can be known by heart: who has
which address, or which task has which id, only a tool tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from m2rl_core.types import Message, Prompt
from m2rl_domain_agent.calls import Call, text_of
from m2rl_domain_agent.workplace import Workplace, answered
from m2rl_domain_agent.workplace.tables import COLUMNS

__all__ = ["LEVELS", "Question", "questions"]

LEVELS = {
    1: "find a colleague's address, then forward an email to it",
    2: "find who has a task, then forward an email to them",
    3: "find the addresses of namesakes, then forward an email to the one at a certain place",
    4: "look two tasks up, one after the other, then delete the one that is due first or last",
}
"""What each level of difficulty asks."""

FIND, FORWARD = "company_directory_find_email_address", "email_forward_email"
LOOK, DELETE = "project_management_get_task_information_by_id", "project_management_delete_task"
FIRST, LAST = (
    ("ada", "emil", "hana", "kai", "lea", "milo", "nia", "omar"),
    ("berg", "fox", "ito", "lund", "nash", "park"),
)
PLACES = ("nova", "apex", "mira", "luna")
DONE = "<think></think>Done."


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the right way, and the thought before it."""

    thought: str
    tool: str
    arguments: str
    """JSON."""

    @property
    def call(self) -> Call:
        return Call(self.tool, json.loads(self.arguments))


@dataclass(frozen=True, slots=True)
class Question:
    """A task, the company it is set in, and the steps that solve it; only the last one changes anything."""

    level: int
    asked: str
    people: tuple[str, ...]
    tasks: tuple[tuple[str, ...], ...]
    emails: tuple[tuple[str, ...], ...]
    steps: tuple[Step, ...]
    found: tuple[str, ...]
    """What the tools tell and the last step needs: addresses and ids."""

    @property
    def identity(self) -> tuple[int | str, ...]:
        """The words of the task, without the company."""
        return (self.level, self.asked)

    def tables(self) -> dict[str, list[Any]]:
        """The company, as :meth:`Workplace.of` takes it."""
        tasks = [dict(zip(COLUMNS["tasks"], row, strict=True)) for row in self.tasks]
        emails = [dict(zip(COLUMNS["emails"], row, strict=True)) for row in self.emails]
        return {"addresses": list(self.people), "tasks": tasks, "emails": emails}

    def prompt(self, key: str) -> Prompt:
        last = self.steps[-1]
        gold = [{"name": last.tool, "arguments": last.arguments}]
        metadata = {"level": self.level, "tables": self.tables()}
        tools = tuple(_tool(step) for step in {step.tool: step for step in self.steps}.values())
        return Prompt(key, "agent", (Message(role="user", content=self.asked),), gold, metadata, tools)

    def worked(self) -> tuple[Message, ...]:
        """All steps, with what the workplace answers to each."""
        return self._played(self.steps)

    def guessed(self, draw: Random) -> tuple[Message, ...]:
        """The last step alone, with made-up addresses and ids."""
        last, arguments = self.steps[-1], self.steps[-1].arguments
        for value in self.found:
            first = value.partition(".")[0] if self.level == 1 else draw.choice(FIRST)
            invented = f"{first}.{draw.choice(LAST)}@{draw.choice(PLACES)}.io" if "@" in value else _ids(draw, 1)[0]
            arguments = arguments.replace(json.dumps(value), json.dumps(invented))
        return self._played((Step("", last.tool, arguments),))

    def _played(self, steps: tuple[Step, ...]) -> tuple[Message, ...]:
        work = Workplace.of(self.tables())
        said: list[Message] = []
        for step in steps:
            text = f"<think>{step.thought}</think>{text_of([step.call])}"
            said.append(Message(role="assistant", content=text))
            said.append(Message(role="tool", content=answered(work, step.call)))
        return (*said, Message(role="assistant", content=DONE))


def _tool(step: Step) -> Mapping[str, Any]:
    """A call without its values, the shortest that says how to make one: a small model has little room."""
    return {"name": step.tool, "arguments": dict.fromkeys(step.call.arguments, "")}


def questions(level: int, draw: Random) -> Iterator[Question]:
    """Endless questions of one level."""
    make = {1: _to_name, 2: _to_owner, 3: _to_namesake, 4: _compare}[level]
    while True:
        yield make(draw, _people(draw))


def _people(draw: Random) -> list[str]:
    """Three addresses of different first names."""
    return [f"{first}.{draw.choice(LAST)}@{draw.choice(PLACES)}.io" for first in draw.sample(FIRST, 3)]


def _ids(draw: Random, size: int) -> list[str]:
    return [str(number) for number in draw.sample(range(100, 1_000), size)]


def _task(key: str, owner: str, day: int) -> tuple[str, ...]:
    return (key, "fix logo", owner, "Backlog", f"2023-12-{day:02d}", "Design")


def _step(thought: str, tool: str, **arguments: str) -> Step:
    return Step(thought, tool, json.dumps(arguments))


def _forward(level: int, asked: str, people: list[str], first: Step, email: str, to: str, thought: str) -> Question:
    """Find an address, then forward an email to it."""
    mails = ((email, "inbox", people[0], "news", "2023-11-30 09:00:00", "hello"),)
    steps = (first, _step(thought, FORWARD, email_id=email, recipient=to))
    return Question(level, f"Forward email {email} to {asked}", tuple(people), (), mails, steps, (to,))


def _to_name(draw: Random, people: list[str]) -> Question:
    to, [email] = draw.choice(people), _ids(draw, 1)
    name = to.partition(".")[0]
    return _forward(1, name, people, _step(f"find {name}", FIND, name=name), email, to, "mail")


def _to_owner(draw: Random, people: list[str]) -> Question:
    to, (email, task) = draw.choice(people), _ids(draw, 2)
    look = _step("who", LOOK, task_id=task, field="assigned_to_email")
    found = _forward(2, f"who has task {task}", people, look, email, to, "mail")
    return replace(found, tasks=(_task(task, to, 1),))


def _to_namesake(draw: Random, people: list[str]) -> Question:
    name, [email] = people[0].partition(".")[0], _ids(draw, 1)
    last, places = draw.sample(LAST, 3), draw.sample(PLACES, 3)
    namesakes = [f"{name}.{each}@{place}.io" for each, place in zip(last, places, strict=True)][: draw.choice((2, 3))]
    at = draw.randrange(len(namesakes))
    find = _step(f"find {name}", FIND, name=name)
    asked = f"{name} at {places[at]}"
    return _forward(3, asked, [*namesakes, *people[1:]], find, email, namesakes[at], f"{places[at]} is {last[at]}")


def _compare(draw: Random, people: list[str]) -> Question:
    (one, other), days, which = _ids(draw, 2), draw.sample(range(1, 32), 2), draw.choice(("first", "last"))
    day = min(days) if which == "first" else max(days)
    key = one if day == days[0] else other
    tasks = tuple(_task(each, people[0], due) for each, due in zip((one, other), days, strict=True))
    looks = (_step("look", LOOK, task_id=each, field="due_date") for each in (one, other))
    thought = f"{days[0]:02d} {days[1]:02d} {which} {day:02d} is {key}"
    asked = f"Delete task {one} or {other}, the one due {which}"
    return Question(4, asked, tuple(people), tasks, (), (*looks, _step(thought, DELETE, task_id=key)), (key,))
