"""A whole step of reinforcement learning on the miniature study's model, beside TRL's ``GRPOTrainer``.

::

    OMP_NUM_THREADS=1 python benchmarks/rl_step.py
    OMP_NUM_THREADS=1 python benchmarks/rl_step.py --model runs/miniature/sft/checkpoint

A step draws 16 samples of 16 prompts, verifies them, updates once and gives the new weights to the sampler. Ours is
:func:`m2rl_core.train_rl.train_rl` with its journal and a checkpoint every :data:`CHECKPOINT` steps; TRL's is
``GRPOTrainer`` with transformers' ``generate``, no KL, metrics every step and no checkpoints. Both see the same
prompts, reward and optimizer. Each side is a process of its own with one thread (ours has a verifier process beside
it); they take turns step by step, and the first :data:`WARM` steps are left out.

``equal``: every response has 64 tokens. ``ragged``: each token ends its response with a probability of about 1/20, so
that responses have 20 tokens on average and 120 at most. Both come from how the model is made (:func:`with_stops`), so
that the sides need no settings for it. With ``--model`` responses are as long as that model makes them.

CPU seconds are those of a side's processes together: seconds of an otherwise idle machine, but for what runs side by
side. Overlapped sampling gains in wall seconds only, where two cores are free.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped, unused-ignore]  # comes with accelerate
import rl_step_domain as domain
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from m2rl_core.config import InitStage, RlStage, Study
from m2rl_core.files import read_jsonl
from m2rl_core.init import fresh_model, fresh_tokenizer
from m2rl_core.plugins import load_plugins
from m2rl_core.run import StageRun

PROMPTS, GROUP, WARM, CHECKPOINT = 16, 16, 2, 5
CORPUS = 4000
"""Demonstrations that the fresh model's tokenizer is made of, as in the miniature."""
MICRO = 64
"""Samples that TRL trains on at a time: faster here than 16 or all 256."""


@dataclass(frozen=True)
class Workload:
    max_tokens: int
    stops: float | None
    """Probability of an end at every token; ``None``: the model's own."""
    goal: float = 0.0


WORKLOADS = {"equal": Workload(64, 1e-9, 1.4), "ragged": Workload(120, 1 / 20, 3.0)}
OVERLAPPED = 2.2
"""Goal with rollouts and training side by side, equal lengths."""


@dataclass(frozen=True)
class Side:
    peer: bool
    dtype: str
    staleness: int = 0
    masked: bool = False
    """With masked importance sampling, as all that is overlapped."""

    @property
    def name(self) -> str:
        how = ", overlapped" if self.staleness else ", mis" if self.masked else ""
        return f"{'TRL' if self.peer else 'm2rl'} {self.dtype}{how}"


BASE = Side(True, "float32")
SIDES = [BASE, Side(False, "float32"), Side(False, "bfloat16")]
if "staleness" in RlStage.model_fields:
    SIDES += [Side(False, "float32", 1), Side(False, "bfloat16", 1)]
EXTRA = [Side(True, "bfloat16"), Side(False, "float32", masked=True), Side(False, "bfloat16", masked=True)]


@dataclass
class Job:
    """What a child process does."""

    side: Side
    model: str
    prompts: str
    folder: str
    max_tokens: int
    steps: int


@dataclass
class Found:
    """What it tells at its end."""

    lengths: list[int]
    parts: dict[str, float]
    """Mean CPU seconds of a step by kind of work."""
    outside: float | None = None
    """Of the trainer's CPU seconds, the share outside forward and backward passes."""


