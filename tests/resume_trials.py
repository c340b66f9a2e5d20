"""Small stages that are stopped by force, for ``test_resume.py``: a plugin, the stages, and processes that die.

    python resume_trials.py kill|full VARIANT FOLDER MODEL OTHER SEED…

runs a stage undisturbed, then once for every seed with signal 9 at random moments, or on a disk that is full, and
prints what happened as JSON. Every attempt is a process of its own, forked from this one, which has imported it all.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Composition, Conversation, Divergence, Prompt, Reward, Suite, Trajectory

if TYPE_CHECKING:
    from m2rl_core.run import StageRun

COMPARED = (
    *("metrics.jsonl", "rollouts.jsonl", "checkpoint/model.safetensors", "checkpoint/README.md"),
    *("kept/000003/model.safetensors", "kept/000003/README.md"),
)
RL = {
    "kind": "rl", "init": "start", "domains": ["a", "b"], "algorithm": "resume-plain", "steps": 6, "prompts": 4,
    "group": 4, "max_tokens": 4, "lr": 0.01, "checkpoint_every": 1, "keep_every": 3,
}  # fmt: skip
SFT = {"kind": "sft", "init": "start", "domains": ["a", "b"], "conversations": 24, "batch": 4, "max_length": 64}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "rl": RL | {"updates": 2, "checkpoint_every": 2},
    "refill": RL | {"refill": 2},
    "taught": RL | {"algorithm": "resume-taught", "teachers": {"a": "other", "b": "start"}},
    "wandering": RL | {"algorithm": "resume-wandering", "mixture": {"use": "resume-wandering"}},
    "lagging": RL | {"mixture": {"use": "worst-task", "references": {"a": 0.1, "b": 0.9}, "rate": 0.3, "warmup": 1}},
    "sft": SFT | {"lr": 0.01, "checkpoint_every": 2},
}


# ── a plugin ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Digits(Domain):
    """Rewards answers that begin with an even digit or an early letter."""

    name, reference = "resume-digits", "test"
    Config = ComponentConfig
    suites: Mapping[str, Suite] = {}

    def __init__(self, config: ComponentConfig) -> None: ...

    def prompts(self, split: str) -> list[Prompt]:
        return [Prompt(str(i), "digits", ({"role": "user", "content": str(i)},)) for i in range(40)]

    def demonstrations(self) -> list[Conversation]:
        said = [
            (str(i), ({"role": "user", "content": str(i)}, {"role": "assistant", "content": str(2 * i)}))
            for i in range(20)
        ]
        return [Conversation(name, "digits", messages) for name, messages in said]  # type: ignore[arg-type]

    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(float(trajectory.answer[:1] in set("02468abcdefghijklm")))


class Part:
    """What all parts here share."""

    name, reference, needs, Config = "resume-part", "test", frozenset[str](), ComponentConfig

    def __init__(self, config: ComponentConfig) -> None: ...


class Centred(Part):
    name = "resume-centred"

    def __call__(self, group: list[Any]) -> list[Any]:
        import torch

        mean = sum(s.reward.value for s in group) / len(group)
        return [torch.full((len(s.ids_L),), s.reward.value - mean) for s in group]


class Remembering(Centred):
    """Adds noise of every process-wide generator, and a memory of its own."""

    name = "resume-remembering"

    def __init__(self, config: ComponentConfig) -> None:
        self.memory = 0.0

    def __call__(self, group: list[Any]) -> list[Any]:
        import numpy
        import torch

        noise = random.random() + float(numpy.random.random()) + float(torch.rand(()))
        self.memory = 0.5 * self.memory + noise
        return [value_L + self.memory for value_L in super().__call__(group)]

    def save_state(self, folder: Path) -> None:
        (folder / "memory.json").write_text(json.dumps(self.memory))

    def load_state(self, folder: Path) -> None:
        self.memory = json.loads((folder / "memory.json").read_text())


class Liked(Part):
    name, needs = "resume-liked", frozenset({"teacher_logps", "reference_logps"})

    def __call__(self, group: list[Any]) -> list[Any]:
        return [s.teacher_logps_L - s.reference_logps_L for s in group]


class Reinforce(Part):
    name, separable, vanishes = "resume-reinforce", True, True
    divergence: Divergence | None = None

    def __call__(self, logps: Any, batch: Any) -> Any:
        return -logps * batch.advantage_T


class Apart(Reinforce):
    name, vanishes, divergence = "resume-apart", False, Divergence("forward")

    def __call__(self, logps: Any, batch: Any) -> Any:
        return batch.divergence_T


class Wandering(Part):
    """Shares that depend on how often they were asked for, on the rewards, and on chance."""

    name = "resume-wandering"

    def __init__(self, config: ComponentConfig) -> None:
        self.asked = 0

    def weights(self, step: int, sizes: Mapping[str, int], rewards: Mapping[str, float]) -> Mapping[str, float]:
        self.asked += 1
        return {
            name: 1 + self.asked % 5 * index + rewards.get(name, 0) + random.random()
            for index, name in enumerate(sizes)
        }

    def save_state(self, folder: Path) -> None:
        (folder / "asked.json").write_text(json.dumps(self.asked))

    def load_state(self, folder: Path) -> None:
        self.asked = json.loads((folder / "asked.json").read_text())


def algorithm(label: str, *parts: Any) -> type[Part]:
    class Named(Part):
        name = label

        def compose(self) -> Composition:
            return Composition(*parts)

    return Named


@hookimpl
def m2rl_domains() -> list[type]:
    return [Digits]


@hookimpl
def m2rl_algorithms() -> list[type]:
    loss = {"use": "resume-reinforce"}
    return [
        algorithm("resume-plain", {"use": "resume-centred"}, loss),
        algorithm("resume-taught", {"use": "resume-liked"}, [loss, {"use": "resume-apart"}]),
        algorithm("resume-wandering", [{"use": "resume-centred"}, {"use": "resume-remembering", "weight": 0.1}], loss),
    ]


@hookimpl
def m2rl_advantages() -> list[type]:
    return [Centred, Remembering, Liked]


@hookimpl
def m2rl_losses() -> list[type]:
    return [Reinforce, Apart]


@hookimpl
def m2rl_mixtures() -> list[type]:
    return [Wandering]


# ── stages ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def train(
    variant: str, folder: Path, models: Mapping[str, Path], send: Callable[[Mapping[str, Any]], None] = lambda _: None
) -> None:
    """Run the stage, or go on with it, as a study's worker does."""
    from m2rl_core.config import Study
    from m2rl_core.files import room, sweep
    from m2rl_core.plugins import load_plugins
    from m2rl_core.run import StageRun
    from m2rl_core.train_rl import train_rl
    from m2rl_core.train_sft import train_sft

    study = Study.model_validate(
        {
            "name": "s",
            "model": {"dtype": "float32"},
            "domains": {name: {"use": "resume-digits", "reasoning": "off"} for name in "ab"},
            "stages": {"x": VARIANTS[variant]},
            "plugins": [__file__],
        }
    )
    with room(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder, deep=True)
        run: StageRun[Any] = StageRun(
            name="x", stage=study.stages["x"], study=study, seed=3, folder=folder, models=models,
            registry=load_plugins([__file__]), key="k", send=send,
        )  # fmt: skip
        (train_sft if variant == "sft" else train_rl)(run)
        run.close()


