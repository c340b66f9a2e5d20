"""The start-up checks must pass on this machine, and must fail where a promise is broken."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from m2rl_core.engine import embedded, selftest
from m2rl_core.engine.attention import Lane
from m2rl_core.engine.cache import Cache
from m2rl_core.engine.checkpoint import open_model
from m2rl_core.engine.embedded import EmbeddedEngine
from m2rl_core.errors import DataError, StageError


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    torch.set_num_threads(1)
    return open_model(folder, device="cpu", dtype=dtype, context=256)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_this_machine_passes(tiny_model: Path, dtype: torch.dtype) -> None:
    model = opened(tiny_model, dtype)
    selftest.check_parity(model, Cache())
    assert selftest.is_exact(model, Cache())


def depends_on_the_batch(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    """The kind of error that another BLAS kernel makes: the last bit of a few elements."""
    return torch.nextafter(out, out + 1) if out.shape[1] > 32 else out


def test_a_last_bit_that_depends_on_the_batch_is_found(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(tiny_model)
    model.model.norm.register_forward_hook(depends_on_the_batch)
    assert not selftest.is_exact(model, Cache())

    def broken(*args: Any, **kwargs: Any) -> Any:
        return model

    monkeypatch.setattr(embedded, "open_model", broken)
    engine = EmbeddedEngine(EmbeddedEngine.Config(device="cpu"))
    with pytest.raises(StageError, match=r"Qwen3ForCausalLM on cpu: the start-up test found samples that depend"):
        asyncio.run(engine.start(tiny_model, max_tokens=64))
    with pytest.warns(UserWarning, match="on cuda: the start-up test"):
        embedded._report_inexact("Qwen3ForCausalLM", "cuda")


def test_another_attention_than_the_models_is_found(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(tiny_model)
    bias = Lane.bias
    monkeypatch.setattr(Lane, "bias", lambda lane, window: bias(lane, 20))
    with pytest.raises(DataError, match="are not those of transformers"):
        selftest.check_parity(model, Cache())
