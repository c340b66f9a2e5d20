"""Estimated memory against the live bytes of real training steps: every tensor that the policy's own code makes.

Real tensors on the CPU for a small model; torch's fake tensors, which have sizes and no contents, for models of a real
width, on one device and, through a process group that pretends, as one rank of several.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen3Config, Qwen3ForCausalLM

from m2rl_core.config import OptimSection
from m2rl_core.estimate import Load, Shape, head, peak
from m2rl_core.estimate.lengths import ALIGN
from m2rl_core.interfaces import Loss
from m2rl_core.ops import Lecture, divergence, fused, fused_loss, logprob, products, token_logps
from m2rl_core.ops.rows import Comparison, Partial
from m2rl_core.packing import ALIGN as ROW_ALIGN
from m2rl_core.policy import Frozen, Policy, attention, model
from m2rl_core.policy.model import checkpoint_activations
from m2rl_core.train_sft import NegativeLogLikelihood, share_tokens
from m2rl_core.types import Batch, Divergence, Sample

TINY = Shape(hidden=128, layers=4, heads=4, kv_heads=2, head_dim=32, ffn=384, vocab=1024, context=1024)
WIDE = replace(TINY, hidden=192, heads=6, ffn=576)
ON_CPU = Load(TINY, tokens=32 * 128, cpu=True, row=128)
QWEN3_4B = Shape(hidden=2560, layers=36, heads=32, kv_heads=8, head_dim=128, ffn=9728, vocab=151936, context=32768)
TOKENS = 36864


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.sizes: dict[int, int] = {}
        self.kept: dict[int, weakref.ref[Any]] = {}

    def add(self, tensor: Tensor) -> None:
        storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
        key = id(storage)
        if key not in self.sizes:
            self.kept[key] = weakref.ref(storage, lambda _: self._gone(key))
            self.sizes[key] = 0
            self._resize(key, storage.nbytes())

    def _gone(self, key: int) -> None:
        self._resize(key, 0)
        del self.sizes[key], self.kept[key]

    def _resize(self, key: int, size: int) -> None:
        self.now += size - self.sizes[key]
        self.sizes[key] = size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return 0  # a fake tensor has no value; "no" to whether something is wrong
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out

    def watch_resizes(self) -> None:
        """FSDP2 frees and fills storages by resizing them, which no dispatcher sees."""
        plain = torch.UntypedStorage.resize_

        def resize_(storage: Any, size: int) -> Any:
            done = plain(storage, size)
            if id(storage) in self.sizes:
                self._resize(id(storage), size)
            return done

        torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign,assignment]


def opened(shape: Shape, *, dtype: str, checkpointing: bool = False, optim: OptimSection | None = None) -> Policy:
    model = Qwen3ForCausalLM._from_config(
        config(shape), attn_implementation=attention.NAME, dtype=torch.float32
    ).train()
    assert model.num_parameters() == shape.parameters
    if checkpointing:
        checkpoint_activations(model)
    return Policy(model, dtype=dtype, optim=optim)


def config(shape: Shape) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
    )


def watched(*policies: Policy) -> Live:
    live = Live()
    for policy in policies:
        for tensor in (*policy.model.parameters(), *policy.model.buffers()):
            live.add(tensor)
    return live


# ── fake tensors ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Kernels:
    """The Triton kernels as an allocator sees them: statistics in float32, gradients in place of the logits."""

    @staticmethod
    def summarise(logits: Tensor, *_: Any) -> Partial:
        return Partial(*logits.new_empty(4, len(logits), dtype=torch.float32))

    @staticmethod
    def compare(student: Tensor, *_: Any) -> Comparison:
        return Comparison(*student.new_empty(5, len(student), dtype=torch.float32))

    @staticmethod
    def gradient_(*_: Any) -> None: ...

    compare_gradient_ = gradient_


def as_on_a_gpu(patch: pytest.MonkeyPatch) -> None:
    """Chunks, kernels and sums of the ops: fake tensors of CUDA need a torch that was built for it."""
    for held in (divergence.HELD_ELEMENTS, logprob.HELD_ELEMENTS, logprob.SLICE):
        patch.setitem(held, "cpu", held["cuda"])
    for ops in (fused, logprob):
        patch.setattr(ops, "row_functions", lambda _: Kernels)
        patch.setattr(ops, "accumulate_", lambda total, *_: total.zero_())  # addmm's own sum: it has no workspace
    patch.setattr(torch.nn.Linear, "to", converted)
    patch.setattr(model, "quicken", lambda _: None)


def converted(linear: torch.nn.Linear, dtype: torch.dtype) -> None:
    """``Module.to`` swaps tensors in place, which fake ones do not let it."""
    linear.weight = torch.nn.Parameter(linear.weight.to(dtype), requires_grad=False)


def pretended_peak(load: Load) -> int:
    """Most live bytes of a step with two batches, on fake tensors, with the attention and the ops that a GPU takes."""
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode():
        as_on_a_gpu(patch)
        policy = opened(load.shape, dtype=load.dtype, checkpointing=load.checkpointing, optim=OptimSection())
        teacher = None if load.frozen is None else teacher_of(load.frozen, load.dtype)
        live = watched(policy, *([teacher] if teacher else []))
        if load.devices > 1:
            live.watch_resizes()
        with live:
            train(load, policy, teacher)
            policy.optimizer.step()
            policy.optimizer.zero_grad()
            live.peak = live.now
            if teacher is not None and not load.lectured:
                with torch.no_grad():
                    run(load, teacher, token_logps)
            for _ in range(2):
                train(load, policy, teacher)
        return live.peak


def teacher_of(shape: Shape, dtype: str) -> Policy:
    return Frozen({"teacher": Path()}, {}, "", lambda _: opened(shape, dtype=dtype)).use("teacher")


def train(load: Load, policy: Policy, teacher: Policy | None) -> None:
    """What ``Policy.backward`` does, a lecture first, without the questions that need a number's value."""
    if not load.separable:
        logps, _ = run(load, policy, token_logps)
        torch.autograd.backward(logps.sum())
        return
    taught: dict[str, Any] = {}
    if load.lectured:
        assert teacher is not None
        with torch.no_grad():
            lecture = run(load, teacher, lambda hidden_N, head, *_, **__: Lecture(hidden_N, head))
        taught = {"lecture": lecture, "divergence": Divergence("reverse")}
    work = partial(fused_loss, token_loss=lambda _, scores: scores.logps_N, **taught)
    total, _ = run(load, policy, work)
    torch.autograd.backward(total)


