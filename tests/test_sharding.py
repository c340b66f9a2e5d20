"""Two processes under FSDP2 do what one does: gloo on a CPU, no ports of ours, the same samples shared out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from m2rl_core.config import OptimSection
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.policy import Policy
from m2rl_core.train_sft import NegativeLogLikelihood, share_tokens
from m2rl_core.types import Sample

Make = Callable[..., Sample]
WORK = Path(__file__).parent / "ranks" / "policy.py"
STEPS, LR, TOKENS = 3, 0.01, 64
pytestmark = pytest.mark.slow


def together(ranks: int, model: Path, work: Path, samples: list[Sample], **job: Any) -> list[dict[str, Any]]:
    """What every rank has found."""
    job = {"samples": samples, "dtype": "float32", "checkpointing": False, "steps": STEPS, "lr": LR} | job
    torch.save(job, work / "job.pt")
    command = [sys.executable, str(WORK)]
    processes = [
        subprocess.Popen([*command, str(rank), str(ranks), str(model), str(work)], stderr=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [torch.load(work / f"found-{rank}.pt", weights_only=False) for rank in range(ranks)]


def alone(model: Path, samples: list[Sample]) -> tuple[Policy, dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The policy of one process after the same steps, its first gradients and its metrics."""
    policy, loss = Policy.load(model, dtype="float32", optim=OptimSection()), NegativeLogLikelihood(ComponentConfig())
    gradients, metrics = {}, []
    for step in range(STEPS):
        for batch in policy.pack(samples, TOKENS):
            policy.backward(batch, loss)
        if step == 0:
            gradients = {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}
        policy.step(LR)
        metrics.append(policy.metrics())
    return policy, gradients, metrics


@pytest.fixture
def samples(make_sample: Make) -> list[Sample]:
    found = [make_sample(12 + 5 * i, 4 + 3 * i, i) for i in range(9)]
    share_tokens(found)
    return found


def test_two_processes_train_as_one(tiny_model: Path, tmp_path: Path, samples: list[Sample]) -> None:
    policy, gradients, metrics = alone(tiny_model, samples)
    ranks = together(2, tiny_model, tmp_path, samples)
    assert ranks[0]["backwards"] == ranks[1]["backwards"], "collective operations must match"
    for found in ranks:
        assert found["gradients"].keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-4, atol=1e-6)
        for one, other in zip(found["metrics"], metrics, strict=True):
            assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
        for name, parameter in policy.named_tensors():
            torch.testing.assert_close(found["weights"][name], parameter, rtol=0, atol=1e-5)


def test_every_sample_is_scored_on_one_rank(tiny_model: Path, tmp_path: Path, samples: list[Sample]) -> None:
    ranks = together(2, tiny_model, tmp_path, samples, steps=1, checkpointing=True)
    policy = Policy.load(tiny_model, dtype="float32")
    for batch in policy.pack(samples, TOKENS):
        expected = policy.logps(batch)
        for piece in batch.pieces_N:
            [scored] = [found["logps"][piece.sample] for found in ranks if found["logps"][piece.sample] is not None]
            mine = expected[piece.at : piece.at + piece.stop - piece.start]
            torch.testing.assert_close(scored, mine, rtol=0, atol=1e-5)


def test_a_rank_without_samples_takes_part(tiny_model: Path, tmp_path: Path, make_sample: Make) -> None:
    sample = make_sample(20, 9)
    share_tokens([sample])
    _, gradients, metrics = alone(tiny_model, [sample])
    for found in together(2, tiny_model, tmp_path, [sample]):
        assert found["metrics"][0] == pytest.approx(metrics[0], rel=1e-5, abs=1e-6)
        for name, gradient in gradients.items():
            torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-4, atol=1e-6)


def test_what_two_processes_save_opens_in_transformers(tiny_model: Path, tmp_path: Path, samples: list[Sample]) -> None:
    found, _ = together(2, tiny_model, tmp_path, samples, dtype="bfloat16", steps=1)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    for name, parameter in saved.named_parameters():
        assert torch.equal(parameter, found["weights"][name])
