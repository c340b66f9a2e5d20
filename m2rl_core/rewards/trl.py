"""Reward functions in the signature of TRL's GRPOTrainer as a domain: https://huggingface.co/docs/trl/rewards.

A local file whose ``reward`` asks for ``completions``, or is a list of such functions, is one::

    from trl.rewards import accuracy_reward, think_format_reward

    reward = [accuracy_reward, think_format_reward]

They are called as TRL calls them, with one completion at a time: ``prompts`` and ``completions`` are conversations
where the row's ``prompt`` is one, and texts where it is a text; a completion holds its reasoning; every other column of
the row is a keyword with a list of one value, ``None`` where this row lacks what others have. A reward of ``None`` says
that a function does not apply; the others are added up, and where none applies the verifier has failed. Functions may
be async. What ``log_metric`` is told becomes a metric of the reward, what ``log_extra`` is told is not kept.

There are no ``completion_ids``, ``trainer_state`` and ``environments``: a verdict depends on what was said alone. TRL's
own functions of a response's length and repetitions count tokens and are refused.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import model_validator

from m2rl_core.errors import ComponentError, DataError
from m2rl_core.rewards.functions import FUNCTION, RewardConfig, RewardDomain, domain_of, row_of
from m2rl_core.types import Message, Reward, Trajectory

__all__ = ["TrlConfig", "TrlDomain", "trl_domain"]

COMPLETIONS = "completions"
"""The parameter that a function in TRL's signature cannot do without here."""
GIVEN = ("prompts", COMPLETIONS, "log_extra", "log_metric")
"""What TRL hands over beside a row's columns, and so do we."""
ABSENT = ("completion_ids", "trainer_state", "environments")
"""What TRL hands over and we do not."""

Function = Callable[..., Any]


class TrlConfig(RewardConfig):
    """Settings of a domain that is made of functions in TRL's signature."""

    range: tuple[float, float] = (0.0, 1.0)
    """Least and greatest sum of the functions' rewards, which become 0 and 1: ``[0, 2]`` for two that lie in [0, 1]. A
    sum outside is a failed verdict."""

    @model_validator(mode="after")
    def _ascends(self) -> TrlConfig:
        if self.range[0] >= self.range[1]:
            raise ValueError("range should ascend, as in [0, 2]")
        return self


class TrlDomain(RewardDomain):
    """Rows whose completions are judged by functions in TRL's signature."""

    Config = TrlConfig
    config: TrlConfig
    functions: Sequence[Function] = ()

    def check(self) -> None:
        """As any reward function's rows; and that the columns are there which the functions ask for."""
        super().check()
        needed = [name for function in self.functions for name in _columns(function)]
        rows = [prompt.ground_truth for prompt in self._local("train", self.config.source)] if needed else []
        there = list(dict.fromkeys(name for row in rows for name in row))
        if rows and (missing := [name for name in needed if name not in there]):
            raise DataError(
                f"the reward function asks for '{missing[0]}', which no row of {self.config.source} has",
                found=", ".join(there),
            )

    def found(self, trajectory: Trajectory) -> Reward | Coroutine[Any, Any, Reward]:
        metrics: dict[str, float] = {}
        given = {**_said(trajectory), "log_extra": lambda column, values: None, "log_metric": metrics.__setitem__}
        row = row_of(trajectory)
        called = [function(**_arguments(function, given, row)) for function in self.functions]
        return self._awaited(called, metrics) if self.remote else self._summed(called, metrics)

    async def _awaited(self, called: Sequence[Any], metrics: dict[str, float]) -> Reward:
        waiting = [each for each in called if inspect.isawaitable(each)]
        answers = iter(await asyncio.gather(*waiting))
        return self._summed([next(answers) if inspect.isawaitable(each) else each for each in called], metrics)

    def _summed(self, called: Sequence[Any], metrics: dict[str, float]) -> Reward:
        """The reward of what the functions have returned.

        Raises:
            TypeError, ValueError: that is none.
        """
        values = {_name(f): _only(f, returned) for f, returned in zip(self.functions, called, strict=True)}
        applying = {name: value for name, value in values.items() if value is not None}
        if not applying:
            raise ValueError(f"none of {', '.join(values)} applies to this row: all returned None")
        low, high = self.config.range
        total = sum(applying.values())
        if not low <= total <= high:  # so is what is not a number
            raise ValueError(
                f"the rewards add up to {total:g}, which is not in 'range: [{low:g}, {high:g}]' "
                f"({', '.join(f'{name} {value:g}' for name, value in applying.items())})"
            )
        return Reward((total - low) / (high - low), metrics={**applying, **metrics})