def run(load: Load, policy: Policy, work: Callable[..., Any]) -> Any:
    """``work`` on one row with the tokens of two sequences."""
    ids = torch.zeros(load.tokens, dtype=torch.int64)
    context: dict[str, Any] = {"position_ids": ids[None]}
    if load.row:
        context["attention_mask"] = attention.dense_mask(ids[None])
    else:
        context["bounds"] = torch.zeros(3, dtype=torch.int32), load.tokens // 2
    return policy.scorer(work, ids, (1, load.tokens), (ids, ids), 1.0, **context)


# ── one device ───────────────────────────────────────────────────────────────────────────────────────────────────────


class OfSequences(NegativeLogLikelihood):
    """As a loss that is not token by token."""

    separable = False


class Distilled(NegativeLogLikelihood):
    """The divergence from the teacher at every token."""

    divergence: Divergence | None = Divergence("reverse")

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.divergence_T is not None
        return batch.divergence_T


def real_peak(policy: Policy, loss: Loss, samples: Sequence[Sample], frozen: Frozen | None = None) -> int:
    """Most live bytes while one batch passes and another's gradients are there."""
    live = watched(policy, *([frozen.use("teacher")] if frozen else []))
    with live:
        for _ in range(2):
            live.peak = live.now
            [batch] = policy.pack(samples, 4096)
            batch.teacher = "teacher" if frozen else None
            policy.backward(batch, loss, frozen.lecture(batch) if frozen else None)
            del batch
            policy.optimizer.step()
    return live.peak


@pytest.fixture
def samples(make_sample: Callable[..., Sample]) -> list[Sample]:
    """A batch of 32 rows with 128 columns."""
    made = [make_sample(120, 119, seed) for seed in range(32)]
    share_tokens(made)
    return made


