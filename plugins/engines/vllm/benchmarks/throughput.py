"""Tokens per second of the engine's two placements beside a bare ``LLM.generate``, and what an update of weights costs.

    python plugins/engines/vllm/benchmarks/throughput.py [MODEL] [--prompts 64 --samples 8 --tokens 64 --rounds 5]

Each contender runs in a process of its own, one after the other; medians over the rounds, after one to warm up. Without
MODEL: a fresh Qwen3 of the miniature study's size.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONTEXT = 512


def main() -> None:
    given = _arguments()
    if given.contender:
        raw(given) if given.contender == "LLM.generate" else asyncio.run(engine(given))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or fresh(Path(folder))
        for contender in ("LLM.generate", "colocated", "server"):
            command = [sys.executable, __file__, *sys.argv[1:], "--contender", contender]
            command += [] if given.model else [str(model)]
            done = subprocess.run(command, capture_output=True, text=True)
            lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
            print("\n".join(lines) or f"{contender} failed:\n{done.stderr[-3000:]}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    for name, default in (("prompts", 64), ("samples", 8), ("tokens", 64), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--contender", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def fresh(folder: Path) -> Path:
    from m2rl_core.config import InitStage
    from m2rl_core.init import fresh_model, fresh_tokenizer

    sizes = {"vocab": 512, "hidden": 128, "layers": 4, "heads": 4, "kv_heads": 2, "ffn": 384, "context": CONTEXT}
    stage = InitStage(kind="init", domains=[], **sizes)
    tokenizer = fresh_tokenizer(iter(["What is 12 + 34? 46"] * 8), stage.vocab, CONTEXT)
    fresh_model(stage, tokenizer, seed=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prompts(count: int) -> list[list[int]]:
    return [[(31 * i + 7 * j + 3) % 500 for j in range(12 + i % 24)] for i in range(count)]


def settings(given: argparse.Namespace, placement: str) -> Any:
    from m2rl_engine_vllm.config import VllmConfig

    return VllmConfig(placement=placement, dtype=given.dtype, cache_gib=1, rows=256, eager=True)


def work() -> float:
    """CPU seconds of this process and its descendants so far: what a busy machine does not change."""
    import psutil

    own = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in [own, *own.children(recursive=True)])


class Rounds:
    """Wall and CPU seconds of rounds; the first is to warm up."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __enter__(self) -> None:
        self._began = time.perf_counter(), work()

    def __exit__(self, *_: object) -> None:
        self.wall.append(time.perf_counter() - self._began[0])
        self.cpu.append(work() - self._began[1])


def show(name: str, given: argparse.Namespace, rounds: Rounds, start: float, more: str = "") -> None:
    tokens = given.prompts * given.samples * given.tokens
    wall, cpu = (tokens / statistics.median(each[1:]) for each in (rounds.wall, rounds.cpu))
    print(f"| {name} | {wall:,.0f} tok/s | {cpu:,.0f} per CPU second | start {start:.1f} s | {more} |", flush=True)


def raw(given: argparse.Namespace) -> None:
    """vLLM's own interface in its own process, with the engine's arguments."""
    from m2rl_engine_vllm.arguments import arguments, environment

    os.environ.update(environment(cuda=False))
    began = time.perf_counter()
    from vllm import LLM, SamplingParams

    args = arguments(settings(given, "colocated"), given.model, CONTEXT, cuda=False)
    llm = LLM(**args, skip_tokenizer_init=True)
    start = time.perf_counter() - began
    for seeded in (True, False):
        wanted = [
            SamplingParams(
                n=given.samples, max_tokens=given.tokens, ignore_eos=True, logprobs=0, flat_logprobs=True,
                detokenize=False,
                seed=i * 1000 if seeded else None,
            )
            for i in range(given.prompts)
        ]  # fmt: skip
        rounds = Rounds()
        for _ in range(given.rounds + 1):
            with rounds:
                llm.generate([{"prompt_token_ids": ids} for ids in prompts(given.prompts)], wanted, use_tqdm=False)
        show("`LLM.generate`, seeds" if seeded else "`LLM.generate`, no seeds", given, rounds, start)


async def engine(given: argparse.Namespace) -> None:
    """The engine, as the core drives it."""
    import torch
    from transformers import AutoModelForCausalLM

    from m2rl_core.types import Sampling
    from m2rl_engine_vllm.engine import VllmEngine

    vllm = VllmEngine(settings(given, given.contender))
    began = time.perf_counter()
    await vllm.start(given.model, max_tokens=CONTEXT)
    start = time.perf_counter() - began
    model = AutoModelForCausalLM.from_pretrained(
        given.model, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    tensors = list(model.named_parameters())
    drawn, synced, checked = Rounds(), Rounds(), Rounds()
    samplings = [Sampling(given.tokens, seed=i) for i in range(given.prompts)]
    for number in range(given.rounds + 1):
        asked = zip(prompts(given.prompts), samplings, strict=True)
        with drawn:
            await asyncio.gather(*(vllm.generate(ids, sampling, given.samples) for ids, sampling in asked))
        for rounds, reference in ((checked, vllm._reference), (synced, None)):
            kept, vllm._reference = vllm._reference, reference
            with rounds:
                await vllm.load_weights(iter(tensors), number)
            vllm._reference = kept
    await vllm.close()
    sync, check = (1000 * statistics.median(rounds.wall[1:]) for rounds in (synced, checked))
    more = f"update {sync:.0f} ms, with the check {check:.0f} ms; difference {vllm.difference:.1e} nats"
    show(f"the engine, `{given.contender}`", given, drawn, start, more)


if __name__ == "__main__":
    main()
