"""``Frozen``: models that are only scored with — the teachers and the reference — and share the memory of one.

They are scored by the same code as the policy, in the same precision, so that their log-probs compare with its own. Of
N models one is in memory; using another reads its weights from disk, or from the page cache, into the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from m2rl_core.config import RlStage
from m2rl_core.errors import DataError
from m2rl_core.ops import Lecture
from m2rl_core.policy.model import Policy
from m2rl_core.run import StageRun
from m2rl_core.trust import own_code
from m2rl_core.types import Batch, Sample

__all__ = ["Frozen", "check_tokens", "open_frozen", "vocabulary"]

NOT_SHAPES = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


class Frozen:
    """Teachers by domain, and the reference.

    Args:
        folders: model → its Hugging Face folder.
        teachers: domain → model.
        reference: the model that the policy is held close to.
        load: opens a folder as a policy without optimizer.
        clock: measures the time of lectures.
        trust: ``trust_remote_code`` of the study.

    Raises:
        DataError: a model that reads other tokens than the reference does.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        teachers: Mapping[str, str],
        reference: str,
        load: Callable[[Path], Policy],
        clock: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        trust: bool = False,
    ) -> None:
        self.folders, self.teachers, self.reference = folders, teachers, reference
        self._load, self._clock, self._trust = load, clock, trust
        self._held: tuple[str, Policy] | None = None
        for model in dict.fromkeys(teachers.values()):
            check_tokens(folders[reference], folders[model], f"teacher '{model}'", trust=trust)

    def use(self, model: str) -> Policy:
        """The model called so, with its weights in memory. Collective."""
        if self._held is None or self._shape_of(self._held[0]) != self._shape_of(model):
            self._held = None  # before another is opened
            self._held = model, _frozen(self._load(self.folders[model]))
        elif self._held[0] != model:
            self._held[1].read(self.folders[model])
            self._held = model, self._held[1]
        return self._held[1]

    def _shape_of(self, model: str) -> dict[str, Any]:
        return _shape(self.folders[model], self._trust)

    def by_teacher(self, samples_S: Sequence[Sample]) -> Iterator[tuple[str, list[Sample]]]:
        """Every teacher, and the samples of its domains; on all ranks in the same order."""
        for model in dict.fromkeys(self.teachers.values()):
            yield model, [sample for sample in samples_S if self.teachers.get(sample.prompt.domain) == model]

    @torch.no_grad()
    def lecture(self, batch: Batch) -> Lecture | None:
        """What the batch's teacher makes of its trained tokens; ``None`` for a batch without one."""
        if batch.teacher is None:
            return None
        with self._clock():
            return self.use(batch.teacher).run(batch, _states)


def _states(hidden_N: Tensor, head: Tensor, ids_N: Tensor, **_: Any) -> Lecture:
    return Lecture(hidden_N, head)


def _frozen(policy: Policy) -> Policy:
    """No gradients. The layers' matrices in the type of their products, which changes no log-prob: half the memory."""
    policy.model.requires_grad_(False).eval()
    if not dist.is_initialized():
        for module in policy.model.base_model.layers.modules():
            if isinstance(module, torch.nn.Linear):
                module.to(policy.scorer.dtype)
    return policy


@cache
def _shape(folder: Path, trust: bool) -> dict[str, Any]:
    """The part of a model's configuration that says what it computes."""
    with own_code(folder):
        found = AutoConfig.from_pretrained(folder, trust_remote_code=trust, local_files_only=True).to_dict()
    return {key: value for key, value in found.items() if key not in NOT_SHAPES}


def check_tokens(student: Path, teacher: Path, who: str, *, trust: bool = False) -> None:
    """Refuse a teacher of another vocabulary: it would speak of other tokens.

    Args:
        who: the teacher, for the message.
        trust: ``trust_remote_code`` of the study.

    Raises:
        DataError: the tokenizers or the numbers of the embeddings' rows differ.
    """
    (mine, rows), (theirs, their_rows) = (vocabulary(folder, trust) for folder in (student, teacher))
    if mine != theirs or rows != their_rows:
        raise DataError(
            f"{who} has another vocabulary than the student, so it cannot teach it",
            found=f"{len(theirs)} tokens, {their_rows} rows in {teacher}",
            allowed=f"the {len(mine)} tokens, {rows} rows of {student}",
        )


def vocabulary(folder: Path, trust: bool) -> tuple[dict[str, int], int]:
    """(token → id, rows of the head) of the model in ``folder``."""
    with own_code(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
    return tokenizer.get_vocab(), config.vocab_size


def open_frozen(run: StageRun[RlStage]) -> Frozen:
    """The models that a stage is taught by and held to; nothing is read before it is used."""
    held, temperature = run.study.model, run.stage.temperature

    def load(folder: Path) -> Policy:
        trust = held.trust_remote_code
        return Policy.load(folder, dtype=held.dtype, temperature=temperature, trust_remote_code=trust)

    trust, clock = held.trust_remote_code, partial(run.clock, "score")
    return Frozen(run.models, run.stage.teachers, run.stage.init, load, clock, trust=trust)
