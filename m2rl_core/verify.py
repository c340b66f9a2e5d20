"""Verifying without a model: responses from a file, and a data set's own gold answers.

Everything streams: rows are read, judged in the domain's worker processes and given on in their order, a bounded number
at a time. This module imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from m2rl_core.config import DomainSection
from m2rl_core.errors import DataError, boundary
from m2rl_core.files import numbered_rows
from m2rl_core.interfaces import Domain
from m2rl_core.plugins import load_plugins
from m2rl_core.registry import Registry
from m2rl_core.rollout.judging import Case, judged
from m2rl_core.rollout.verifiers import Spec, Verdicts, VerifierPool
from m2rl_core.types import Message, Prompt, Reasoning, Verdict

__all__ = [
    "GoldCheck",
    "Tally",
    "build_domain",
    "check_rows",
    "cores",
    "gold_cases",
    "row_case",
    "row_cases",
    "scored",
    "verified",
]

REQUIRED = ("id", "response", "ground_truth")
MODES: Mapping[object, Reasoning] = {
    None: "off", "think": "required", "required": "required", "optional": "optional", "off": "off",
}  # fmt: skip
"""A row's ``metadata.reasoning`` → its format gate."""
SHOWN = 20
"""Problems that are kept to be shown; the others are only counted."""

Id = str | int
T = TypeVar("T")


@dataclass(slots=True)
class Tally:
    """How many verdicts of each kind there were."""

    counts: dict[str, int] = field(default_factory=lambda: {"right": 0, "wrong": 0, "failed": 0})

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {verdict}" for verdict, count in self.counts.items())

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def add(self, verdict: Verdict) -> None:
        self.counts[verdict] += 1


def cores() -> int:
    """CPU cores that this process may use: so many verifiers run at a time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build_domain(
    name: str, settings: Mapping[str, Any], plugins: Sequence[str | Path] = (), registry: Registry | None = None
) -> tuple[Domain, Spec]:
    """A domain by its name, and how its workers build it.

    Args:
        settings: its own.
        plugins: local files or folders that offer components.
        registry: these and the installed plugins, where they are loaded already.

    Raises:
        ComponentError, ConfigError: there is no such domain, or it does not take the settings.
    """
    local = [str(Path(path).resolve()) for path in plugins]
    registry = load_plugins(local) if registry is None else registry
    domain = registry.create("domain", {**settings, "use": name}, name)
    return domain, Spec.of(domain, DomainSection(use=name, config=dict(settings)), local)


def verified(cases: Iterable[Case[T]], spec: Spec, workers: int | None = None) -> Generator[tuple[T, Verdicts]]:
    """The verdicts on ``cases``, which all are for the verifier ``spec.use``, in their order.

    Args:
        workers: verifications at a time; by default one per core.
    """
    with VerifierPool({spec.use: spec}, workers or cores()) as pool:
        yield from judged(cases, pool)


def scored(key: Id, verdicts: Verdicts) -> dict[str, Any]:
    """One line of a scored file. ``reward`` is ``None`` where the verifier failed; ``seconds`` are the verifier's."""
    reward = verdicts.reward
    return {
        "id": key,
        "reward": reward.value,
        "verdict": reward.verdict,
        "reason": reward.reason,
        "seconds": round(verdicts.seconds, 6),
    }


# ── responses from a file ────────────────────────────────────────────────────────────────────────────────────────────


def check_rows(path: Path) -> None:
    """Read a file of responses once, so that a bad last row is found before hours are spent on the others.

    All ids are held at once, some hundred bytes each; the rows are not.

    Raises:
        DataError: as :func:`row_cases`, or two rows of one id.
    """
    seen: dict[str, int] = {}
    for number, row in _responses(path):
        if (first := seen.setdefault(str(row["id"]), number)) != number:
            raise DataError(f"{path}, line {number}: id {row['id']!r} is already there on line {first}")


def row_cases(
    rows: Path | Iterable[Mapping[str, Any]], domain: str, reasoning: Reasoning | None = None
) -> Iterator[Case[Id]]:
    """A case for every row, by its id; ``domain`` and ``reasoning`` as for :func:`row_case`.

    Args:
        rows: of a file of responses, or as they are.

    Raises:
        DataError: no such file, or a row that has not the right shape; it names the line.
    """
    if isinstance(rows, Path):
        yield from (row_case(row, domain, reasoning) for _, row in _responses(rows))
        return
    for number, row in enumerate(rows, 1):
        try:
            yield row_case(row, domain, reasoning)
        except DataError as error:
            raise DataError(f"row {number}: {error}") from None


