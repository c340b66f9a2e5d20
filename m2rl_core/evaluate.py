"""``kind: eval`` — Avg@k of one model on one suite, one record per sample.

A suite has its own sampling and reasoning rule, apart from the reward's: a base model must be measurable. Prompts are
worked through in chunks; a killed evaluation goes on with the first unfinished chunk and writes the same bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from m2rl_core.config import EvalStage, suite_owners
from m2rl_core.errors import DataError
from m2rl_core.files import append_jsonl, read_jsonl, write_text
from m2rl_core.rollout.episodes import open_sampler
from m2rl_core.rollout.records import summarise
from m2rl_core.rollout.verdicts import usable
from m2rl_core.run import StageRun
from m2rl_core.seeding import derive
from m2rl_core.statistics.scores import estimate, grid, pass_at_k
from m2rl_core.types import Group, Prompt, Sampling, Suite

__all__ = ["evaluate"]

CHUNK = 512
"""Samples drawn between two checkpoints."""


def evaluate(run: StageRun[EvalStage]) -> None:
    """Score the one model of ``run.models`` on ``run.suite``; writes ``samples.jsonl`` and ``scores.json``.

    Raises:
        ConfigError: no domain has the suite.
        DataError: it has no prompts, or two of one id.
        VerifierError: more of a chunk's verdicts failed than the stage allows.
    """
    task = Task.of(run)
    [model] = run.models.values()
    chunks = list(_chunks(task.prompts, max(1, CHUNK // task.k)))
    run.report(steps=len(chunks))
    samples = _SampleFile(run.folder / "samples.jsonl")
    first = run.restore(samples)
    if first == 0:
        samples.path.unlink(missing_ok=True)
    if first < len(chunks):
        with open_sampler(run, model, [task.domain], {task.domain: task.suite.reasoning}) as sampler:
            for step, prompts_P in enumerate(chunks[first:], first):
                with run.clock("rollout"):
                    groups_P = sampler.rollout(prompts_P, task.sampling, task.k)
                usable(groups_P, run)
                samples.append(groups_P, task.name)
                run.log(step, summarise(groups_P))
                run.checkpoint(step + 1, samples)
    found = scores(read_jsonl(samples.path))
    head = {"model": next(iter(run.models)), "suite": task.name, "domain": task.domain, "k": task.k}
    write_text(run.folder / "scores.json", json.dumps(head | found, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be drawn."""

    name: str
    """Of the suite."""
    domain: str
    suite: Suite
    prompts: Sequence[Prompt]
    k: int
    sampling: Sampling

    @classmethod
    def of(cls, run: StageRun[EvalStage]) -> Task:
        """The task of an evaluation node, from the domain that owns its suite.

        Raises:
            ConfigError: no domain of the study has the suite, or several do.
            DataError: it has no prompts, or two of one id.
        """
        stage, name = run.stage, run.suite
        domains = {each: run.domain(each) for each in run.study.domains}
        owner = suite_owners(domains, [name], f"stages.{run.name}.suites")[name]
        domain = domains[owner]
        suite = domain.suites[name]
        prompts = list(islice(run.prompts(owner, name), stage.limit))
        ids = [prompt.id for prompt in prompts]
        if len(set(ids)) < len(ids) or not ids:
            twice = next((i for i in ids if ids.count(i) > 1), None)
            raise DataError(f"suite '{name}' has " + (f"two prompts '{twice}'" if twice else "no prompts"))
        k = stage.suites[name] if isinstance(stage.suites, Mapping) else suite.k
        limit = suite.max_tokens or stage.max_tokens
        sampling = Sampling(limit, suite.temperature, suite.top_p, seed=derive(run.seed, "eval", name))
        return cls(name, owner, suite, prompts, k, sampling)


def scores(records: Iterator[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``scores.json`` says of the samples: all in percent but counts and tokens; ``None`` where nothing is known.

    ``pass_at_k`` holds 1, 2, 4, … and k itself; prompts with fewer verdicts than that are left out of it.
    """
    samples = [(r["prompt"], r["weight"], r["reward"], r["tokens"], r["finish"]) for r in records]
    one = grid({0: (sample[:3] for sample in samples)})
    found = estimate([one])
    return {
        "prompts": len(one.items),
        "score": _finite(found.value),
        "interval": [_finite(found.low), _finite(found.high)],
        "pass_at_k": _passes([sample[:3] for sample in samples]),
        "failed": sum(reward is None for _, _, reward, _, _ in samples),
        "truncated": sum(finish == "length" for *_, finish in samples),
        "mean_tokens": fmean(tokens for _, _, _, tokens, _ in samples),
    }


def _passes(samples: Sequence[tuple[str, float, float | None]]) -> dict[str, float]:
    """k → weighted mean of pass@k, in percent."""
    counts: dict[str, list[int]] = {}
    weights: dict[str, float] = {}
    drawn: dict[str, int] = {}
    for prompt, weight, reward in samples:
        weights[prompt] = weight
        drawn[prompt] = drawn.get(prompt, 0) + 1
        right_n = counts.setdefault(prompt, [0, 0])
        right_n[0] += reward == 1.0
        right_n[1] += reward is not None
    most = max(drawn.values(), default=0)
    found = {}
    for k in sorted({most, *(1 << i for i in range(most.bit_length()))} - {0}):
        known = [(weights[p], pass_at_k(right, n, k)) for p, (right, n) in counts.items() if n >= k]
        if known:
            found[str(k)] = 100 * sum(w * value for w, value in known) / sum(w for w, _ in known)
    return found


@dataclass(frozen=True, slots=True)
class _SampleFile:
    """``samples.jsonl``: what a kill leaves half-written is cut off when the evaluation goes on."""

    path: Path

    def append(self, groups_P: Sequence[Group], suite: str) -> None:
        append_jsonl(self.path, (_record(group, i, suite) for group in groups_P for i in range(len(group.samples_G))))

    def save_state(self, folder: Path) -> None:
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            (folder / "bytes").write_text(str(os.fstat(file.fileno()).st_size))

    def load_state(self, folder: Path) -> None:
        os.truncate(self.path, int((folder / "bytes").read_text()))


def _record(group: Group, index: int, suite: str) -> dict[str, Any]:
    """One line of ``samples.jsonl``."""
    sample, prompt = group.samples_G[index], group.prompt
    return {
        "prompt": prompt.id,
        "domain": prompt.domain,
        "suite": suite,
        "sample": sample.index,
        "reward": sample.reward.value,
        "verdict": sample.reward.verdict,
        "reason": sample.reward.reason,
        "weight": prompt.weight,
        "tokens": sample.length,
        "finish": sample.finish,
        "messages": list(prompt.messages),
        "response": list(sample.trajectory.messages),
    }


def _chunks(prompts: Sequence[Prompt], size: int) -> Iterator[Sequence[Prompt]]:
    return (prompts[start : start + size] for start in range(0, len(prompts), size))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
