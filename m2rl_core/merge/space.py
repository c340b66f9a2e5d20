"""The settings that a search may try: the stage's own, a grid around them, and proposals within the grid's ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m2rl_core.config import MergeStage, SearchSection, candidate, grid_points, need_optuna, part_names
from m2rl_core.errors import ConfigError
from m2rl_core.interfaces import Merger
from m2rl_core.run import StageRun

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["Settings", "Space"]

Settings = Mapping[str, Any]
TRIES = 25
"""Times the number of proposals wanted, after which it seems that there are no others."""
DIGITS = 4
"""Of a proposed number: what is told can be typed again."""


class Space:
    """What a merge stage's search chooses from.

    Args:
        run: of a stage with a ``search``.
    """

    def __init__(self, run: StageRun[MergeStage]) -> None:
        assert run.stage.search is not None
        self._run, self._section = run, run.stage.search
        self._owner = f"stages.{run.name}.search"
        self.default = self._resolved({})
        """The stage's own settings, as far as the grid names them."""
        grid = [self._resolved(point) for point in grid_points(self._section.grid)]
        self.points: list[Settings] = []
        """The default, then the grid; none twice."""
        for point in (self.default, *grid):
            if point not in self.points:
                self.points.append(point)
        self._axes = {name: [point[name] for point in grid] for name in self._section.grid}

    @property
    def section(self) -> SearchSection:
        return self._section

    def merger(self, settings: Settings) -> Merger:
        """The stage's merger with these settings.

        Raises:
            ConfigError: it does not take them.
        """
        return self._run.registry.create("merger", self._use(settings), f"{self._owner}.grid")

    def propose(self, tried: Sequence[tuple[Settings, float]], seed: int) -> list[Settings]:
        """New settings in which less is expected than in those that were tried, by a tree of Parzen estimators.

        The same for the same arguments, whatever was proposed before; fewer than asked for, or none, where there seem
        to be no others.

        Args:
            tried: settings with their scores, of which less is better.

        Raises:
            UserError: optuna is not installed.
        """
        need_optuna(f"{self._owner}.rounds")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        ranges = {name: _range(values) for name, values in self._axes.items()}
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=1))
        for settings, score in tried:
            if self._inside(settings):
                params = {name: self._coded(name, settings[name]) for name in ranges}
                study.add_trial(optuna.trial.create_trial(params=params, distributions=ranges, value=score))
        known, found = [settings for settings, _ in tried], list[Settings]()
        for _ in range(TRIES * self._section.batch):
            if len(found) == self._section.batch:
                break
            trial = study.ask(ranges)
            settings = {name: self._decoded(name, value) for name, value in trial.params.items()}
            if settings not in known and self._takes(settings):
                known.append(settings)
                found.append(settings)
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return found

    def _use(self, settings: Settings) -> dict[str, Any]:
        return candidate(self._run.registry, self._run.stage.merger, settings, self._owner)

    def _resolved(self, settings: Settings) -> Settings:
        """The grid's settings as the merger's ``Config`` understands them, and its parts'."""
        use = self._use(settings)
        found = {name: self._value(use, name) for name in self._section.grid}
        return {name: value for name, value in found.items() if value is not _NOWHERE}

    def _value(self, use: Settings, path: str) -> Any:
        registry, (name, _, below) = self._run.registry, path.partition(".")
        value = registry.configure("merger", use, self._owner).model_dump(mode="json").get(name, _NOWHERE)
        if below and name in part_names(registry, use, self._owner):
            return self._value(value, below)
        return _below(value, below) if below else value

    def _takes(self, settings: Settings) -> bool:
        """Whether the merger can be built with them: some settings exclude each other."""
        try:
            self.merger(settings).check(self._run.stage.experts)
        except (ConfigError, ValueError):
            return False
        return True

    def _inside(self, settings: Settings) -> bool:
        """Whether they lie within the ranges; the stage's own need not."""
        return all(
            name in settings
            and (settings[name] in axis or (_numbers(axis) and min(axis) <= settings[name] <= max(axis)))
            for name, axis in self._axes.items()
        )

    def _coded(self, name: str, value: Any) -> Any:
        return value if _numbers(self._axes[name]) else self._axes[name].index(value)

    def _decoded(self, name: str, value: Any) -> Any:
        axis = self._axes[name]
        if not _numbers(axis):
            return axis[value]
        return value if isinstance(value, int) else min(max(axis), max(min(axis), float(f"{value:.{DIGITS}g}")))


_NOWHERE = object()


def _below(value: Any, path: str) -> Any:
    """The value at a dotted path of plain mappings, or ``_NOWHERE``."""
    for name in path.split("."):
        value = value.get(name, _NOWHERE) if isinstance(value, Mapping) else _NOWHERE
    return value


def _numbers(axis: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in axis)


def _range(axis: Sequence[Any]) -> BaseDistribution:
    """What optuna may choose: between numbers, or one of other values by its place."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not _numbers(axis):
        return CategoricalDistribution(sorted({axis.index(value) for value in axis}))
    if all(isinstance(value, int) for value in axis):
        return IntDistribution(min(axis), max(axis))
    return FloatDistribution(min(axis), max(axis))
