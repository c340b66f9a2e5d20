"""``Shape``: the sizes of a causal language model, and what follows from them alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from m2rl_core.config import InitStage

__all__ = ["Shape", "of_config", "of_init"]

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of ``model_type`` with the layers that are counted here: attention with grouped heads and a gated MLP."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with grouped-query attention and a gated MLP in every layer."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    """Longest context [tokens]."""
    tied: bool = True
    """The head is the embedding."""
    qk_norm: bool = True
    biases: int = 0
    """Numbers of one layer that are biases."""

    @property
    def q(self) -> int:
        """Features of a token's queries."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Features of a token's keys, and of its values."""
        return self.kv_heads * self.head_dim

    @property
    def layer_products(self) -> int:
        """Multiplications of one token with the matrices of one layer: as many as they have numbers."""
        return self.hidden * (2 * self.q + 2 * self.kv + 3 * self.ffn)

    @property
    def products(self) -> int:
        """Of all layers, the head excluded."""
        return self.layers * self.layer_products

    @property
    def matrices(self) -> int:
        """Numbers of all layers' matrices, with their biases."""
        return self.products + self.layers * self.biases

    @property
    def layer_parameters(self) -> int:
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        return self.layer_products + norms + self.biases

    @property
    def head(self) -> int:
        """Numbers of the head, or of the embedding."""
        return self.vocab * self.hidden

    @property
    def embeddings(self) -> int:
        """Numbers of embedding and head."""
        return self.head if self.tied else 2 * self.head

    @property
    def parameters(self) -> int:
        return self.embeddings + self.layers * self.layer_parameters + self.hidden

    @property
    def cached(self) -> int:
        """Numbers that one token of context adds to the keys and values of all layers."""
        return 2 * self.layers * self.kv


def of_init(stage: InitStage) -> Shape:
    """Of the fresh Qwen3 model that an ``init`` stage makes."""
    return Shape(
        hidden=stage.hidden,
        layers=stage.layers,
        heads=stage.heads,
        kv_heads=stage.kv_heads,
        head_dim=stage.hidden // stage.heads,
        ffn=stage.ffn,
        vocab=stage.vocab,
        context=stage.context,
    )


def of_config(config: Mapping[str, Any]) -> Shape | str:
    """From the ``config.json`` of a Hugging Face folder; a text says why its sizes are not known."""
    family = config.get("model_type")
    if family not in FAMILIES:
        return f"an architecture that is not counted here: {family!r} (counted: {', '.join(FAMILIES)})"
    try:
        heads = config["num_attention_heads"]
        shape = Shape(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            ffn=config["intermediate_size"],
            vocab=config["vocab_size"],
            context=config["max_position_embeddings"],
            tied=config.get("tie_word_embeddings", False),
            qk_norm=family == "qwen3",
        )
    except KeyError as error:
        return f"its config.json has no {error}"
    return _with_biases(shape, config)


def _with_biases(shape: Shape, config: Mapping[str, Any]) -> Shape:
    attention = shape.q + 2 * shape.kv
    biases = attention if config["model_type"] == "qwen2" else 0
    if config["model_type"] in ("llama", "qwen3") and config.get("attention_bias"):
        biases += attention + shape.hidden
    if config["model_type"] == "llama" and config.get("mlp_bias"):
        biases += 2 * shape.ffn + shape.hidden
    return replace(shape, biases=biases)
