"""Scoring with the models of an analysis: at most two are in memory, in the precision that the study trains in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2rl_core.analyze.models import Models
from m2rl_core.config import AnalyzeStage
from m2rl_core.errors import DataError
from m2rl_core.ops import Lecture, divergences
from m2rl_core.packing import place
from m2rl_core.policy import Frozen, Policy, predictors, vocabulary
from m2rl_core.run import StageRun
from m2rl_core.types import Batch, Divergence, Sample

__all__ = ["Scorer"]


class Scorer:
    """Log-probs and divergences of stored tokens, at temperature 1."""

    def __init__(self, run: StageRun[AnalyzeStage], models: Models) -> None:
        self._run, self._models = run, models
        self._same: set[tuple[str, str]] = set()
        """Pairs of models that are known to read the same tokens."""
        self.release()

    def release(self) -> None:
        """Give the models' memory back."""
        self._one, self._other = (Frozen(self._models, {}, "", self._load, trust=self._trust) for _ in range(2))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def _trust(self) -> bool:
        return self._run.study.model.trust_remote_code

    def _load(self, folder: Path) -> Policy:
        return Policy.load(folder, dtype=self._run.study.model.dtype, trust_remote_code=self._trust)

    def logps(self, model: str, samples_S: Sequence[Sample]) -> list[Tensor]:
        """Float32 [L] per sample."""
        self._models.folder(model)
        policy, out_S = self._one.use(model), _room(samples_S)
        for batch in policy.pack(samples_S, self._run.stage.tokens_per_device):
            place(batch, policy.logps(batch), out_S)
        return out_S

    @torch.no_grad()
    def divergences(self, model: str, other: str, samples_S: Sequence[Sample], kind: Divergence) -> list[Tensor]:
        """Float32 [L] per sample: of ``model`` as the student from ``other`` as the teacher.

        Raises:
            DataError: they read other tokens.
        """
        self._check_tokens(model, other)
        student = self._one.use(model)
        teacher = student if other == model else self._other.use(other)
        out_S = _room(samples_S)
        for batch in student.pack(samples_S, self._run.stage.tokens_per_device):
            place(batch, _compared(student, teacher, batch, kind), out_S)
        return out_S

    def _check_tokens(self, model: str, other: str) -> None:
        pair = model, other
        folders = [self._models.folder(name) for name in pair]
        if model == other or pair in self._same:
            return
        if len({repr(sorted(vocabulary(folder, self._trust)[0].items())) for folder in folders}) > 1:
            raise DataError(
                f"'{model}' and '{other}' read other tokens, so that their distributions cannot be compared",
                found=f"the tokenizers of {folders[0]} and {folders[1]}",
            )
        self._same.add(pair)


def _compared(student: Policy, teacher: Policy, batch: Batch, kind: Divergence) -> Tensor:
    """The divergence at every trained token of ``batch`` [T], 0 elsewhere."""
    at = predictors(batch)
    lecture = teacher.run(batch, _states, at)

    def compare(hidden_N: Tensor, head: Tensor, ids_N: Tensor, **how: Any) -> Tensor:
        return divergences(hidden_N, head, lecture, kind, **how)

    found_N = student.run(batch, compare, at)
    return torch.zeros(len(batch.ids_T), device=found_N.device).index_copy_(0, at[0], found_N)


def _states(hidden_N: Tensor, head: Tensor, ids_N: Tensor, **_: Any) -> Lecture:
    return Lecture(hidden_N, head)


def _room(samples_S: Sequence[Sample]) -> list[Tensor]:
    return [torch.zeros(len(sample.ids_L)) for sample in samples_S]