def _said(trajectory: Trajectory) -> dict[str, Any]:
    """``prompts`` and ``completions``, with one entry each."""
    asked = row_of(trajectory).get("prompt")
    if isinstance(asked, str):
        text = next((m["content"] for m in reversed(trajectory.messages) if m["role"] == "assistant"), "")
        return {"prompts": [asked], COMPLETIONS: [text]}
    shown: Sequence[Message] = trajectory.prompt.messages or asked or ()
    return {"prompts": [list(shown)], COMPLETIONS: [list(trajectory.messages)]}


def _arguments(function: Function, given: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """What a function is called with: what it names, or everything where it takes ``**kwargs``."""
    columns = {name: [value] for name, value in row.items() if name not in ("prompt", "completion", *ABSENT, *given)}
    absent = {name: [None] for name in _columns(function)}
    everything = {**absent, **columns, **given}
    parameters = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return everything
    return {name: everything[name] for name in parameters if name in everything}


def _columns(function: Function) -> list[str]:
    """Columns that a function cannot do without."""
    parameters = inspect.signature(function).parameters.values()
    named = [each for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    return [each.name for each in named if each.default is each.empty and each.name not in GIVEN]


def _only(function: Function, returned: object) -> float | None:
    """The one reward in a list.

    Raises:
        TypeError, ValueError: it is no list of one number or ``None``.
    """
    if not isinstance(returned, Sequence) or len(returned) != 1:
        raise TypeError(f"{_name(function)} returned {repr(returned)[:80]}, not a list with one reward per completion")
    return None if returned[0] is None else float(returned[0])


def _name(function: Function) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _is_async(function: Function) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - an object whose call is a coroutine function
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


# ── from a file to a domain ──────────────────────────────────────────────────────────────────────────────────────────


def trl_domain(module: ModuleType, file: Path) -> type[RewardDomain] | None:
    """The domain of the functions in TRL's signature in a local file, or ``None`` where it has none.

    Raises:
        ComponentError: they cannot be called without what is not there, or the file's name is none for a domain.
    """
    found: Any = getattr(module, FUNCTION, None)
    functions: list[Function] = list(found) if isinstance(found, list | tuple) else [found]
    if not all(map(callable, functions)) or not any(map(_is_trls, functions)):
        return None
    for function in functions:
        _refuse(function)
    if len({_name(function) for function in functions}) < len(functions):
        raise ComponentError("two reward functions have one name", found=", ".join(map(_name, functions)))
    about = inspect.getdoc(module) or inspect.getdoc(functions[0])
    members = {"__doc__": about, "functions": tuple(functions), "remote": any(map(_is_async, functions))}
    return domain_of(module, file, TrlDomain, members)


def _is_trls(function: Function) -> bool:
    return not {COMPLETIONS, *ABSENT}.isdisjoint(inspect.signature(function).parameters)


def _refuse(function: Function) -> None:
    """Refuse a function that is not called with ``completions``, or not without what is not there.

    Raises:
        ComponentError: it says so.
    """
    if missing := [name for name in _columns(function) if name in ABSENT]:
        raise ComponentError(
            f"{_name(function)} asks for '{missing[0]}', which only TRL's trainer has",
            allowed=f"{', '.join(GIVEN)} and the columns of the rows",
        )
    parameters = inspect.signature(function).parameters
    if COMPLETIONS not in parameters:
        raise ComponentError(f"{_name(function)} does not ask for '{COMPLETIONS}', as others in the list do")
    if positional := [name for name, each in parameters.items() if each.kind is each.POSITIONAL_ONLY]:
        raise ComponentError(f"{_name(function)} takes '{positional[0]}' by its place only; TRL calls by name")