# ── the model and the prompts ────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def with_stops(model: Any, stop: int, share: float) -> None:
    """Give every token the same probability to end a response, whatever came before.

    One hidden feature is made constant: 1 in every embedding, and no layer adds to it. The stop token's embedding has
    that feature only, and of the size that brings the mean of its probabilities to ``share``.
    """
    embedding = model.get_input_embeddings().weight
    for layer in model.base_model.layers:
        layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
    embedding[:, 0], embedding[stop] = 1.0, 0.0
    ids = torch.randint(stop + 1, len(embedding), (64, 64), generator=torch.Generator().manual_seed(0))
    hidden = model.base_model(ids).last_hidden_state.flatten(0, 1)
    others = (hidden @ embedding.T)[:, [i for i in range(len(embedding)) if i != stop]].logsumexp(1)
    low, high = -200.0, 200.0
    for _ in range(60):
        size = (low + high) / 2
        low, high = (size, high) if _probability(hidden, others, size) < share else (low, size)
    embedding[stop, 0] = low


def _probability(hidden: Tensor, others: Tensor, size: float) -> float:
    return (hidden[:, 0] * size - others).sigmoid().mean().item()


def fresh(folder: Path, stops: float) -> None:
    """The miniature's model before it has learned anything."""
    stage = InitStage(kind="init", domains=["math"], vocab=1024)
    conversations = islice(math_domain().demonstrations(), CORPUS)
    corpus = (f"{m['role']}\n{m['content']}" for conversation in conversations for m in conversation.messages)
    tokenizer = fresh_tokenizer(corpus, stage.vocab, stage.context)
    model = fresh_model(stage, tokenizer, seed=17)
    with_stops(model, tokenizer.eos_token_id, stops)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def math_domain() -> Any:
    return load_plugins().create("domain", {"use": "math"}, "domains.math")


# ── the parent: everyone takes turns ─────────────────────────────────────────────────────────────────────────────────


class Child:
    """A side at work in a process of its own."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.laps: list[tuple[float, float]] = []
        """(wall, CPU) seconds of every step."""
        command = [sys.executable, __file__, "--child", json.dumps(asdict(job))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def go(self, steps: int) -> None:
        """Let it do so many steps."""
        print(steps, file=self._process.stdin, flush=True)
        self.laps += self._answer()

    def end(self) -> Found:
        assert self._process.stdin is not None
        self._process.stdin.close()
        found = Found(**self._answer())
        self._process.wait()
        return found

    def _answer(self) -> Any:
        line = self._stdout.readline()
        if not line:
            raise SystemExit(f"{self.job.side.name} has died")
        return json.loads(line)

    @property
    def _stdout(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="measured steps; default %(default)s")
    parser.add_argument("--model", type=Path, help="a trained model instead of the fresh one; prompts of 'math'")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--sides", nargs="+", choices=[side.name for side in SIDES + EXTRA])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(json.loads(options.child))
        return
    sides = [s for s in SIDES + EXTRA if s.name in (options.sides or [side.name for side in SIDES])]
    workloads = {"own": Workload(64, None)} if options.model else {n: WORKLOADS[n] for n in options.workloads}
    console = Console(width=150)
    for name, workload in workloads.items():
        with tempfile.TemporaryDirectory(prefix="rl-step-") as scratch:
            children, found = race(workload, sides, options.model, options.steps, Path(scratch))
        console.print(table(f"{name}, load {os.getloadavg()[0]:.1f}", workload, children, found))


def race(
    workload: Workload, sides: list[Side], model: Path | None, measured: int, scratch: Path
) -> tuple[list[Child], list[Found]]:
    """Every side does the workload's steps, in turns."""
    if model is None:
        model = scratch / "model"
        assert workload.stops is not None
        fresh(model, workload.stops)
    prompts = scratch / "prompts.json"
    chosen = islice(math_domain().prompts("train"), PROMPTS)
    prompts.write_text(json.dumps([list(prompt.messages) for prompt in chosen]))
    steps = WARM + measured
    children = []
    for number, side in enumerate(sides):
        folder = scratch / str(number)
        folder.mkdir()
        children.append(Child(Job(side, str(model), str(prompts), str(folder), workload.max_tokens, steps)))
        children[-1].go(1)  # so that they do not open all at once
    for _ in range(steps - 1):
        for child in children:
            if not child.job.side.staleness:
                child.go(1)
    for child in children:
        if child.job.side.staleness:  # would go on sampling while it waits: it goes alone
            child.go(steps - 1)
    return children, [child.end() for child in children]