@pytest.mark.parametrize("loss", [NegativeLogLikelihood, OfSequences])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_real_step_on_the_cpu(
    dtype: str, checkpointing: bool, loss: type[NegativeLogLikelihood], samples: list[Sample]
) -> None:
    policy = opened(TINY, dtype=dtype, checkpointing=checkpointing, optim=OptimSection())
    load = replace(ON_CPU, dtype=dtype, checkpointing=checkpointing, separable=loss.separable)
    assert peak(load).total == pytest.approx(real_peak(policy, loss(loss.Config()), samples), rel=0.05)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_real_step_of_distillation_on_the_cpu(
    dtype: str, samples: list[Sample], tiny_model: Path, tmp_path: Path
) -> None:
    """A teacher that is wider than its student; the optimizer, the lecture and the teacher itself are all in it."""
    for name, shape in {"start": TINY, "teacher": WIDE}.items():
        Qwen3ForCausalLM(config(shape)).save_pretrained(tmp_path / name)
        for file in tiny_model.glob("*token*"):
            shutil.copy(file, tmp_path / name)
    folders = {name: tmp_path / name for name in ("start", "teacher")}
    frozen = Frozen(folders, {"math": "teacher"}, "start", lambda folder: Policy.load(folder, dtype=dtype))
    policy = Policy.load(folders["start"], dtype=dtype, optim=OptimSection())
    measured = real_peak(policy, Distilled(Distilled.Config()), samples, frozen)
    load = replace(ON_CPU, dtype=dtype, frozen=WIDE, lectured=True)
    assert peak(load).total == pytest.approx(measured, rel=0.05)


TWO = Load(replace(QWEN3_4B, layers=2), tokens=4096, checkpointing=True)
"""Layers of a real width, with a real vocabulary."""
TEACHER = replace(TWO.shape, hidden=4096, ffn=12288)
CASES: dict[str, dict[str, Any]] = {
    "checkpointing": {},
    "everything saved": {"checkpointing": False},
    "a long batch": {"tokens": 20480},
    "a loss of whole sequences": {"separable": False},
    "an untied head": {"shape": replace(TWO.shape, tied=False)},
    "a teacher beside": {"frozen": TEACHER},
    "a great teacher that scores": {
        "shape": replace(TWO.shape, hidden=512, heads=8, kv_heads=4, ffn=1024),
        "tokens": 20480,
        "frozen": TEACHER,
    },
    "a lecture": {"frozen": TEACHER, "lectured": True},
    "a long lecture": {"tokens": 20480, "frozen": TEACHER, "lectured": True},
}
MANY = {"checkpointing", "an untied head", "a lecture"}


@pytest.mark.parametrize("case", CASES)
def test_layers_of_a_real_width_on_one_device(case: str) -> None:
    load = replace(TWO, **CASES[case])
    assert peak(load).total == pytest.approx(pretended_peak(load), rel=0.01)


