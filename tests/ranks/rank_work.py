"""What each of several processes does for ``tests/test_sharding.py``, and what one process does alone.

    python rank_work.py RANKS WORK CASE ...

``WORK/job.pt`` holds the models' folders; what was found goes to ``WORK/found-RANK.pt``.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from m2rl_core.algorithm import Parts, batches, correct, score, settle
from m2rl_core.config import OptimSection
from m2rl_core.interfaces import ComponentConfig, Importance
from m2rl_core.policy import Frozen, Policy
from m2rl_core.policy.sharding import whole
from m2rl_core.train_sft import NegativeLogLikelihood, share_tokens
from m2rl_core.types import Batch, Correction, Divergence, Prompt, Sample, Trajectory

TOKENS, LR = 64, 0.01


class Sequences(NegativeLogLikelihood):
    """A loss that needs whole sequences: a ratio of likelihoods per sequence, as in GSPO."""

    separable = False

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.sampler_logps_T is not None
        _, sequence_T = batch.sequence_T.unique(return_inverse=True)
        sums = torch.zeros(len(batch.pieces_N) + 1).index_add(0, sequence_T, logps - batch.sampler_logps_T.detach())
        lengths = torch.zeros(len(batch.pieces_N) + 1).index_add(0, sequence_T, torch.ones_like(logps))
        return -(sums / lengths.clamp_min(1))[sequence_T].exp()


class Taught(NegativeLogLikelihood):
    """A divergence from teachers, beside the likelihood."""

    divergence = Divergence("reverse")

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.divergence_T is not None
        return batch.divergence_T - 0.1 * logps


class Bounded(Importance):
    """The ratio of probabilities, between a half and 2, within the backward pass."""

    name, reference, needs, separable = "bounded", "test", frozenset({"old_logps"}), True

    def __call__(self, batch: Batch) -> Correction:
        assert batch.old_logps_T is not None
        weight_T = (batch.old_logps_T - batch.sampler_logps_T).exp().clamp(0.5, 2.0)
        return Correction(weight_T, torch.ones_like(batch.trained_T), {"weight": weight_T.mean().item()})


@dataclass(frozen=True)
class Case:
    loss: type[NegativeLogLikelihood] = NegativeLogLikelihood
    rule: Importance | None = None
    count: int = 9
    dtype: str = "float32"
    checkpointing: bool = False
    offload: bool = False
    taught: bool = False
    clip: float = 1.0
    steps: int = 3


CASES: Mapping[str, Case] = {
    "separable": Case(),
    "clipped": Case(clip=0.01),
    "sequences": Case(Sequences),
    "taught": Case(Taught, taught=True),
    "recomputed": Case(checkpointing=True),
    "offloaded": Case(offload=True),
    "lone": Case(count=1),
    "weighed": Case(rule=Bounded()),
    "bfloat16": Case(dtype="bfloat16", steps=1),
}


def samples(count: int) -> list[Sample]:
    """Of two domains: all but one are "math"."""
    draw, made = random.Random(count), []
    for i in range(count):
        length, sampled = 12 + 5 * i, 4 + 3 * i
        drawn = [False] * (length - sampled) + [True] * sampled
        prompt = Prompt(str(i), "if" if i == 3 else "math", ())
        made.append(
            Sample(
                prompt=prompt,
                index=0,
                ids_L=[draw.randrange(384) for _ in drawn],
                sampled_L=drawn,
                logps_L=[-6 * draw.random() if d else 0.0 for d in drawn],
                versions_L=[0 if d else -1 for d in drawn],
                trajectory=Trajectory(prompt, (), ""),
                finish="stop",
            )
        )
    share_tokens(made)
    return made


def teachers(case: Case, models: Mapping[str, Path]) -> Frozen:
    given = {"math": "other", "if": "third"} if case.taught else {}
    return Frozen(models, given, "start", lambda folder: Policy.load(folder, dtype=case.dtype))


def steps(
    case: Case, policy: Policy, frozen: Frozen, samples_S: Sequence[Sample], found: dict[str, Any], count: int
) -> None:
    """Train; ``found`` gets the first step's gradients and every step's metrics."""
    loss = case.loss(ComponentConfig())
    scored = {"teacher_logps"} if case.rule else {"old_logps", "teacher_logps"}
    parts = Parts(None, case.rule, loss, "token", frozenset(scored), 0)  # type: ignore[arg-type]
    for _ in range(count):
        if "scores" not in found:
            score(policy, frozen, samples_S, parts, TOKENS)
            found["scores"] = [[s.old_logps_L for s in samples_S], [s.teacher_logps_L for s in samples_S]]
        number = 0
        if case.rule:
            for sample in samples_S:
                sample.old_logps_L = None  # as if newly sampled
            correct(samples_S, parts)
        for batch in batches(policy, frozen, samples_S, parts, TOKENS):
            policy.backward(batch, loss, frozen.lecture(batch), parts.weigh)
            number += 1
        settled = settle(policy, samples_S, parts, TOKENS)
        found.setdefault("batches", number)
        if "gradients" not in found:
            found["gradients"] = {n: whole(p.grad).clone() for n, p in policy._parameters().items()}
        policy.step(LR)
        found.setdefault("metrics", []).append(policy.metrics() | settled)


def work_on(name: str, models: Mapping[str, Path], work: Path) -> dict[str, Any]:
    """All that is found of one case; the state after two steps and the model at the end are kept in ``work``."""
    case, found = CASES[name], dict[str, Any]()
    optim = OptimSection(clip=case.clip)
    held = {"checkpointing": case.checkpointing, "offload": case.offload}
    policy = Policy.load(models["start"], dtype=case.dtype, optim=optim, **held)
    frozen, samples_S = teachers(case, models), samples(case.count)
    steps(case, policy, frozen, samples_S, found, min(2, case.steps))
    (work / f"state-{name}").mkdir(exist_ok=True)
    policy.save_state(work / f"state-{name}")
    steps(case, policy, frozen, samples_S, found, case.steps - 2)
    if dist.is_initialized():
        policy.save(work / f"saved-{name}")
    return found | {"weights": {n: t.clone() for n, t in policy.named_tensors()}}


def resumed(state: Path, models: Mapping[str, Path]) -> dict[str, Any]:
    """The third step of the case "separable", from a state."""
    policy, found = Policy.load(models["other"], dtype="float32", optim=OptimSection()), dict[str, Any]()
    policy.load_state(state)
    steps(CASES["separable"], policy, teachers(CASES["separable"], models), samples(9), found, 1)
    return found | {"weights": {n: t.clone() for n, t in policy.named_tensors()}}


def main(rank: int, ranks: int, work: Path, names: Sequence[str]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{work}/meeting", rank=rank, world_size=ranks)
    job = torch.load(work / "job.pt", weights_only=False)
    found = {name: work_on(name, job["models"], work) for name in names}
    found |= {f"from {number}": resumed(state, job["models"]) for number, state in job["states"].items()}
    torch.save(found, work / f"found-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    count, folder = int(sys.argv[1]), Path(sys.argv[2])
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    fresh = multiprocessing.get_context("spawn")  # a library that was imported may have started a thread: no fork
    ranks = [fresh.Process(target=main, args=(i, count, folder, sys.argv[3:]), daemon=True) for i in range(count)]
    for each in ranks:
        each.start()
    while left := [each.sentinel for each in ranks if each.exitcode is None]:  # asked once: no wait for nobody
        multiprocessing.connection.wait(left)
        if any(each.exitcode for each in ranks):
            sys.exit(1)  # the others wait for one that has failed; they end with this process
    sys.exit(any(each.exitcode for each in ranks))
