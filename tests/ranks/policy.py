"""What each of several processes does for ``tests/test_sharding.py``: score, accumulate, step, hand out weights.

    python policy.py RANK RANKS MODEL WORK

``WORK`` holds ``job.pt`` (samples, dtype, checkpointing); what was found goes to ``WORK/found-RANK.pt``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from m2rl_core.config import OptimSection
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.packing import unpack
from m2rl_core.policy import Policy
from m2rl_core.policy.sharding import whole
from m2rl_core.train_sft import NegativeLogLikelihood

TOKENS = 64


def main(rank: int, ranks: int, model: Path, work: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{work}/meeting", rank=rank, world_size=ranks)
    job = torch.load(work / "job.pt", weights_only=False)
    policy = Policy.load(model, dtype=job["dtype"], optim=OptimSection(), checkpointing=job["checkpointing"])
    loss = NegativeLogLikelihood(ComponentConfig())
    samples_S, backwards, metrics, gradients = job["samples"], [], [], {}
    for batch in policy.pack(samples_S, TOKENS):
        unpack(batch, policy.logps(batch), samples_S, "old_logps_L")
    mine = [s.old_logps_L for s in samples_S]
    for step in range(job["steps"]):
        batches = policy.pack(samples_S, TOKENS)
        backwards.append(len(batches))
        for batch in batches:
            policy.backward(batch, loss)
        if step == 0:
            gradients = {n: whole(p.grad) for n, p in policy.model.named_parameters() if p.grad is not None}
        policy.step(job["lr"])
        metrics.append(policy.metrics())
    policy.save(work / "saved")
    found = {"logps": mine, "backwards": backwards, "metrics": metrics, "gradients": gradients}
    torch.save(found | {"weights": dict(policy.named_tensors())}, work / f"found-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
