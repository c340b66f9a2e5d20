"""``Policy``: score tokens, accumulate gradients, step, hand out weights — the same code on one CPU and on many GPUs.

Master weights and optimizer are float32; matrix products run in the study's dtype (autocast on one process, FSDP2's
mixed precision on several). The model's own head is never called: log-probs come from hidden states through
:mod:`m2rl_core.ops`, so that [tokens, vocabulary] is never built.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from m2rl_core.config import OptimSection, RlStage, SftStage
from m2rl_core.errors import DataError, DivergedError
from m2rl_core.interfaces import Loss
from m2rl_core.ops import Lecture, Scores, fused_loss, token_logps
from m2rl_core.packing import pack
from m2rl_core.policy import attention, sharding, storage
from m2rl_core.policy.blocks import quicken
from m2rl_core.policy.meta import give_memory, outline
from m2rl_core.policy.optimizer import open_optimizer
from m2rl_core.run import StageRun
from m2rl_core.trust import own_code
from m2rl_core.types import Batch, Sample
from m2rl_core.weights import copy_companions

SKIPS = 5
"""Updates with a non-finite loss or gradient that stop a run, where no good one lies between them."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
R = TypeVar("R")
Work = Callable[..., R]
"""What to do with the hidden state [N, H] before each token, the head [V, H], and the tokens' ids [N], all positional;
keywords are ``temperature`` and ``dtype``."""


Weigh = Callable[[Batch], Tensor]
"""An importance rule's weight [T] of each trained token of a batch whose ``old_logps_T`` are there."""


def predictors(batch: Batch) -> tuple[Tensor, Tensor]:
    """The one place of the one-position shift: (indices of trained tokens, indices of the tokens that predict them)."""
    trained = torch.nonzero(batch.trained_T)[:, 0]
    return trained, trained - 1


