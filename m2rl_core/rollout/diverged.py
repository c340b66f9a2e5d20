"""The batch that made a loss or a gradient non-finite, kept with the weights that it met, to be run again.

``diverged/`` in the stage's folder holds ``samples.jsonl`` (records as in ``rollouts.jsonl``, with each sample's
coefficients, advantages and log-probs), ``facts.json`` and ``model/``, a Hugging Face folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from m2rl_core.config import RlStage, SftStage
from m2rl_core.errors import DivergedError
from m2rl_core.files import append_jsonl, read_jsonl
from m2rl_core.policy import Policy, sharding
from m2rl_core.rollout.records import from_record, to_record
from m2rl_core.run import StageRun
from m2rl_core.types import Sample

__all__ = ["batch_kept", "read_batch"]

FOLDER, SAMPLES = "diverged", "samples.jsonl"
FIELDS = ("coef", "advantage", "old_logps", "reference_logps", "teacher_logps")


@contextmanager
def batch_kept(
    run: StageRun[RlStage] | StageRun[SftStage], policy: Policy, samples_S: Sequence[Sample], step: int
) -> Iterator[None]:
    """Around the update that ``samples_S`` make: where it stops the run, they are kept first. Collective.

    Raises:
        DivergedError: as :meth:`m2rl_core.policy.Policy.step`, with the place of the batch.
    """
    try:
        yield
    except DivergedError as error:
        facts = {"stage": run.name, "step": step, "reason": str(error)}

        def save(folder: Path) -> None:
            (folder / "model").mkdir(exist_ok=True)
            policy.save(folder / "model")
            if sharding.leads():
                append_jsonl(folder / SAMPLES, map(_record, samples_S))
                (folder / "facts.json").write_text(json.dumps(facts) + "\n")

        run.leave(FOLDER, save)
        place = run.folder / FOLDER
        then = f"look at the batch of step {step} in {place / SAMPLES}, or lower stages.{run.name}.lr"
        raise DivergedError(str(error), then=then) from error


def read_batch(folder: Path) -> list[Sample]:
    """The samples in a folder ``diverged/``, ready to be packed."""
    return [_sample(record) for record in read_jsonl(folder / SAMPLES)]


def _record(sample: Sample) -> dict[str, Any]:
    values = {name: getattr(sample, f"{name}_L") for name in FIELDS}
    more = {name: None if value is None else _plain(value.tolist()) for name, value in values.items()}
    return {**to_record(sample), "logps": _plain(sample.logps_L), **more}


def _sample(record: dict[str, Any]) -> Sample:
    sample = from_record({**record, "logps": [float(value) for value in record["logps"]]})
    for name in FIELDS:
        if record[name] is not None:
            setattr(sample, f"{name}_L", torch.tensor([float(value) for value in record[name]]))
    return sample


def _plain(values: Sequence[float]) -> list[float | str]:
    """Numbers that JSON does not know (NaN, ±∞), which may be what is looked for, as text that ``float`` reads."""
    return [value if math.isfinite(value) else str(value) for value in values]
