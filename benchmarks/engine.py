"""The embedded engine beside ``transformers.generate`` on the miniature study's model, batch 256.

::

    OMP_NUM_THREADS=1 python benchmarks/engine.py
    OMP_NUM_THREADS=1 python benchmarks/engine.py --dtype bfloat16

``equal``: every sample has 64 tokens. ``ragged``: samples end by themselves, at one of :data:`STOPS`, after 20 tokens
on average and 120 at most; ``generate`` goes on until the last has ended. Tokens up to the end count. Prompts have 24
tokens: 16 prompts with 16 samples each, as in a step of reinforcement learning, and 256 different ones.

``generate`` runs with its dynamic cache and SDPA attention, its fastest settings here (a static cache is 5 % slower,
eager attention 25 %). Both sides run alternately on one thread. Shown are medians of tokens per CPU second, which is a
second of an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from m2rl_core.engine import selftest
from m2rl_core.engine.cache import Cache
from m2rl_core.engine.checkpoint import open_model
from m2rl_core.engine.embedded import DTYPES, EmbeddedEngine
from m2rl_core.seeding import derive
from m2rl_core.types import Sampling, Turn

BATCH, PROMPT, VOCAB = 256, 24, 512
STOPS = tuple(range(25))
"""Tokens that end a sample: one token in twenty."""
CONFIG = Qwen3Config(
    vocab_size=VOCAB,
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    tie_word_embeddings=True,
    max_position_embeddings=1024,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
    initializer_range=0.1,
)
LONGEST = {"equal": 64, "ragged": 120}
GOALS = {"equal": 1.1, "ragged": 4.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="engine-") as scratch:
        folder = Path(scratch)
        AutoModelForCausalLM.from_config(CONFIG).save_pretrained(folder)
        asyncio.run(compare(folder, options.dtype, options.runs))


async def compare(folder: Path, dtype: str, runs: int) -> None:
    """Print tokens per CPU second of both sides, their ratio, and how far log-probs are apart."""
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], attn_implementation="sdpa").eval()
    engine = EmbeddedEngine(EmbeddedEngine.Config(device="cpu", dtype=dtype))
    await engine.start(folder, max_tokens=1024)
    apart = 0.0
    for prompts in (16, BATCH):
        for kind, goal in GOALS.items():
            sides: dict[str, list[Run]] = {"engine": [], "generate": []}
            for seed in range(runs):
                texts = [
                    [random.Random(f"{seed} {i} {j}").randrange(VOCAB) for j in range(PROMPT)] for i in range(prompts)
                ]
                sides["engine"].append(await timed_draw(engine, kind, texts, seed))
                sides["generate"].append(timed_generate(peer, kind, texts, seed))
            ours, theirs = (statistics.median(run.rate for run in side) for side in sides.values())
            lengths = [n for side in sides.values() for run in side for n in run.lengths]
            print(
                f"{dtype} {prompts:3} x {BATCH // prompts:2} {kind:6}  mean {statistics.mean(lengths):.1f} "
                f"longest {max(lengths):3}  engine {ours:6.0f}  generate {theirs:6.0f} tokens/s  "
                f"ratio {ours / theirs:.2f} (goal {goal})"
            )
            apart = max(apart, difference(peer, texts, sides["engine"][-1].turns))
    print(f"{dtype} log-probs differ from a plain forward pass by at most {apart:.1e}")
    model = open_model(folder, device="cpu", dtype=DTYPES[dtype], context=1024)
    tests = [cpu_seconds(lambda: check(model)) for _ in range(runs)]
    started = time.process_time()
    await engine.load_weights(peer.named_parameters(), version=1)
    loading = time.process_time() - started
    print(f"{dtype} start-up test {1e3 * statistics.median(tests):.0f} ms, new weights {1e3 * loading:.1f} ms")


@dataclass
class Run:
    """One batch of one side."""

    seconds: float
    lengths: list[int]
    turns: list[Turn] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return sum(self.lengths) / self.seconds


async def timed_draw(engine: EmbeddedEngine, kind: str, texts: list[list[int]], seed: int) -> Run:
    """``BATCH`` samples from the engine."""
    sampling = Sampling(max_tokens=LONGEST[kind], stop_ids=STOPS if kind == "ragged" else ())
    n = BATCH // len(texts)
    started = time.process_time()
    groups = await asyncio.gather(
        *(engine.generate(ids, replace(sampling, seed=derive(seed, i)), n) for i, ids in enumerate(texts))
    )
    seconds = time.process_time() - started
    turns = [turn for group in groups for turn in group]
    return Run(seconds, [len(turn.ids) for turn in turns], turns)


@torch.inference_mode()
def timed_generate(model: Any, kind: str, texts: list[list[int]], seed: int) -> Run:
    """``BATCH`` samples from transformers."""
    torch.manual_seed(seed)
    ids = torch.tensor(texts).repeat_interleave(BATCH // len(texts), 0)
    ends = {"eos_token_id": list(STOPS)} if kind == "ragged" else {"min_new_tokens": LONGEST[kind]}
    started = time.process_time()
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=0,
        pad_token_id=0,
        max_new_tokens=LONGEST[kind],
        **ends,
    )
    seconds = time.process_time() - started
    stopped = torch.isin(out[:, PROMPT:], torch.tensor(STOPS if kind == "ragged" else ()))
    first = torch.where(stopped.any(1), stopped.int().argmax(1) + 1, out.shape[1] - PROMPT)
    return Run(seconds, first.tolist())


@torch.inference_mode()
def difference(model: Any, texts: list[list[int]], turns: list[Turn]) -> float:
    """Largest difference [nats] of the turns' log-probs from those of plain forward passes."""
    worst = 0.0
    for index, turn in enumerate(turns):
        full = torch.tensor([texts[index * len(texts) // BATCH] + turn.ids])
        logp = model(full).logits[0, PROMPT - 1 : -1].float().log_softmax(-1).gather(1, full[0, PROMPT:, None])[:, 0]
        worst = max(worst, (logp - torch.tensor(turn.logps)).abs().max().item())
    return worst


def check(model: Any) -> None:
    selftest.check_parity(model, Cache())
    selftest.is_exact(model, Cache())


def cpu_seconds(function: Callable[[], None]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


if __name__ == "__main__":
    main()