def checkpoint_activations(model: Any) -> None:
    """Under the name that the installed transformers has for it."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def _whole(folder: Path, **trust: bool) -> Any:
    held = {"dtype": torch.float32, "attn_implementation": attention.NAME, "use_safetensors": True}
    return AutoModelForCausalLM.from_pretrained(folder, **held, **trust)


def weighted(view: Batch, loss: Loss, part: slice, scores: Scores, weigh: Weigh | None = None) -> Tensor:
    """coef · loss of the tokens ``part`` of ``view``, which holds trained tokens only.

    ``weigh`` changes the view's coefficients: by the weights that follow from these scores.
    """
    here = view.take(part)
    here.entropy_T, here.divergence_T = scores.entropy_N, scores.divergence_N
    if here.old_logps_T is None:
        here.old_logps_T = scores.logps_N.detach()  # the first update after sampling: π_old is the policy itself
    assert here.coef_T is not None, "fix the coefficients before the first backward pass"
    if weigh is not None:
        known = (here.coef_T != 0) & here.old_logps_T.isfinite()
        here.coef_T[known] *= weigh(here.take(known))
    return here.coef_T * loss(scores.logps_N, here)


class TokenScorer(torch.nn.Module):
    """From packed rows to log-probs of chosen tokens, head included: what FSDP2 sees as the root module."""

    def __init__(self, lm: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.lm = lm
        self.dtype = dtype

    def forward(
        self, work: Work[R], ids_T: Tensor, shape: tuple[int, int], at: tuple[Tensor, Tensor], temperature: float,
        **context: Any,
    ) -> R:  # fmt: skip
        """``work`` on the tokens ``at[0]``, the hidden states of the tokens ``at[1]``, and the head."""
        with self._precision(ids_T.device):
            out = self.lm.base_model(input_ids=ids_T.view(shape), **context, use_cache=False)
        hidden_N = out.last_hidden_state.flatten(0, 1)[at[1]]
        head = self.lm.get_output_embeddings().weight
        return work(hidden_N, head, ids_T[at[0]], temperature=temperature, dtype=self.dtype)

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        if dist.is_initialized() or self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)


class Policy:
    """A causal language model with its optimizer.

    Args:
        model: a transformers causal LM with float32 parameters.
        dtype: of matrix products.
        optim: AdamW's settings; ``None`` for a policy that is only scored with.
        temperature: of the log-probs, the same as the sampler's.
        offload: AdamW's moments rest in host memory.
        device: of a model that has no memory yet, because it is to be sharded.
    """

    collective: ClassVar[bool] = True
    """Every process saves its own share of the state."""

    def __init__(
        self,
        model: Any,
        *,
        dtype: str,
        optim: OptimSection | None,
        temperature: float = 1.0,
        offload: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.model = model
        self.scorer = TokenScorer(model, DTYPES[dtype])
        self.optim = optim
        self.temperature = temperature
        self.device = device or next(model.parameters()).device
        if dist.is_initialized():
            sharding.shard(self.scorer, model.base_model.layers, self.scorer.dtype)
            if any(parameter.is_meta for parameter in model.parameters()):
                give_memory(self.scorer, self.device)
        if self.device.type == "cpu":
            quicken(model)
        if optim is not None:
            self.optimizer = open_optimizer(model, optim, offload=offload)
        self.source: Path | None = None
        """The folder it was opened from."""
        self._metrics: dict[str, float] = {}
        self.skipped = 0
        self._finite = True
        """Whether the losses since the last update were."""

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        dtype: str,
        optim: OptimSection | None = None,
        temperature: float = 1.0,
        checkpointing: bool = False,
        offload: bool = False,
        trust_remote_code: bool = False,
    ) -> Policy:
        """Open a Hugging Face folder; ``checkpointing`` recomputes activations in the backward pass.

        Raises:
            DataError: no safetensors weights there, code of its own that is not trusted, or an architecture whose
                attention cannot be packed.
        """
        if not list(folder.glob("*.safetensors")):
            raise DataError(f"no safetensors weights in {folder}", then="convert the model with save_pretrained")
        trust = {"trust_remote_code": trust_remote_code, "local_files_only": True}
        with own_code(folder):
            config = AutoConfig.from_pretrained(folder, **trust)
        if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            raise DataError(f"{folder}: layers with sliding-window attention cannot be trained on packed rows yet")
        many, device = dist.is_initialized(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = outline(folder, attention.NAME, **trust) if many else _whole(folder, **trust).to(device)
        if checkpointing:
            checkpoint_activations(model)
        policy = cls(model.train(), dtype=dtype, optim=optim, temperature=temperature, offload=offload, device=device)
        if many:
            policy.read(folder)
        policy.source = folder
        return policy

    # ── scoring and training ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def dense(self) -> bool:
        """True where attention costs the square of a row's length: on a CPU, and in float32 (no kernel takes that)."""
        return self.device.type == "cpu" or self.scorer.dtype == torch.float32

    def pack(self, samples_S: Sequence[Sample], tokens_per_device: int) -> list[Batch]:
        """This rank's share of the samples, packed for this device."""
        place = {"rank": sharding.rank(), "ranks": sharding.ranks()}
        return pack(samples_S, tokens_per_device, self.device, dense=self.dense, **place)

    def run(self, batch: Batch, work: Work[R], at: tuple[Tensor, Tensor] | None = None) -> R:
        """``work`` on the trained tokens of ``batch``: on their ids, the hidden states before them, and the head."""
        context: dict[str, Any] = {"position_ids": batch.position_T.view(batch.shape)}
        if self.dense:
            context["attention_mask"] = attention.dense_mask(batch.sequence_T.view(batch.shape))
        else:
            context["bounds"] = attention.sequence_bounds(batch.position_T)
        done: R = self.scorer(work, batch.ids_T, batch.shape, at or predictors(batch), self.temperature, **context)
        return done

    @torch.no_grad()
    def logps(self, batch: Batch) -> Tensor:
        """Log-probs [nats] as float32 [T]; 0 at tokens that are not trained."""
        at = predictors(batch)
        logps, _ = self.run(batch, token_logps, at)
        return self._placed(logps, batch, at)

    def _placed(self, values_N: Tensor, batch: Batch, at: tuple[Tensor, Tensor]) -> Tensor:
        """Values of trained tokens as [T], 0 elsewhere."""
        return torch.zeros(len(batch.ids_T), device=self.device).index_copy_(0, at[0], values_N)

    def backward(self, batch: Batch, loss: Loss, lecture: Lecture | None = None, weigh: Weigh | None = None) -> None:
        """Add the gradient of Σ coef · loss over this batch's trained tokens.

        Args:
            lecture: the teacher's view of these tokens, for a loss with a divergence from it.
            weigh: an importance rule that waits for the log-probs; the batch then gets them as ``old_logps_T``.
        """
        at = predictors(batch)
        view = batch.take(at[0])
        token_loss = partial(weighted, view, loss, weigh=weigh)
        if loss.separable:
            fused = partial(fused_loss, token_loss=token_loss, lecture=lecture, divergence=loss.divergence)
            total, scores = self.run(batch, fused, at)
        else:
            logps, entropy = self.run(batch, token_logps, at)
            scores = Scores(logps, entropy, None)
            total = token_loss(slice(None), scores).sum()
        torch.autograd.backward(total)
        if weigh is not None:
            batch.old_logps_T = self._placed(scores.logps_N.detach(), batch, at)
        self._watch(view, total, scores)

    def _watch(self, view: Batch, total: Tensor, scores: Scores) -> None:
        """Gather what :meth:`metrics` tells of a backward pass."""
        assert view.coef_T is not None
        weight_T = view.coef_T.abs()
        found = {"loss": total, "weight": weight_T.sum(), "entropy": (weight_T * scores.entropy_N).sum()}
        if scores.divergence_N is not None:
            found["divergence"] = (weight_T * scores.divergence_N).sum()
        values = {name: value.item() for name, value in found.items()}
        self._gather(**values)
        self._finite = self._finite and math.isfinite(values["loss"])

    def step(self, lr: float) -> None:
        """Clip, guard, update. A non-finite loss, on whatever rank, or gradient skips the update and is counted.

        Raises:
            DivergedError: several updates in a row were skipped.
        """
        assert self.optim is not None, "a policy opened for scoring has no optimizer"
        norm = sharding.whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip)).item()
        [broken] = sharding.summed(float(not self._finite))
        finite, self._finite = math.isfinite(norm) and not broken, True
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        # an update without any gradient, where no group had a signal, proves nothing
        self.skipped = self.skipped + 1 if not finite else self.skipped if norm == 0 else 0
        if self.skipped == SKIPS:
            raise DivergedError(f"{SKIPS} updates in a row had a non-finite loss or gradient")
        self.optimizer.zero_grad(set_to_none=True)
        self._gather(grad_norm=norm if finite else 0.0, skipped_updates=float(not finite), updates=1.0)

    def _gather(self, **values: float) -> None:
        for name, value in values.items():
            self._metrics[name] = self._metrics.get(name, 0.0) + value

    def metrics(self) -> dict[str, float | None]:
        """What was gathered since the last call, by all ranks together. Collective.

        ``loss`` and ``grad_norm`` are means over updates. ``entropy`` and, where a loss has one, ``divergence`` [nats]
        are means over the tokens that were computed, weighted as in the loss; ``None`` where no sample had a gradient.
        """
        gathered, self._metrics = self._metrics, {}
        updates = gathered.get("updates", 0.0) or 1.0
        means = [name for name in ("entropy", "divergence") if name == "entropy" or name in gathered]
        loss, weight, *sums = sharding.summed(*(gathered.get(name, 0.0) for name in ("loss", "weight", *means)))
        return {
            "loss": loss / updates,
            **{name: value / weight if weight else None for name, value in zip(means, sums, strict=True)},
            "grad_norm": gathered.get("grad_norm", 0.0) / updates,
            "skipped_updates": gathered.get("skipped_updates", 0.0),
        }

    # ── weights and state ────────────────────────────────────────────────────────────────────────────────────────────

    def _parameters(self) -> dict[str, Tensor]:
        """Hugging Face name → parameter, a tied head once; of several processes, each with its own rows."""
        sharding.forget(self.scorer)
        return {sharding.plain_name(name): parameter for name, parameter in self.model.named_parameters()}

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(Hugging Face name, whole tensor), a tied head once. Collective: every rank must drain it."""
        parameters = self._parameters()
        yield from zip(parameters, sharding.wholes(list(parameters.values())), strict=True)

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder: float32 weights, configuration, and this policy's tokenizer. Collective."""
        if sharding.ranks() > 1:
            storage.write_rows(folder, self.model, self._parameters(), self.source)
            return
        self.model.save_pretrained(folder, state_dict={name: tensor.cpu() for name, tensor in self.named_tensors()})
        if self.source is not None:
            copy_companions(self.source, folder)

    def read(self, folder: Path) -> None:
        """Take the weights of another model of the same shapes, one tensor in memory at a time.

        Raises:
            DataError: a tensor is missing, of another shape, or not this model's.
        """
        tied = {"lm_head.weight"} if self.model.config.tie_word_embeddings else set()
        storage.read_rows(folder, self._parameters(), tied, self.source)
        self.source = folder

    def save_state(self, folder: Path) -> None:
        """Everything that a bit-identical continuation needs. Collective."""
        storage.save_state(folder, self._parameters(), self.optimizer, skipped=self.skipped)

    def load_state(self, folder: Path) -> None:
        """Take up a state, whatever number of processes saved it. Collective."""
        self.skipped = storage.load_state(folder, self._parameters(), self.optimizer, "skipped")["skipped"]


def open_policy(run: StageRun[SftStage] | StageRun[RlStage], folder: Path, *, temperature: float = 1.0) -> Policy:
    """The policy that a stage trains, with the study's precision and the stage's optimizer."""
    held = run.study.model
    return Policy.load(
        folder,
        dtype=held.dtype,
        optim=run.stage.optim,
        temperature=temperature,
        checkpointing=held.activation_checkpointing,
        offload=held.optimizer_offload,
        trust_remote_code=held.trust_remote_code,
    )