def table(title: str, workload: Workload, children: list[Child], found: list[Found]) -> Table:
    """Samples per second of every side beside the first TRL row."""
    shown = Table(title=title)
    for name in ("side", "length (max)", "wall s", "CPU s", "samples/s", "/CPU s", "ratio", "CPU ratio", "goal"):
        shown.add_column(name, justify="left" if name == "side" else "right")
    shown.add_column("CPU s by kind")
    shown.add_column("outside fwd/bwd", justify="right")
    medians = {child.job.side: _medians(child) for child in children}
    base = medians.get(BASE)
    for child, result in zip(children, found, strict=True):
        side, (wall, cpu) = child.job.side, medians[child.job.side]
        ratios = [f"{base[0] / wall:.2f}", f"{base[1] / cpu:.2f}"] if base else ["", ""]
        shown.add_row(
            side.name,
            f"{statistics.mean(result.lengths):.1f} ({max(result.lengths)})",
            f"{wall:.2f}", f"{cpu:.2f}", f"{PROMPTS * GROUP / wall:.0f}", f"{PROMPTS * GROUP / cpu:.0f}", *ratios,
            "" if side.peer else f"{OVERLAPPED if side.staleness else workload.goal or ''}",
            ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in result.parts.items()),
            "" if result.outside is None else f"{result.outside:.1%} (goal 10%)",
        )  # fmt: skip
    return shown


def _medians(child: Child) -> tuple[float, float]:
    walls, cpus = zip(*child.laps[WARM:], strict=True)
    return statistics.median(walls), statistics.median(cpus)


# ── the children ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Gate:
    """Holds a side after every step until the parent lets it go on."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever the side prints
        self._laps: list[tuple[float, float]] = []
        self._left = int(input())
        self._from = self._now()

    def passed(self) -> None:
        """A step is done."""
        self._laps.append((time.perf_counter() - self._from[0], _cpu_seconds() - self._from[1]))
        if len(self._laps) == self._left:
            self.tell(self._laps)
            self._laps = []
            self._left = int(sys.stdin.readline() or 0)
        self._from = self._now()

    def tell(self, value: object) -> None:
        print(json.dumps(value), file=self._out, flush=True)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), _cpu_seconds()


def _cpu_seconds() -> float:
    """Of this process and all below it."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in [me, *me.children(recursive=True)])


