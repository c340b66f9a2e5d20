"""``Decoder``: the steps of continuous batching, without asyncio.

A step admits waiting jobs (prefill and first token), then draws one more token for every running row. Both are a
forward pass over a flat list of tokens; the head is computed only where a token is drawn.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from m2rl_core.engine.attention import Decode, Lane, Plan, Prefill, Segment
from m2rl_core.engine.cache import SLACK, Cache, capacity
from m2rl_core.engine.rows import Job, Row
from m2rl_core.engine.sampler import draw, uniforms
from m2rl_core.errors import StageError

PREFILL_TOKENS = 2048
"""Most prompt tokens of one forward pass, unless one prompt alone is longer."""
MULTIPLE = 8
"""Passes are filled up to a multiple of so many tokens. With fewer than four rows BLAS takes kernels that round
differently; and torch rounds differently in what remains after its loops over 32 elements (64 in bfloat16), of which
nothing remains where layers have a multiple of 8 features."""


class Decoder:
    """Draws the rows of all jobs together.

    Args:
        model: a transformers causal LM that was loaded with :data:`m2rl_core.engine.attention.NAME`.
        cache: with empty shelves.
        context: longest context [tokens].
        rows: most rows that run together; no job has more.
    """

    def __init__(self, model: Any, cache: Cache, *, context: int, rows: int) -> None:
        self.model = model
        self.device: torch.device = model.device
        self.cache = cache
        self.context = context
        self.rows = rows
        self.version = 0
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []

    @property
    def busy(self) -> bool:
        """True while there is something to draw."""
        return bool(self.waiting or self.running)

    def row_bytes(self, job: Job) -> int:
        """Most memory that a row of ``job`` may come to hold."""
        longest = min(len(job.ids) + job.sampling.max_tokens, self.context)
        return SLACK * capacity(longest) * self.cache.bytes_per_token

    def add(self, job: Job) -> None:
        """Queue a job; its prompt leaves room for at least one token."""
        self.waiting.append(job)

    @torch.inference_mode()
    def drop(self, job: Job) -> None:
        """Forget a job that nobody waits for any more."""
        if job in self.waiting:
            self.waiting.remove(job)
        elif job in self.running:
            self.running.remove(job)
            for row in job.rows:
                row.finish = row.finish or "abort"
            self.cache.tidy()

    def reset(self) -> None:
        """Forget all jobs and all keys and values."""
        self.waiting.clear()
        self.running.clear()
        self.cache.shelves.clear()

    @torch.inference_mode()
    def step(self) -> list[Job]:
        """Draw one token for every row; returns the jobs that are done.

        Raises:
            StageError: the model's logits are not finite.
        """
        ended: list[Row] = []
        while jobs := self._admit():
            ended += self._prefill(jobs)
        if len(self.cache):
            ended += self._decode()
        done = [job for job in dict.fromkeys(row.job for row in ended) if job.done]
        for job in done:
            self.running.remove(job)
        return done

    def _admit(self) -> list[Job]:
        """The waiting jobs, in order of arrival, that fit into rows, memory and one forward pass."""
        jobs: list[Job] = []
        if not self.waiting:
            return jobs
        free_rows = self.rows - len(self.cache)
        free_bytes = self.cache.limit - sum(self.row_bytes(row.job) for row in self.cache.rows())
        free_tokens = PREFILL_TOKENS
        while self.waiting:
            job = self.waiting[0]
            free_rows -= len(job.rows)
            free_bytes -= len(job.rows) * self.row_bytes(job)
            free_tokens -= len(job.ids)
            if free_rows < 0 or free_bytes < 0 or (free_tokens < 0 and jobs):
                break
            jobs.append(self.waiting.popleft())
        self.running += jobs
        return jobs

    def _prefill(self, jobs: list[Job]) -> list[Row]:
        jobs = sorted(jobs, key=lambda job: len(job.ids))
        segments: list[Segment] = []
        start = 0
        for length, group in groupby(jobs, key=lambda job: len(job.ids)):
            segments.append(self._segment(start, length, list(group)))
            start += segments[-1].prompts * length
        ids = [token for job in jobs for token in job.ids]
        positions = [position for job in jobs for position in range(len(job.ids))]
        ends = [s.start + (prompt + 1) * s.length - 1 for s in segments for prompt in range(s.prompts)]
        logits = self._forward(ids, positions, Prefill(segments), logits_to_keep=self._filled(ends))
        if not self.cache.bytes_per_token:
            self.cache.measure()
        owner = [index for index, job in enumerate(jobs) for _ in job.rows]
        return self._record([row for job in jobs for row in job.rows], logits[owner])

    def _segment(self, start: int, length: int, jobs: list[Job]) -> Segment:
        shelf = self.cache.shelf(length + 1)
        first = len(shelf.rows)
        shelf.rows += [row for job in jobs for row in job.rows]
        slots = torch.arange(first, len(shelf.rows), device=self.device)
        owner = torch.tensor([index for index, job in enumerate(jobs) for _ in job.rows], device=self.device)
        return Segment(start, len(jobs), length, shelf, slots, owner)

    def _decode(self) -> list[Row]:
        rows = list(self.cache.rows())
        positions = [row.context - 1 for row in rows]
        lanes: list[Lane] = []
        start = 0
        for shelf in self.cache.shelves.values():
            if shelf.rows:
                stop = start + len(shelf.rows)
                slots = torch.arange(stop - start, device=self.device)
                lanes.append(Lane(shelf, start, slots, torch.tensor(positions[start:stop], device=self.device)))
                start = stop
        logits = self._forward([row.ids[-1] for row in rows], positions, Decode(lanes))
        return self._record(rows, logits[: len(rows)])

    def _forward(self, ids: list[int], positions: list[int], plan: Plan, *, logits_to_keep: Tensor | int = 0) -> Tensor:
        """Float32 logits [tokens kept, V]; those of the filling come last."""
        out = self.model(
            input_ids=self._filled(ids).unsqueeze(0),
            position_ids=self._filled(positions).unsqueeze(0),
            use_cache=False,
            logits_to_keep=logits_to_keep,
            plan=plan,
        )
        logits: Tensor = out.logits[0].float()
        return logits

    def _filled(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers + [0] * (-len(numbers) % MULTIPLE), device=self.device)

    def _record(self, rows: list[Row], logits: Tensor) -> list[Row]:
        """Draw a token for each row, tidy the shelves and return the rows that ended."""
        noise = uniforms([row.key for row in rows], [row.context for row in rows])
        tokens, logps = draw(logits, [row.job.sampling for row in rows], noise)
        if math.isnan(sum(logps)):
            raise StageError(f"the policy's logits are not finite (version {self.version})")
        for row, token, logp in zip(rows, tokens, logps, strict=True):
            row.add(token, logp, self.version, self.context)
        self.cache.tidy()
        return [row for row in rows if row.finish]
