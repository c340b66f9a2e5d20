"""``search`` of a merge stage: which settings of its merger are tried before one of them is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import product
from math import prod
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

from m2rl_core.config.sections import Section
from m2rl_core.errors import UserError
from m2rl_core.registry import Kind, Registry, Use, use_of

__all__ = [
    "SearchSection",
    "Setting",
    "candidate",
    "grid_points",
    "need_optuna",
    "part_names",
    "settings_label",
    "with_settings",
]

Setting = bool | int | float | str | None | list[int | float]
Settings = Mapping[str, Any]
"""Setting of a merger → its value; ``then.density`` is the setting ``density`` of the component that ``then`` holds."""


class SearchSection(Section):
    """``search:`` — settings proposed, scored on rollouts that the experts' own stages have stored, the best taken.

    A candidate's score is how far it is from each expert where that expert has spoken: the divergence KL(expert ‖
    candidate) over the whole vocabulary, a mean over the expert's tokens, then over the experts' domains. Only training
    prompts are seen, never those of a suite; half of them choose, and the other half tell what the choice gains over
    the stage's own settings, which are the first candidate.
    """

    grid: dict[str, Annotated[list[Setting], Field(min_length=1)]] = Field(min_length=1)
    """Setting of the merger → values; every combination is tried."""
    rounds: NonNegativeInt = 0
    """Bayesian rounds after the grid, within its ranges: numbers between the smallest and the largest, otherwise the
    values themselves. They need ``pip install 'm2rl-core[search]'``."""
    batch: PositiveInt = 4
    """Candidates that are made in one reading of the inputs and kept on the disk until they are scored; also how many
    a Bayesian round proposes."""
    samples: Annotated[int, Field(ge=2)] = 64
    """Training prompts per expert and domain, the last that it drew, a stored sample of each."""
    tokens_per_device: PositiveInt = 36864
    """Most packed tokens, filling included, of one forward pass."""

    @property
    def candidates(self) -> int:
        """Settings that are tried at most, the stage's own included."""
        return 1 + prod(len(values) for values in self.grid.values()) + self.rounds * self.batch


def grid_points(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination, the last setting changing fastest."""
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def settings_label(settings: Settings) -> str:
    """``scale=0.5,density=0.2``."""
    return ",".join(f"{name}={_shown(value)}" for name, value in settings.items())


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def part_names(registry: Registry, use: Use, owner: str) -> Mapping[str, Kind]:
    """Settings of a merger that name another component → that component's kind."""
    return getattr(registry.lookup("merger", use_of(use, owner)[0], owner).cls, "parts", {})


def candidate(registry: Registry, use: Use, settings: Settings, owner: str) -> dict[str, Any]:
    """A merger as a study says it, with some settings replaced; parts that it does not write are its own defaults.

    Args:
        owner: dotted path of ``use`` in the study, for messages.

    Raises:
        ComponentError, ConfigError: the study's merger is not there, or does not take its settings.
    """
    name, written = use_of(use, owner)
    config = registry.configure("merger", use, owner)
    parts = {part: getattr(config, part) for part in part_names(registry, use, owner)}
    return with_settings({"use": name, **written, **parts}, settings)


def with_settings(use: Settings, settings: Settings) -> dict[str, Any]:
    """``{use: NAME, **config}`` with some of its settings replaced."""
    found = dict(use)
    for path, value in settings.items():
        name, _, below = path.partition(".")
        if not below:
            found[name] = value
            continue
        inner = found.get(name)
        inner = {"use": inner} if isinstance(inner, str) else inner if isinstance(inner, Mapping) else {}
        found[name] = with_settings(inner, {below: value})
    return found


def need_optuna(owner: str) -> None:
    """See to it that Bayesian rounds can be run.

    Args:
        owner: dotted path of their number, for the message.

    Raises:
        UserError: optuna is not installed.
    """
    if find_spec("optuna") is None:
        raise UserError(
            f"{owner}: Bayesian rounds need optuna, which is not installed", then="pip install 'm2rl-core[search]'"
        )
