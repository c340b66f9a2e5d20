"""``kind: init`` — a fresh small model, so that a study can start from nothing.

A Qwen3 architecture with random weights, a byte-level BPE tokenizer with single digits trained on the domains'
demonstrations, and a chat template in Qwen3's format with ``<think>``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from m2rl_core.config import InitStage
from m2rl_core.run import StageRun
from m2rl_core.seeding import derive

__all__ = ["init"]

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
CORPUS = 4000
"""Demonstrations of each domain that the tokenizer is trained on."""

CHAT_TEMPLATE = """\
{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def init(run: StageRun[InitStage]) -> None:
    """Write the stage's model: random weights, a tokenizer, a chat template."""
    tokenizer = fresh_tokenizer(_corpus(run), run.stage.vocab, run.stage.context)
    model = fresh_model(run.stage, tokenizer, seed=derive(run.seed, "init"))

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    run.finish(save)


def _corpus(run: StageRun[InitStage]) -> Iterator[str]:
    for name in run.stage.domains:
        for conversation in islice(run.domain(name).demonstrations(), CORPUS):
            yield from (message["role"] + "\n" + message["content"] for message in conversation.messages)


def fresh_tokenizer(corpus: Iterator[str], vocab: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text is representable, and every digit is its own token."""
    bpe = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    # Not cut at words: a small vocabulary then spends its merges on the phrases that prompts repeat, and halves them.
    spans = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, spans])
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab - len(MARKS), special_tokens=SPECIAL, initial_alphabet=alphabet)
    bpe.train_from_iterator(corpus, trainer)
    bpe.add_tokens(MARKS)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
    )


def fresh_model(stage: InitStage, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    """A Qwen3 causal LM with tied embeddings and random float32 weights."""
    config = Qwen3Config(
        vocab_size=stage.vocab,
        hidden_size=stage.hidden,
        intermediate_size=stage.ffn,
        num_hidden_layers=stage.layers,
        num_attention_heads=stage.heads,
        num_key_value_heads=stage.kv_heads,
        head_dim=stage.hidden // stage.heads,
        max_position_embeddings=stage.context,
        # transformers' 0.02 suits large models; from it, so small a one needs twice as many updates
        initializer_range=stage.hidden**-0.5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)
