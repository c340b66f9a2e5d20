"""The estimates of a whole study, one per training stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from m2rl_core.composition import Components, compose
from m2rl_core.config import RlStage, SftStage, Study
from m2rl_core.estimate.advice import advice
from m2rl_core.estimate.device import Machine
from m2rl_core.estimate.lengths import PROMPT, Lengths
from m2rl_core.estimate.load import FLOAT32, Load
from m2rl_core.estimate.memory import Memory, peak
from m2rl_core.estimate.models import shape_of
from m2rl_core.estimate.sampling import Engine, engine_of, rollout_seconds
from m2rl_core.estimate.seconds import Seconds, reading_seconds, scoring_flops, teaching_flops, training_flops
from m2rl_core.estimate.shape import Shape
from m2rl_core.registry import Registry

__all__ = ["Estimate", "assumptions", "estimate"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one training stage."""

    stage: str
    steps: int
    devices: int
    unknown: str = ""
    """Why there is nothing else."""
    parameters: int = 0
    memory: Memory | None = None
    seconds: Seconds | None = None
    problems: tuple[str, ...] = ()
    """What would stop the stage, and which settings to change."""

    @property
    def device_hours(self) -> float | None:
        """Of all its steps."""
        return None if self.seconds is None else self.steps * self.seconds.total * self.devices / 3600


def assumptions(machine: Machine) -> str:
    """What all estimates take for granted, for their reader."""
    device = machine.device
    return (
        f"Taken for granted: prompts of {PROMPT} tokens (half of max_tokens or of the context where that is less), "
        "responses of any length up to max_tokens and half of it on average, conversations likewise up to max_length; "
        f"training and scoring achieve {device.mfu:.0%} of the peak and decoding {device.mbu:.0%} of the bandwidth; "
        f"a teacher's weights come from the page cache at {device.reading / 1e9:g} GB/s; "
        "verification, weight sync and checkpoints take no time; no group is left out for want of advantage."
    )


def estimate(study: Study, registry: Registry, machine: Machine) -> list[Estimate]:
    """Memory and time of every training stage.

    Args:
        study: checked and grounded.
        registry: builds the algorithms' parts, which say what they need.
    """
    found = []
    for name, stage in study.stages.items():
        if isinstance(stage, SftStage):
            found.append(_sft(study, machine, name, stage))
        elif isinstance(stage, RlStage):
            found.append(_rl(study, registry, machine, name, stage))
    return found


# ── supervised fine-tuning ───────────────────────────────────────────────────────────────────────────────────────────


def _sft(study: Study, machine: Machine, name: str, stage: SftStage) -> Estimate:
    shape, lengths = shape_of(study, stage.init), Lengths(0, stage.max_length)
    if isinstance(shape, str):
        return Estimate(name, stage.updates, machine.count, shape)
    load = _load(study, machine, shape, lengths, stage.tokens_per_device, stage.batch)
    work = stage.batch * training_flops(shape, lengths, checkpointing=load.checkpointing)
    seconds = Seconds(work / _rate(study, machine), _moving_seconds(study, machine, shape))
    problems = _problems(advice(load, lengths.row, machine, embedded=False))
    return Estimate(name, stage.updates, machine.count, "", shape.parameters, peak(load), seconds, problems)


# ── reinforcement learning and distillation ──────────────────────────────────────────────────────────────────────────


def _rl(study: Study, registry: Registry, machine: Machine, name: str, stage: RlStage) -> Estimate:
    models: dict[str, Shape] = {}
    for model in (stage.init, *stage.teachers.values()):
        found = shape_of(study, model)
        if isinstance(found, str):
            return Estimate(name, stage.steps, machine.count, found)
        models[model] = found
    shape = models[stage.init]
    lengths = Lengths.of_samples(stage.max_tokens, shape.context)
    engine = engine_of(study, machine, shape, lengths, stage.prompts * stage.group / machine.count)
    parts = compose(registry, stage.algorithm, f"stages.{name}.algorithm")
    load = _rl_load(study, machine, stage, parts, models, engine)
    seconds = None if engine.problem else _rl_seconds(study, machine, stage, parts, models, engine)
    problems = _problems(engine.problem, advice(load, lengths.row, machine, embedded=engine.stays))
    return Estimate(name, stage.steps, machine.count, "", shape.parameters, peak(load), seconds, problems)


