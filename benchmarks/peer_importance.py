"""Importance weights beside TRL's: the largest difference for each of its four modes, on random log-probs.

::

    python benchmarks/peer_importance.py            # needs TRL, e.g. pip install trl==1.16.0
    python benchmarks/peer_importance.py --record plugins/algorithms/mis/tests/trl.json

TRL computes its weights in the middle of a long method that also generates. The statement that does so is taken from
the syntax tree of the installed TRL and run as it stands, on a stand-in for the trainer that holds the four settings it
reads. ``--record`` writes a small case with TRL's answers, which the plugin's tests compare with.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from m2rl_algorithm_mis.rules import Mis, Tis
from m2rl_core.packing import pack, unpack
from m2rl_core.types import Prompt, Sample, Trajectory

MODES: Mapping[str, tuple[str, str]] = {
    "token_truncate": ("tis", "token"),
    "token_mask": ("mis", "token"),
    "sequence_truncate": ("tis", "sequence"),
    "sequence_mask": ("mis", "sequence"),
}
BOUNDS = ((0.0, 3.0), (0.5, 2.0), (0.8, 1.25))
"""TRL's default, this plugin's, and narrow ones. TRL has no lower bound by default, which is 0 to a ratio."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, help="write a small case and TRL's weights to this file")
    record = parser.parse_args().record
    import trl

    code = peer_code()
    if record:
        record.write_text(json.dumps(recorded(code, trl.__version__)) + "\n")
        return
    sampler, trainer, trained = case(64, 200, seed=0)
    print(f"TRL {trl.__version__}, {int(trained.sum())} trained tokens of {len(trained)} samples: largest difference")
    print(f"{'mode':20}{'bounds':>14}{'difference':>14}{'weights of 0':>14}")
    for mode in MODES:
        for low, high in BOUNDS:
            theirs = peer(code, mode, low, high, sampler, trainer, trained)
            ours = own(mode, low, high, sampler, trainer, trained)
            worst, none = (ours - theirs).abs().max().item(), (ours[trained] == 0).float().mean().item()
            print(f"{mode:20}{f'[{low}, {high}]':>14}{worst:14.1e}{none:14.1%}")


def peer_code() -> CodeType:
    """TRL's own statement, compiled: it sets ``vllm_importance_sampling_ratio``.

    Raises:
        SystemExit: this TRL does not have it where 1.16 has.
    """
    from trl.trainer import grpo_trainer

    method = grpo_trainer.GRPOTrainer._generate_and_score_completions
    found = [
        node
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method))))
        if isinstance(node, ast.If)
        and "importance_sampling_correction" in ast.unparse(node.test)
        and "torch.exp" in ast.unparse(node)
    ]
    if not found:
        raise SystemExit("this TRL weighs elsewhere than in _generate_and_score_completions; install trl==1.16.0")
    innermost = min(found, key=lambda node: len(ast.unparse(node)))
    return compile(ast.Module([innermost], []), "trl", "exec")


def peer(
    code: CodeType, mode: str, low: float, high: float, sampler: Tensor, trainer: Tensor, trained: Tensor
) -> Tensor:
    """TRL's weights [samples, tokens], 0 where nothing was trained."""
    settings = SimpleNamespace(
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=low,
        vllm_importance_sampling_clip_max=high,
    )
    names: dict[str, Any] = {"self": settings, "torch": torch, "math": math, "tool_mask": None}
    names |= {"completion_mask": trained.long(), "old_per_token_logps": trainer, "sampling_per_token_logps": sampler}
    exec(code, names)
    weights: Tensor = names["vllm_importance_sampling_ratio"]
    return weights.expand_as(sampler) * trained


def own(mode: str, low: float, high: float, sampler: Tensor, trainer: Tensor, trained: Tensor) -> Tensor:
    """This plugin's weights [samples, tokens], 0 where nothing was trained."""
    name, level = MODES[mode]
    config = {"level": level, "low": low, "high": high}
    rule = Mis(Mis.Config.model_validate(config)) if name == "mis" else Tis(Tis.Config.model_validate(config))
    samples = [_sample(*row) for row in zip(sampler, trainer, trained, strict=True)]
    [batch] = pack(samples, 2 * sampler.numel() + 16, torch.device("cpu"), dense=False)
    chosen = torch.nonzero(batch.trained_T)[:, 0]
    weight_T = torch.zeros(len(batch.ids_T))
    weight_T[chosen] = rule(batch.take(chosen)).weight_T
    unpack(batch, weight_T, samples, "coef_L")
    return torch.stack([s.coef_L for s in samples if s.coef_L is not None])


def _sample(sampler: Tensor, trainer: Tensor, trained: Tensor) -> Sample:
    prompt = Prompt("p", "d", ({"role": "user", "content": "?"},))
    drawn = trained.tolist()
    return Sample(
        prompt=prompt,
        index=0,
        ids_L=[0] * len(drawn),
        sampled_L=drawn,
        logps_L=sampler.tolist(),
        versions_L=[0 if d else -1 for d in drawn],
        trajectory=Trajectory(prompt, (), ""),
        finish="stop",
        old_logps_L=trainer,
    )


def case(samples: int, tokens: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(sampler's log-probs, trainer's, trained), each [samples, tokens]; lengths differ, and tools speak in between."""
    generator = torch.Generator().manual_seed(seed)
    sampler = -torch.rand(samples, tokens, generator=generator) * 4
    # a heavy tail, and samples that agree well beside samples that do not
    scale = 10 ** -(torch.rand(samples, 1, generator=generator) * 2 + 0.5)
    trainer = sampler + scale * torch.randn(samples, tokens, generator=generator) ** 3
    length = torch.randint(2, tokens + 1, (samples, 1), generator=generator)
    trained = (torch.arange(tokens) < length) & (torch.rand(samples, tokens, generator=generator) < 0.9)
    trained[:, 0] = True
    return sampler, trainer, trained


def recorded(code: CodeType, version: str) -> dict[str, Any]:
    """A small case as plain JSON, with TRL's weights for every mode and bounds."""
    sampler, trainer, trained = case(6, 8, seed=1)
    answers = [
        {"mode": mode, "rule": rule, "level": level, "low": low, "high": high}
        | {"weights": peer(code, mode, low, high, sampler, trainer, trained).tolist()}
        for mode, (rule, level) in MODES.items()
        for low, high in BOUNDS
    ]
    made = f"benchmarks/peer_importance.py --record, TRL {version}, torch {torch.__version__}"
    inputs = {"sampler": sampler.tolist(), "trainer": trainer.tolist(), "trained": trained.tolist()}
    return {"made": made} | inputs | {"answers": answers}


if __name__ == "__main__":
    main()
