"""Random models that belong together, for tests and benchmarks of what compares or combines weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2rl_core.seeding import derive
from m2rl_core.weights import Layout, Writer

__all__ = ["TINY", "family"]

TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 1,
}
"""Sizes of a Qwen3 of 18k parameters."""

_CHUNK = 1 << 20
_NAMES = ("math", "science", "coding", "if", "agent", "safety", "chat", "law")


def family(
    folder: Path,
    experts: int = 2,
    *,
    tied: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    moved: float = 1e-3,
    shard_bytes: int = 1 << 40,
    **sizes: Any,
) -> dict[str, Path]:
    """A random Qwen3 called ``base`` and experts near it, each in a folder of its own below ``folder``.

    Args:
        experts: at most eight.
        tied: the output layer repeats the embeddings.
        moved: scale of the experts' task vectors; weights have scale 0.02.
        sizes: fields of ``Qwen3Config`` that differ from :data:`TINY`.
    """
    config, layout = _architecture({**TINY, **sizes, "tie_word_embeddings": tied}, dtype)
    folders = {name: folder / name for name in ("base", *_NAMES[:experts])}
    for name, path in folders.items():
        path.mkdir(parents=True)
        (path / "config.json").write_text(config)
        (path / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "max_new_tokens": 8}))
        (path / "chat_template.jinja").write_text("{{ messages }}")
        (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<1>"}))
        _write_tokenizer(path, int(sizes.get("vocab_size", TINY["vocab_size"])))
        _write_weights(path, layout, name, 0.0 if name == "base" else moved, shard_bytes)
    return folders


def _architecture(sizes: dict[str, Any], dtype: torch.dtype) -> tuple[str, Layout]:
    """``config.json``, and names and shapes of the tensors."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(architectures=["Qwen3ForCausalLM"], dtype=dtype, **sizes)
    with torch.device("meta"):
        state = Qwen3ForCausalLM(config).state_dict()
    if sizes["tie_word_embeddings"]:
        state.pop("lm_head.weight")
    return config.to_json_string(), {name: (dtype, tuple(tensor.shape)) for name, tensor in state.items()}


def _write_tokenizer(folder: Path, words: int) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({f"<{i}>": i for i in range(words)}, unk_token="<0>")).save(str(folder / "tokenizer.json"))


def _write_weights(folder: Path, layout: Layout, name: str, moved: float, shard_bytes: int) -> None:
    """Noise is cut from one buffer, since drawing a new number for every weight would take minutes."""
    noise = torch.randn(2 * _CHUNK, generator=torch.Generator().manual_seed(17))

    def cut(count: int, *what: int | str) -> Tensor:
        start = derive(*what) % _CHUNK
        return noise[start : start + count]

    with Writer(folder, layout, shard_bytes=shard_bytes) as writer:
        for tensor, (dtype, shape) in layout.items():
            size = torch.Size(shape).numel()
            for offset in range(0, size, _CHUNK):
                count = min(_CHUNK, size - offset)
                values = (1.0 if "norm" in tensor else 0.0) + 0.02 * cut(count, "base", tensor, offset)
                values = values.to(dtype) + moved * cut(count, name, tensor, offset)
                writer.write(tensor, offset, values.to(dtype))