def row_case(row: object, domain: str, reasoning: Reasoning | None = None) -> Case[Id]:
    """A case for one row, by its id.

    Args:
        domain: name of the verifier.
        reasoning: format gate; ``None``: ``required`` where the row's ``metadata.reasoning`` says ``think``, otherwise
            ``off``.

    Raises:
        DataError: the row has not the right shape.
    """
    if not isinstance(row, Mapping):
        raise DataError("a row is an object", found=type(row).__name__)
    if problem := _problem(row):
        raise DataError(problem)
    metadata = row.get("metadata") or {}
    prompt = Prompt(str(row["id"]), domain, (), row["ground_truth"], metadata)
    return Case(row["id"], domain, prompt, _said(row["response"]), reasoning or MODES[metadata.get("reasoning")])


def _responses(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"there is no file {path}", then="name a .jsonl file of responses")
    for number, row in numbered_rows(path, torn=False):
        if problem := _problem(row):
            raise DataError(f"{path}, line {number}: {problem}")
        yield number, row


def _problem(row: Mapping[str, Any]) -> str:
    """What is wrong with the shape of a row, or nothing."""
    if missing := [name for name in REQUIRED if name not in row]:
        return f"the row has no '{missing[0]}'; it needs {', '.join(REQUIRED)}, and may have metadata"
    key, response, metadata = row["id"], row["response"], row.get("metadata") or {}
    if not isinstance(key, str | int) or isinstance(key, bool):
        return f"'id' is neither text nor a whole number: {key!r}"
    turns = response if isinstance(response, list) else [response]
    if not turns or not all(isinstance(turn, str) for turn in turns):
        return "'response' is neither text nor a list of assistant turns"
    if not isinstance(metadata, dict):
        return "'metadata' is no object"
    gate = metadata.get("reasoning")
    if not isinstance(gate, str | None) or gate not in MODES:
        return f"'metadata.reasoning' is {gate!r}; allowed are {', '.join(str(mode) for mode in MODES if mode)}"
    return ""


def _said(response: str | list[str]) -> list[Message]:
    """The conversation after its prompt, as far as a file of responses knows it: the assistant's turns."""
    turns = [response] if isinstance(response, str) else response
    return [Message(role="assistant", content=turn) for turn in turns]


# ── a data set's own answers ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class GoldCheck:
    """What a check of gold answers has found so far."""

    tally: Tally = field(default_factory=Tally)
    shown: list[str] = field(default_factory=list)
    """The first problems in words."""
    problems: int = 0
    """All of them: answers that are not right, and rows that cannot be read."""
    unreadable: int = 0
    unanswered: int = 0
    """Prompts whose gold is no answer, so that there is nothing to check."""

    @property
    def prompts(self) -> int:
        return self.tally.total + self.unreadable + self.unanswered

    def add(self, key: str, verdicts: Verdicts) -> None:
        """The verdict on one prompt's own answer."""
        self.tally.add(verdicts.reward.verdict)
        if verdicts.reward.verdict != "right":
            self._problem(f"{key}: {verdicts.reward.verdict}: {verdicts.reward.reason}")

    def add_unreadable(self, error: DataError) -> None:
        """A row that is no prompt."""
        self.unreadable += 1
        self._problem(str(error))

    def _problem(self, text: str) -> None:
        self.problems += 1
        if len(self.shown) < SHOWN:
            self.shown.append(text)


def gold_cases(domain: Domain, name: str, found: GoldCheck) -> Iterator[Case[str]]:
    """Every training prompt of ``domain`` with its own gold as the answer; what cannot be read goes to ``found``.

    Args:
        name: of the domain's verifier.

    Raises:
        StageError: the domain's own code failed.
    """
    for prompt in _readable(domain, name, found):
        with boundary(f"domain '{name}'", f"giving the gold answer of prompt '{prompt.id}'"):
            answer = domain.gold(prompt)
        if answer is None:
            found.unanswered += 1
        else:
            yield Case(prompt.id, name, prompt, _said(answer))


def _readable(domain: Domain, name: str, found: GoldCheck) -> Iterator[Prompt]:
    """The training prompts that can be read. A domain that goes on after a bad row is asked to."""
    prompts: Iterator[Prompt] | None = None
    before = ""
    while True:
        try:
            with boundary(f"domain '{name}'", "drawing its training prompts"):
                prompts = iter(domain.prompts("train")) if prompts is None else prompts
                prompt = next(prompts, None)
        except DataError as error:
            if str(error) == before:  # it does not go on, but fails for ever
                return
            before = str(error)
            found.add_unreadable(error)
            continue
        if prompt is None:
            return
        yield prompt
