"""A merge stage that chooses its merger's settings: candidates are made, judged on stored rollouts, and removed.

``metrics.jsonl`` has a line for every candidate, the stage's own settings first, and a last one that says which was
chosen and what that gains on prompts that did not choose. At most ``search.batch`` candidates are on the disk at a
time; a killed search goes on with the next of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from m2rl_core.config import MergeStage, settings_label
from m2rl_core.errors import StageError
from m2rl_core.files import temporary_folder
from m2rl_core.merge.judge import Distance, Half, Judge, gain, mean_distance
from m2rl_core.merge.space import Settings, Space
from m2rl_core.merge.stage import prepared_job
from m2rl_core.merge.sweep import Sweep
from m2rl_core.run import StageRun
from m2rl_core.seeding import derive

__all__ = ["search"]

FOLDER = "candidates"


def search(run: StageRun[MergeStage]) -> None:
    """Find the settings, and leave the model that is made with them.

    Raises:
        ConfigError, DataError, RunError, StageError: as :func:`~m2rl_core.merge.merge_models`, and where the experts
            have stored too few rollouts.
        UserError: optuna is not installed, and Bayesian rounds were asked for.
    """
    trials = Trials()
    run.restore(trials)
    space, judge = Space(run), Judge(run)
    for number in range(space.section.rounds + 1):
        done = trials.of_round(number)
        for settings in _batches([each for each in _wanted(run, space, trials, number) if each not in done], space):
            _try(run, space, judge, trials, number, settings)
    _settle(run, space, judge, trials)


class Trials:
    """What has been tried; a part of the stage's state."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, Settings, float]] = []
        """(round, settings, score)."""

    @property
    def best(self) -> Settings:
        """The settings with the lowest score, the first of equals."""
        return min(self.rows, key=lambda row: row[2])[1]

    def of_round(self, number: int) -> list[Settings]:
        return [settings for each, settings, _ in self.rows if each == number]

    def before(self, number: int) -> list[tuple[Settings, float]]:
        return [(settings, score) for each, settings, score in self.rows if each < number]

    def save_state(self, folder: Path) -> None:
        (folder / "trials.json").write_text(json.dumps(self.rows))

    def load_state(self, folder: Path) -> None:
        self.rows = [
            (number, settings, score) for number, settings, score in json.loads((folder / "trials.json").read_text())
        ]


def _wanted(run: StageRun[MergeStage], space: Space, trials: Trials, number: int) -> Sequence[Settings]:
    """A round's candidates: a function of the rounds before it, so that a resumed search wants the same."""
    return space.points if number == 0 else space.propose(trials.before(number), derive(run.seed, "search", number))


def _batches(settings: Sequence[Settings], space: Space) -> Iterator[list[Settings]]:
    rest = iter(settings)
    while batch := list(islice(rest, space.section.batch)):
        yield batch


def _try(
    run: StageRun[MergeStage], space: Space, judge: Judge, trials: Trials, number: int, batch: Sequence[Settings]
) -> None:
    """Make and judge some candidates, in one reading of the inputs, and write down what was found."""
    with temporary_folder(run.folder / FOLDER) as scratch:
        folders, _ = _make(run, space, batch, scratch)
        found = [_judged(run, judge, name, folder, "chooses") for name, folder in folders.items()]
    for settings, distances in zip(batch, found, strict=True):
        score = mean_distance(distances)
        apart = {f"kl/{each.expert}/{each.domain}": each.mean for each in distances}
        run.log(len(trials.rows), {"round": number, "settings": settings_label(settings), "kl": score, **apart})
        trials.rows.append((number, settings, score))
    run.checkpoint(len(trials.rows), trials)


def _settle(run: StageRun[MergeStage], space: Space, judge: Judge, trials: Trials) -> None:
    """Make the best candidate once more, the stage's model, and the stage's own settings beside it, to compare."""
    start, best = space.default, trials.best
    if math.isinf(min(score for _, _, score in trials.rows)):
        raise StageError(f"stages.{run.name}: no candidate has distributions that are numbers", then="narrow the grid")
    with temporary_folder(run.folder / FOLDER) as scratch:
        folders, diagnostics = _make(run, space, [best] if best == start else [best, start], scratch)
        found = {name: _judged(run, judge, name, folder, "tells") for name, folder in folders.items()}
        before, after = found[settings_label(start)], found[settings_label(best)]
        gained = gain(before, after)
        said: dict[str, float | str] = {"chosen": settings_label(best), "candidates": len(trials.rows)}
        said |= {"kl": mean_distance(after), "kl_own": mean_distance(before)}
        said |= {"gain": gained.value, "gain_low": gained.low, "gain_high": gained.high}
        run.log(len(trials.rows), {**said, **_of_output(diagnostics, settings_label(best), folders)})
        run.finish(lambda folder: _move(folders[settings_label(best)], folder))
        run.report(text=f"{settings_label(best)} of {len(trials.rows)} candidates")


def _make(
    run: StageRun[MergeStage], space: Space, batch: Sequence[Settings], scratch: Path
) -> tuple[dict[str, Path], Mapping[str, float]]:
    """Candidates in folders below ``scratch``, by label, and the merge's diagnostics."""
    sweep = Sweep({settings_label(settings): space.merger(settings) for settings in batch})
    folders = {name: scratch / str(number) for number, name in enumerate(sweep.members)}
    with run.clock("merge"), prepared_job(run, sweep) as job:
        job.need_room(scratch / "0")
        for folder in folders.values():
            folder.mkdir()
        return folders, job.write(folders).metrics


def _judged(run: StageRun[MergeStage], judge: Judge, name: str, folder: Path, half: Half) -> list[Distance]:
    run.report(text=f"judging {name}")
    with run.clock("score"):
        return judge.distances(name, folder, half)


def _of_output(diagnostics: Mapping[str, float], name: str, outputs: Iterable[str]) -> dict[str, float]:
    """What a sweep has found of its inputs, and what its merger tells of one output."""
    mine, others = f"{name}/", tuple(f"{other}/" for other in outputs if other != name)
    return {key.removeprefix(mine): value for key, value in diagnostics.items() if not key.startswith(others)}


def _move(source: Path, target: Path) -> None:
    for path in source.iterdir():
        path.rename(target / path.name)