def rank_peak(load: Load) -> int:
    """:func:`pretended_peak` in a process of its own, as one rank of ``load.devices``."""
    code = f"""
import sys, torch, json, dataclasses
import torch.distributed as dist
import torch.distributed.fsdp._fully_shard._fully_shard as fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
sys.path.insert(0, {str(sys.modules[__name__].__file__).rpartition("/")[0]!r})
from test_estimate_memory import Load, Shape, pretended_peak
fields = json.loads(sys.argv[1])
shapes = {{name: Shape(**fields[name]) for name in ("shape", "frozen") if fields[name]}}
load = Load(**(fields | shapes))
dist.init_process_group("fake", rank=0, world_size=load.devices, store=FakeStore())
mesh = init_device_mesh("cpu", (load.devices,))
fsdp._init_default_mesh = lambda *_, **__: mesh  # fake tensors cannot be asked for the ranks of a new one
print(pretended_peak(load))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, json.dumps(asdict(load))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize(
    "case", [case if case in MANY else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_layers_of_a_real_width_on_eight_devices(case: str) -> None:
    load = replace(TWO, devices=8, **CASES[case])
    assert peak(load).total == pytest.approx(rank_peak(load), rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_the_whole_4b_model_with_32k_tokens(devices: int) -> None:
    """Measured 88.8 GB on one device and 25.4 GB on each of eight."""
    load = Load(QWEN3_4B, tokens=TOKENS, devices=devices, checkpointing=True)
    measured = rank_peak(load) if devices > 1 else pretended_peak(load)
    assert peak(load).total == pytest.approx(measured, rel=0.02)


def test_master_weights_gradients_and_moments_by_hand() -> None:
    """A million parameters: 4 MB of weights and of gradients, 8 MB of moments, a quarter of each on four devices."""
    shape = Shape(
        hidden=100, layers=1, heads=1, kv_heads=1, head_dim=10, ffn=100, vocab=9656, context=10, qk_norm=False
    )
    assert shape.parameters == 965_600 + (100 * (20 + 20 + 300) + 200) + 100 == 999_900
    one = peak(Load(shape, tokens=1, dtype="float32"))
    assert (one.weights, one.gradients, one.optimizer) == (3_999_600, 3_999_600, 7_999_200)
    four = peak(Load(shape, tokens=1, dtype="float32", devices=4))
    assert four.optimizer == 7_999_200 / 4


def test_the_engine_adds_up() -> None:
    more = replace(ON_CPU, engine=1e6, cache=2e6)
    assert peak(more).total - peak(ON_CPU).total == 3e6


def test_a_frozen_model_by_hand() -> None:
    """Layers' matrices in bfloat16, norms and embedding in float32; sharded in float32 with a gathered embedding."""
    load = replace(ON_CPU, frozen=TINY)
    matrices = 4 * 128 * (2 * 128 + 2 * 64 + 3 * 384)
    norms = 4 * (2 * 128 + 2 * 32) + 128
    assert peak(load).frozen == 2 * matrices + 4 * (norms + 1024 * 128)
    assert peak(replace(load, dtype="float32")).frozen == 4 * TINY.parameters
    assert peak(replace(load, devices=8)).frozen == 4 * TINY.parameters / 8 + 2 * 1024 * 128


def test_a_great_teacher_is_the_fullest_moment_when_it_scores() -> None:
    """No gradients are there then; under a lecture those of earlier batches are."""
    giant = replace(ON_CPU, tokens=65536, frozen=replace(TINY, hidden=4096, heads=32, head_dim=128, ffn=65536))
    assert peak(giant).gradients == 0
    assert peak(replace(giant, lectured=True)).gradients == 4 * TINY.parameters
    assert peak(giant).activations > peak(replace(giant, frozen=None)).activations


def test_opening_a_frozen_model_takes_twice_what_it_holds() -> None:
    """And one matrix more; a batch so small that nothing else matters."""
    giant = replace(TINY, hidden=1024, layers=8, heads=16, head_dim=64, ffn=2048)
    policy = opened(giant, dtype="bfloat16")
    frozen, live = Frozen({"teacher": Path()}, {}, "", lambda _: policy), watched(policy)
    with live:
        frozen.use("teacher")
    load = Load(TINY, tokens=16, cpu=True, row=16, frozen=giant)
    estimated = peak(load).total - 12 * TINY.parameters
    assert estimated == pytest.approx(4 * giant.parameters)
    assert estimated == pytest.approx(live.peak, rel=0.05)


def test_constants_are_those_of_the_code() -> None:
    for cpu, device in {True: "cpu", False: "cuda"}.items():
        assert head.FUSED[cpu] == divergence.HELD_ELEMENTS[device]
        assert head.LOGPS[cpu] == logprob.HELD_ELEMENTS[device]
        assert head.SLICE[cpu] == logprob.SLICE[device]
    assert ALIGN == ROW_ALIGN
    assert head.ALIGN == products.ALIGN


@pytest.mark.parametrize(("count", "most"), [(1, 5), (16, 1), (4096, 4416), (36864, 4416), (151936, 16384), (999, 100)])
def test_parts_are_those_of_the_code(count: int, most: int) -> None:
    assert head._longest(count, most) == products.longest(products.parts(count, most))