def _scored(stage: RlStage, parts: Components) -> list[str]:
    """The frozen models that score a step, in their order: the reference, every teacher."""
    needs = parts.scores(stage.updates)
    reference = [stage.init] if "reference_logps" in needs else []
    return [*reference, *(_teachers(stage) if "teacher_logps" in needs else [])]


def _lecturing(stage: RlStage, parts: Components) -> list[str]:
    """The teachers of a step's minibatches, in their order."""
    return _teachers(stage) * stage.updates if parts.distils else []


def _teachers(stage: RlStage) -> list[str]:
    return list(dict.fromkeys(stage.teachers.values()))


def _rl_load(
    study: Study, machine: Machine, stage: RlStage, parts: Components, models: Mapping[str, Shape], engine: Engine
) -> Load:
    shape, samples = models[stage.init], stage.prompts * stage.group / stage.updates
    lengths = Lengths.of_samples(stage.max_tokens, shape.context)
    load = _load(study, machine, shape, lengths, stage.tokens_per_device, samples)
    frozen = [models[model] for model in (*_scored(stage, parts), *_lecturing(stage, parts))]
    largest = max(frozen, key=lambda model: model.parameters, default=None)
    load = replace(load, separable=parts.loss.separable, frozen=largest, lectured=parts.distils)
    return replace(load, engine=engine.weights, cache=engine.cache) if engine.stays else load


def _rl_seconds(
    study: Study, machine: Machine, stage: RlStage, parts: Components, models: Mapping[str, Shape], engine: Engine
) -> Seconds:
    shape, samples = models[stage.init], stage.prompts * stage.group
    lengths = Lengths.of_samples(stage.max_tokens, shape.context)
    each, needs = samples / _rate(study, machine), parts.scores(stage.updates)
    scored = each * scoring_flops(shape, lengths)
    teachers = {domain: models[model] for domain, model in stage.teachers.items()}
    taught = each * teaching_flops(teachers, _shares(stage), lengths) if teachers else 0.0
    scoring, lecturing = _scored(stage, parts), _lecturing(stage, parts)
    checkpointing = study.model.activation_checkpointing
    update = training_flops(shape, lengths, checkpointing=checkpointing, separable=parts.loss.separable)
    return Seconds(
        update=each * update,
        moving=stage.updates * _moving_seconds(study, machine, shape),
        rollout=rollout_seconds(shape, lengths, engine, machine, stage.prompts, samples),
        old=scored if "old_logps" in needs else 0.0,
        reference=scored if "reference_logps" in needs else 0.0,
        teachers=(taught if "teacher_logps" in needs else 0.0)
        + reading_seconds(lecturing or scoring, scoring, models, machine),
        lectures=(taught if lecturing else 0.0) + reading_seconds(scoring or lecturing, lecturing, models, machine),
    )


def _shares(stage: RlStage) -> dict[str, float]:
    return dict(stage.domains) if isinstance(stage.domains, Mapping) else dict.fromkeys(stage.domains, 1.0)


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _load(study: Study, machine: Machine, shape: Shape, lengths: Lengths, most: int, samples: float) -> Load:
    """Batches are as full as ``most`` allows, unless an update has fewer tokens than that."""
    held, longest = study.model, lengths.row
    dense = machine.device.dense or held.dtype == "float32"
    return Load(
        shape,
        tokens=min(most, max(longest, int(samples * lengths.tokens / machine.count))),
        devices=machine.count,
        cpu=machine.device.dense,
        dtype=held.dtype,
        checkpointing=held.activation_checkpointing,
        offload=_offloads(study, machine),
        row=min(most, longest) if dense else 0,
    )


def _rate(study: Study, machine: Machine) -> float:
    """What all devices together achieve [FLOP/s]."""
    return machine.count * machine.device.flops(study.model.dtype)


def _offloads(study: Study, machine: Machine) -> bool:
    """On a CPU the host's memory is the device's, and nothing is gained."""
    return study.model.optimizer_offload and not machine.device.dense


def _moving_seconds(study: Study, machine: Machine, shape: Shape) -> float:
    """Both moments of every parameter from host memory and back, each device its share."""
    if not _offloads(study, machine):
        return 0.0
    return 2 * 2 * FLOAT32 * shape.parameters / machine.count / machine.device.link


def _problems(*texts: str) -> tuple[str, ...]:
    return tuple(text for text in texts if text)
