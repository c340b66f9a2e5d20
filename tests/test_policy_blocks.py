"""Whole models with and without the policy's own blocks: hidden states and gradients."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from m2rl_core.errors import DataError
from m2rl_core.policy import attention
from m2rl_core.policy.blocks import quicken
from m2rl_core.policy.model import checkpoint_activations

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
KNOWN = [(LlamaConfig, LlamaForCausalLM), (Qwen2Config, Qwen2ForCausalLM), (Qwen3Config, Qwen3ForCausalLM)]


def made(config: Any, kind: Any) -> Any:
    """A model with random norms; with their initial ones, an error in a weight's place would not be seen."""
    torch.manual_seed(0)
    model = kind(config(**SIZES, attn_implementation=attention.NAME))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.train()


def passed(model: Any, *, autocast: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Hidden states of two packed rows, and the gradient of a fixed sum of them."""
    sequence = torch.tensor([[0] * 5 + [1] * 7, [2] * 9 + [-1] * 3])
    position = torch.tensor([[*range(5), *range(7)], [*range(9), *range(3)]])
    ids = torch.randint(64, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        context = {"attention_mask": attention.dense_mask(sequence), "position_ids": position, "use_cache": False}
        hidden = model.base_model(input_ids=ids, **context).last_hidden_state.float()
    slope = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    hidden.backward(slope)
    return hidden.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("config", "kind"), KNOWN, ids=["llama", "qwen2", "qwen3"])
def test_a_quickened_model_computes_what_it_did(config: Any, kind: Any, autocast: bool) -> None:
    own = made(config, kind)
    quick = deepcopy(own)
    quicken(quick)
    (hidden, gradients), (mine, my_gradients) = passed(own, autocast=autocast), passed(quick, autocast=autocast)
    exact = passed(own, autocast=False)
    assert my_gradients.keys() == gradients.keys()
    if not autocast:
        torch.testing.assert_close(mine, hidden, rtol=1e-5, atol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(my_gradients[name], gradient, rtol=1e-4, atol=1e-4)
        return
    for one, other, true in [
        (mine, hidden, exact[0]),
        *((my_gradients[name], gradients[name], exact[1][name]) for name in gradients),
    ]:  # as far from float32 as transformers' own, but not much further
        assert (one - true).norm() <= 1.5 * (other - true).norm() + 1e-3 * true.norm()


def test_recomputed_activations_change_no_bit() -> None:
    model = made(*KNOWN[2])
    quicken(model)
    hidden, gradients = passed(model, autocast=True)
    checkpoint_activations(model)
    again, recomputed = passed(model, autocast=True)
    assert torch.equal(hidden, again)
    assert all(torch.equal(gradients[name], recomputed[name]) for name in gradients)


def test_modules_of_other_formulas_stay_as_they_are() -> None:
    model = made(GemmaConfig, GemmaForCausalLM)
    hidden, _ = passed(model, autocast=False)
    quicken(model)
    assert torch.equal(passed(model, autocast=False)[0], hidden)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_sliding_window_is_still_refused() -> None:
    model = made(*KNOWN[1])
    quicken(model)
    model.base_model.layers[1].self_attn.sliding_window = 4
    with pytest.raises(DataError, match="sliding_window"):
        passed(model, autocast=False)
