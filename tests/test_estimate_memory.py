"""Estimated memory against the live bytes of real training steps: every tensor that the policy's own code makes.

Real tensors on the CPU for a small model; torch's fake tensors, which have sizes and no contents, for models of a real
width, on one device and, through a process group that pretends, as one rank of several.
"""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen3Config, Qwen3ForCausalLM

from m2rl_core.config import OptimSection
from m2rl_core.estimate import Load, Shape, peak
from m2rl_core.estimate.lengths import ALIGN
from m2rl_core.estimate.memory import CHUNK
from m2rl_core.ops.logprob import CHUNK_ELEMENTS
from m2rl_core.packing import ALIGN as ROW_ALIGN
from m2rl_core.policy import Policy, attention
from m2rl_core.train_sft import NegativeLogLikelihood, share_tokens
from m2rl_core.types import Sample

TINY = Shape(hidden=128, layers=4, heads=4, kv_heads=2, head_dim=32, ffn=384, vocab=1024, context=1024)
QWEN3_4B = Shape(hidden=2560, layers=36, heads=32, kv_heads=8, head_dim=128, ffn=9728, vocab=151936, context=32768)
TOKENS = 36864

pytestmark = pytest.mark.filterwarnings(
    "ignore:.gradient_checkpointing_enable:FutureWarning"
)  # since transformers 5.24


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


def opened(shape: Shape, *, dtype: str, checkpointing: bool) -> Policy:
    config = Qwen3Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
    )
    model = Qwen3ForCausalLM._from_config(config, attn_implementation=attention.NAME, dtype=torch.float32).train()
    assert model.num_parameters() == shape.parameters
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Policy(model, dtype=dtype, optim=OptimSection())


def watched(policy: Policy) -> Live:
    live = Live()
    for tensor in (*policy.model.parameters(), *policy.model.buffers()):
        live.add(tensor)
    return live


def pretended_peak(load: Load) -> int:
    """Most live bytes of the second of two steps, on fake tensors, with the attention that a GPU takes."""
    with FakeTensorMode():
        policy = opened(load.shape, dtype=load.dtype, checkpointing=load.checkpointing)
        live = watched(policy)
        if load.devices > 1:
            live.watch_resizes()
        with live:
            for step in range(2):
                live.peak = live.now
                ids = torch.zeros(load.tokens, dtype=torch.int64)
                context: dict[str, Any] = {"position_ids": ids[None]}
                if load.row:
                    context["attention_mask"] = attention.dense_mask(ids[None])
                else:
                    context["bounds"] = torch.zeros(3, dtype=torch.int32), load.tokens // 2
                logps, _ = policy.scorer(ids, (1, load.tokens), (ids, ids), 1.0, **context)
                torch.autograd.backward(logps.sum())
                del logps
                if step == 0:
                    policy.optimizer.step()
        return live.peak


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_real_step_on_the_cpu(dtype: str, checkpointing: bool, make_sample: Callable[..., Sample]) -> None:
    samples: Sequence[Sample] = [make_sample(120, 119, seed) for seed in range(32)]
    share_tokens(samples)
    policy = opened(TINY, dtype=dtype, checkpointing=checkpointing)
    loss = NegativeLogLikelihood(NegativeLogLikelihood.Config())
    live = watched(policy)
    with live:
        for _ in range(2):
            live.peak = live.now
            [batch] = policy.pack(samples, 4096)
            policy.backward(batch, loss)
            del batch
            policy.optimizer.step()
    load = Load(TINY, tokens=32 * 128, dtype=dtype, checkpointing=checkpointing, row=128)
    assert peak(load).total == pytest.approx(live.peak, rel=0.05)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_of_a_real_width_on_one_device(checkpointing: bool) -> None:
    load = Load(replace(QWEN3_4B, layers=3), tokens=4096, checkpointing=checkpointing)
    assert peak(load).total == pytest.approx(pretended_peak(load), rel=0.02)


def test_an_untied_head_on_one_device() -> None:
    load = Load(replace(QWEN3_4B, layers=2, vocab=32000, tied=False), tokens=4096, checkpointing=True)
    assert peak(load).total == pytest.approx(pretended_peak(load), rel=0.05)


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
load = Load(**(fields | {{"shape": Shape(**fields["shape"])}}))
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


@pytest.mark.parametrize("checkpointing", [pytest.param(False, marks=pytest.mark.slow), True])
def test_layers_of_a_real_width_on_eight_devices(checkpointing: bool) -> None:
    load = Load(replace(QWEN3_4B, layers=2), tokens=4096, devices=8, checkpointing=checkpointing)
    assert peak(load).total == pytest.approx(rank_peak(load), rel=0.05)


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


def test_a_frozen_model_and_the_engine_add_up() -> None:
    plain = Load(TINY, tokens=4096, row=128)
    more = replace(plain, engine=1e6, cache=2e6, frozen=TINY.parameters)
    assert peak(more).total - peak(plain).total == 3e6 + 2 * TINY.parameters
    assert peak(replace(more, devices=8)).frozen == 2 * TINY.parameters, "whole on every device"


def test_constants_are_those_of_the_code() -> None:
    assert CHUNK == CHUNK_ELEMENTS
    assert ALIGN == ROW_ALIGN
