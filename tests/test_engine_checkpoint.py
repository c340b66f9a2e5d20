"""Weights into the engine: what is refused, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, MambaConfig, PreTrainedConfig, Qwen3Config

from m2rl_core.engine.checkpoint import copy_weights, open_model
from m2rl_core.errors import DataError

SIZE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def model(tied: bool = True, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(Qwen3Config(**SIZE, tie_word_embeddings=tied))


@pytest.mark.parametrize("tied", [True, False])
def test_all_weights_are_copied_and_cast(tied: bool) -> None:
    target, source = model(tied).to(torch.bfloat16), model(tied, seed=1)
    copy_weights(target, source.named_parameters())
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value.to(torch.bfloat16))


def test_a_tied_head_is_given_once_under_either_name() -> None:
    given: dict[str, Tensor] = dict(model(seed=1).named_parameters())
    assert "lm_head.weight" not in given
    other = {name.replace("model.embed_tokens", "lm_head"): value for name, value in given.items()}
    target = model()
    copy_weights(target, other.items())
    assert torch.equal(target.model.embed_tokens.weight, given["model.embed_tokens.weight"])
    with pytest.raises(DataError, match=r"'lm_head\.weight' was given twice"):
        copy_weights(target, (given | other).items())


def test_wrong_tensors_are_named() -> None:
    target = model(tied=False)
    given: dict[str, Tensor] = dict(target.named_parameters())
    with pytest.raises(DataError, match=r"no tensor 'model\.nrom\.weight'.* Did you mean 'model\.norm\.weight'\?"):
        copy_weights(target, [("model.nrom.weight", torch.ones(32))])
    with pytest.raises(DataError, match=r"'model\.norm\.weight' has another shape.* Found: \(31,\)\. Allowed: \(32,\)"):
        copy_weights(target, [("model.norm.weight", torch.ones(31))])
    del given["lm_head.weight"]
    with pytest.raises(DataError, match=r"1 of the engine's 14 tensors were not given\. Found: lm_head\.weight"):
        copy_weights(target, given.items())


def opened(folder: Path, config: PreTrainedConfig, context: int = 64) -> Any:
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return open_model(folder, device="cpu", dtype=torch.float32, context=context)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no safetensors weights"):
        open_model(tmp_path, device="cpu", dtype=torch.float32, context=64)


def test_layers_that_attention_cannot_express_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes no attention function"):
        opened(tmp_path / "a", MambaConfig(vocab_size=64, hidden_size=32, state_size=4, num_hidden_layers=1))
    chunked = Qwen3Config(**SIZE, layer_types=["full_attention"])
    AutoModelForCausalLM.from_config(chunked).save_pretrained(tmp_path / "b")
    text = (tmp_path / "b/config.json").read_text()
    (tmp_path / "b/config.json").write_text(text.replace('"full_attention"', '"chunked_attention"'))
    with pytest.raises(DataError, match="layers of chunked_attention"):
        open_model(tmp_path / "b", device="cpu", dtype=torch.float32, context=64)


def test_rotary_scalings_that_depend_on_the_batch_are_refused_where_they_would(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 32}
    config = Qwen3Config(**SIZE, rope_parameters=rope)
    with pytest.raises(DataError, match="dynamic rotary scaling, by which a sample beyond 32 tokens"):
        opened(tmp_path, config)
    assert opened(tmp_path, config, context=32).config.model_type == "qwen3"


def test_soft_caps_are_refused_when_attention_runs(tmp_path: Path) -> None:
    lm = opened(tmp_path, Gemma2Config(**SIZE))
    with pytest.raises(DataError, match="no soft-capped attention"):
        lm(torch.tensor([[1, 2]]), use_cache=False, plan=None)