class Meter:
    """CPU seconds of this thread within some functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.seconds[kind] += time.thread_time() - start

    def wrap(self, owner: Any, name: str, kind: str) -> None:
        """Measure every call of ``owner.name``."""
        function: Callable[..., Any] = getattr(owner, name)

        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.measure(kind):
                return function(*args, **kwargs)

        setattr(owner, name, measured)


def serve(job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(17)
    made = Job(**{**job, "side": Side(**job["side"])})
    gate = Gate()
    gate.tell(asdict((trl if made.side.peer else ours)(made, gate)))


def ours(job: Job, gate: Gate) -> Found:
    from m2rl_core.train_rl import train_rl

    trainer = Trainer()

    class Paced(StageRun[RlStage]):
        def checkpoint(self, step: int, *parts: Any, every: int | None = 1) -> None:
            super().checkpoint(step, *parts, every=every)
            trainer.lap(step)
            gate.passed()
            trainer.begin()

    plugin = domain.__file__
    study = _study(job, plugin)
    run = Paced(
        name="rl", stage=study.stages["rl"], study=study, seed=17, folder=Path(job.folder),  # type: ignore[arg-type]
        models={"start": Path(job.model)}, registry=load_plugins([plugin]),
    )  # fmt: skip
    train_rl(run)
    lengths = [sum(r["sampled"]) for r in read_jsonl(run.folder / "rollouts.jsonl") if r["step"] >= WARM]
    times = list(read_jsonl(run.folder / "times.jsonl"))[WARM : job.steps]
    parts = {k: statistics.mean(t["cpu_seconds"][k] for t in times) for k in ("rollout", "score", "train", "sync")}
    return Found(lengths, parts, trainer.outside)


class Trainer:
    """What the training thread spends in and outside forward and backward passes. Sampling has a thread of its own."""

    def __init__(self) -> None:
        from m2rl_core.policy import model

        self.meter = Meter()
        self.meter.wrap(model.TokenScorer, "forward", "passes")
        self.meter.wrap(torch.autograd, "backward", "passes")
        self.meter.wrap(model, "weighted", "loss")  # within a pass
        self.all = self._start = 0.0

    def begin(self) -> None:
        self._start = time.thread_time()

    def lap(self, step: int) -> None:
        if step <= WARM:
            self.meter.seconds.clear()
        else:
            self.all += time.thread_time() - self._start

    @property
    def outside(self) -> float:
        return 1 - (self.meter.seconds["passes"] - self.meter.seconds["loss"]) / self.all


def _study(job: Job, plugin: str) -> Study:
    stage = {
        "kind": "rl", "init": "start", "domains": ["cheap"], "algorithm": "grpo", "steps": job.steps,
        "prompts": PROMPTS, "group": GROUP, "max_tokens": job.max_tokens, "lr": 1e-6, "tokens_per_device": 8192,
        "checkpoint_every": CHECKPOINT,
    }  # fmt: skip
    if job.side.staleness or job.side.masked:
        stage |= {"staleness": job.side.staleness, "algorithm": {"use": "grpo", "importance": "mis"}}
    return Study.model_validate(
        {
            "name": "rl-step",
            "model": {"dtype": job.side.dtype},
            "domains": {"cheap": {"use": "cheap", "reasoning": "off", "prompts": job.prompts}},
            "stages": {"rl": stage},
            "plugins": [plugin],
        }
    )


def trl(job: Job, gate: Gate) -> Found:
    from datasets import Dataset  # type: ignore[import-untyped, unused-ignore]
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Paced(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            gate.passed()

    prompts = json.loads(Path(job.prompts).read_text())
    settings = GRPOConfig(
        output_dir=job.folder, max_steps=job.steps, per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=PROMPTS * GROUP // MICRO, generation_batch_size=PROMPTS * GROUP,
        num_generations=GROUP, max_completion_length=job.max_tokens, temperature=1.0, beta=0.0, loss_type="grpo",
        learning_rate=1e-6, lr_scheduler_type="constant", weight_decay=0.1, adam_beta2=0.98, max_grad_norm=1.0,
        bf16=job.side.dtype == "bfloat16", use_cpu=True, gradient_checkpointing=False, shuffle_dataset=False,
        report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, seed=17,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32),
        reward_funcs=_reward,
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": prompts * job.steps}),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        callbacks=[Paced()],
    )
    trainer.remove_callback(PrinterCallback)
    lengths: list[list[int]] = []
    meter = _observe(trainer, lengths)
    trainer.train()
    rollout = meter.seconds["rollout"] / job.steps
    return Found([n for drawn in lengths[WARM:] for n in drawn], {"rollout": rollout})


def _reward(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    return [domain.reward(completion[0]["content"]) for completion in completions]


def _observe(trainer: Any, lengths: list[list[int]]) -> Meter:
    """Note how long responses are, and the seconds of sampling and scoring."""
    generate = trainer._generate_single_turn

    def noted(*args: Any, **kwargs: Any) -> Any:
        completions, logprobs = generate(*args, **kwargs)
        lengths.append([len(ids) for ids in completions])
        return completions, logprobs

    trainer._generate_single_turn = noted
    meter = Meter()
    meter.wrap(trainer, "_generate_and_score_completions", "rollout")
    return meter


if __name__ == "__main__":
    main()
