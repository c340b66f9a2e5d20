"""What several processes cost on one machine, gloo on CPUs: weights handed out, a minibatch, a state, a model.

    OMP_NUM_THREADS=1 python benchmarks/ranks.py --ranks 2

Times are medians; ratios hold, seconds depend on who else is at work. One thread per process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from m2rl_core.config import InitStage, OptimSection
from m2rl_core.init import fresh_model, fresh_tokenizer
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.policy import Policy
from m2rl_core.policy.sharding import joined, whole
from m2rl_core.train_sft import NegativeLogLikelihood, share_tokens
from m2rl_core.types import Prompt, Sample, Trajectory

TIMES = 7


def model(folder: Path) -> Path:
    """Four layers of width 128, 0.9 million parameters: the miniature's size."""
    stage = InitStage(kind="init", domains=[], vocab=512, hidden=128, layers=4, heads=4, kv_heads=2, ffn=384)
    tokenizer = fresh_tokenizer(iter(["What is 12 + 34?"] * 8), stage.vocab, stage.context)
    fresh_model(stage, tokenizer, seed=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def samples(count: int = 256) -> list[Sample]:
    draw, made = random.Random(1), []
    for i in range(count):
        length = min(120, 8 + int(draw.expovariate(1 / 24)))
        drawn = [False] * 4 + [True] * (length - 4)
        prompt = Prompt(str(i), "math", ())
        ids = [draw.randrange(512) for _ in drawn]
        made.append(Sample(prompt, 0, ids, drawn, [0.0] * length, [0] * length, Trajectory(prompt, (), ""), "stop"))
    share_tokens(made)
    return made


def median_ms(work: Callable[[], Any]) -> float:
    spent = []
    for _ in range(TIMES):
        if dist.is_initialized():
            dist.barrier()
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent) * 1e3


def measure(rank: int, ranks: int, start: Path, work: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), GLOO_SOCKET_IFNAME="lo")
    with joined(f"{work}/group-{ranks}"):
        tell(measured(start, work), ranks) if rank == 0 else measured(start, work)


def measured(start: Path, work: Path) -> dict[str, float]:
    policy = Policy.load(start, dtype="float32", optim=OptimSection())
    loss, samples_S = NegativeLogLikelihood(ComponentConfig()), samples()
    batches = policy.pack(samples_S, 1024)

    def minibatch(reduce_once: bool) -> None:
        for i, batch in enumerate(batches):
            if dist.is_initialized():
                policy.scorer.set_requires_gradient_sync(not reduce_once or i == len(batches) - 1)  # type: ignore
            policy.backward(batch, loss)
        policy.step(1e-3)

    minibatch(False)
    found = {
        f"a minibatch of {len(batches)} batches, its step": median_ms(lambda: minibatch(False)),
        "the same, gradients summed after the last batch only": median_ms(lambda: minibatch(True)),
        "all weights handed out": median_ms(lambda: [t.sum() for _, t in policy.named_tensors()]),
        "the same, tensor by tensor": median_ms(lambda: [whole(p.detach()).sum() for p in policy.model.parameters()]),
    }
    for name, save in (("a state saved", policy.save_state), ("a model saved", policy.save)):
        found[name] = median_ms(lambda save=save: save(fresh(work)))  # type: ignore[misc]
    return found


def fresh(work: Path) -> Path:
    """A folder that holds nothing, the same for all ranks."""
    folder = work / "written"
    if not dist.is_initialized() or dist.get_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    if dist.is_initialized():
        dist.barrier()
    return folder


def tell(found: dict[str, float], ranks: int) -> None:
    for name, value in found.items():
        print(f"{ranks} process{'es' if ranks > 1 else ''}: {name}: {value:.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    ranks = parser.parse_args().ranks
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        start = model(work / "model")
        tell(measured(start, work), 1)
        processes = [context.Process(target=measure, args=(rank, ranks, start, work)) for rank in range(ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()


if __name__ == "__main__":
    main()