def written(folder: Path) -> dict[str, bytes]:
    """What must not depend on interruptions."""
    return {name: (folder / name).read_bytes() for name in COMPARED if (folder / name).exists()}


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────────

FULL = 3
"""Exit code of an attempt that found the disk full and said so."""
EVENTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.rmtree"}


class Trial:
    """One stage in one folder, run by forked processes."""

    def __init__(self, variant: str, folder: Path, models: Mapping[str, Path]) -> None:
        self.variant, self.folder, self.models = variant, folder, models

    def attempt(self, *, die_at: int = 0, count_in: Path | None = None) -> int:
        """The exit code of one attempt, minus the signal that killed it.

        Args:
            die_at: number of the event on a file of the stage at which it kills itself; 0 never.
            count_in: file for the number of these events.
        """
        if child := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self._work(die_at, count_in)
        raise AssertionError

    def killed_after(self, seconds: float) -> int:
        """As :meth:`attempt`, killed from outside after so many seconds."""
        child = os.fork()
        if not child:
            self._work(0, None)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _work(self, die_at: int, count_in: Path | None) -> None:
        from m2rl_core.errors import RunError

        seen = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in EVENTS and str(arguments[0]).startswith(str(self.folder)):
                seen += 1
                if seen == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            train(self.variant, self.folder, self.models)
            if count_in:
                count_in.write_text(str(seen))
            code = 0
        except RunError as error:
            code = FULL if "no space left" in str(error) else 4
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        sys.stderr.flush()
        os._exit(code)


def killed(whole: Trial, trial: Trial, chance: random.Random, counted: Path) -> list[int]:
    """Three kills, then the rest: exit codes. Kills at a file event and at a moment take turns."""
    codes, events = [], int(counted.read_text())
    for number in range(3):
        if number % 2:
            codes.append(trial.killed_after(chance.uniform(0.5, 4.0)))
        else:
            codes.append(trial.attempt(die_at=chance.randint(1, events)))
    return [*codes, trial.attempt()]


def full(whole: Trial, trial: Trial, chance: random.Random, counted: Path) -> list[int]:
    """Two attempts on a disk that fills up, then one on a disk with room: exit codes."""
    used = sum(path.stat().st_size for path in whole.folder.rglob("*") if path.is_file())
    ballast, codes = trial.folder.parent / "ballast", []
    for _ in range(2):
        left = chance.randint(1 << 12, used)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(trial.folder.parent).free - left)
        codes.append(trial.attempt())
        ballast.unlink()
    return [*codes, trial.attempt()]


def main(kind: str, variant: str, folder: Path, models: Mapping[str, Path], seeds: Sequence[int]) -> None:
    for name in ("m2rl_core.train_rl", "m2rl_core.train_sft", "transformers.models.qwen3.modeling_qwen3"):
        importlib.import_module(name)

    counted, whole = folder / "events", Trial(variant, folder / "whole", models)
    assert whole.attempt(count_in=counted) == 0
    found = []
    for seed in seeds:
        trial = Trial(variant, folder / f"seed-{seed}", models)
        codes = (killed if kind == "kill" else full)(whole, trial, random.Random(f"{kind} {variant} {seed}"), counted)
        expected, got = written(whole.folder), written(trial.folder)
        different = [name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)]
        found.append({"seed": seed, "codes": codes, "different": different, "files": sorted(expected)})
        shutil.rmtree(trial.folder)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    kind, variant, folder, model, other, *seeds = sys.argv[1:]
    main(kind, variant, Path(folder), {"start": Path(model), "other": Path(other)}, [int(seed) for seed in seeds])
