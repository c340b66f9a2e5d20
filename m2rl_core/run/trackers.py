"""Trackers: observers of a stage's steps that keep them for trackio or Weights & Biases.

They are called through the hook ``m2rl_step_end`` like any plugin's observer. A run of theirs is one stage with one
key, so that a stage which is resumed goes on in its run, and one with other settings gets another. A tracker that fails
is told of, and training goes on without it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from m2rl_core.config import TrackioSection, WandbSection
from m2rl_core.errors import boundary
from m2rl_core.hookspecs import hookimpl
from m2rl_core.redaction import masked
from m2rl_core.registry import Observer

__all__ = ["Tracked", "Tracker", "tracker"]


@dataclass(frozen=True, slots=True)
class Tracked:
    """The stage whose steps are tracked."""

    study: str
    stage: str
    """Its name in the study, and what it measures."""
    kind: str
    key: str
    seed: int
    settings: Mapping[str, Any]
    folder: Path

    @property
    def run(self) -> str:
        """Name of the run, e.g. ``math-0123456789``; letters, digits, ``.``, ``_`` and ``-``."""
        return f"{self.stage}-{self.key[:10]}"

    @property
    def config(self) -> dict[str, Any]:
        """What the run was made with; without secrets."""
        return dict(masked({**self.settings, "seed": self.seed, "key": self.key}))


class Tracker:
    """Shows the numbers of a stage's steps; opens its run with the first of them.

    Args:
        project: that the run belongs to.
    """

    name = ""

    def __init__(self, project: str, tracked: Tracked) -> None:
        self.project, self.tracked = project, tracked
        self.run: Any = None

    @property
    def observer(self) -> Observer:
        """This tracker as the stage calls it after every step."""
        return Observer(f"tracker '{self.name}'", ("step", "metrics"), self.m2rl_step_end)

    @hookimpl
    def m2rl_step_end(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Send the step's numbers; texts and what is missing are left out."""
        if self.run is None:
            self.run = self.begin()
        self.send(step, {key: value for key, value in metrics.items() if isinstance(value, int | float)})

    def begin(self) -> Any:
        """Open the run, or the one of an earlier attempt at the same stage."""
        raise NotImplementedError

    def send(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(numbers, step=step)

    def close(self) -> None:
        """Wait until all is stored or sent.

        Raises:
            StageError: what the tracker raised.
        """
        if self.run is not None:
            with boundary(f"tracker '{self.name}'", f"finishing {self.tracked.stage}"):
                self.finish()

    def finish(self) -> None:
        self.run.finish()


class _Trackio(Tracker):
    name = "trackio"

    def __init__(self, section: TrackioSection, tracked: Tracked) -> None:
        super().__init__(section.project or tracked.study, tracked)
        self.space = section.space
        self._stored: int | None = None
        """The last step that an earlier attempt has stored here: trackio would keep another copy."""

    def begin(self) -> Any:
        trackio = import_module("trackio")
        self._stored = trackio.SQLiteStorage.get_max_step_for_run(self.project, self.tracked.run)
        return trackio.init(
            project=self.project,
            name=self.tracked.run,
            group=self.tracked.study,
            space_id=self.space,
            config=self.tracked.config,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def send(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._stored is None or step > self._stored:
            super().send(step, numbers)


class _Wandb(Tracker):
    """Steps that an earlier attempt has sent are left out by the library itself: steps never go back there."""

    name = "wandb"

    def __init__(self, section: WandbSection, tracked: Tracked) -> None:
        super().__init__(section.project or tracked.study, tracked)
        self.section = section

    def begin(self) -> Any:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # what goes wrong here is not the company's business
        wandb = import_module("wandb")
        settings = wandb.Settings(
            mode=self.section.mode,
            console="off",
            disable_code=True,
            disable_git=True,
            silent=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
        )
        wandb.setup(settings)  # or else the library's own telemetry would not know that it is to be offline
        return wandb.init(
            project=self.project,
            entity=self.section.entity,
            id=self.tracked.run,
            name=self.tracked.run,
            group=self.tracked.study,
            job_type=self.tracked.kind,
            config=self.tracked.config,
            dir=self.tracked.folder,
            mode=self.section.mode,
            resume="allow" if self.section.mode == "online" else None,
            reinit="create_new",
            settings=settings,
        )

    def finish(self) -> None:
        super().finish()
        import_module("wandb").teardown()  # its process writes on after `finish`, and workers do not end as it expects


def tracker(section: TrackioSection | WandbSection, tracked: Tracked) -> Tracker:
    """The tracker that a study asks for; nothing of its package is imported yet."""
    return _Wandb(section, tracked) if isinstance(section, WandbSection) else _Trackio(section, tracked)
