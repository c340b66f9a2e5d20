"""A fresh model: its size, its tokenizer, and that the seed decides everything."""

from __future__ import annotations

from pathlib import Path

import torch

from m2rl_core.config import InitStage
from m2rl_core.config.stages import SMALLEST_VOCAB
from m2rl_core.init import MARKS, SPECIAL, fresh_model, fresh_tokenizer
from m2rl_core.testing.fixtures import CORPUS

STAGE = InitStage(kind="init", domains=[])


def test_about_one_million_parameters() -> None:
    model = fresh_model(STAGE, fresh_tokenizer(iter(CORPUS), STAGE.vocab, STAGE.context), seed=1)
    assert 800_000 < sum(p.numel() for p in model.parameters()) < 1_200_000
    assert model.config.model_type == "qwen3"
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_seed_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    tokenizer = fresh_tokenizer(iter(CORPUS), STAGE.vocab, STAGE.context)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (fresh_model(STAGE, tokenizer, seed=s).model.embed_tokens.weight for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_corpus_gives_the_same_tokenizer(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        fresh_tokenizer(iter(CORPUS), STAGE.vocab, STAGE.context).save_pretrained(tmp_path / name)
        files.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert files[0] == files[1]


def test_reasoning_and_turns_are_single_tokens() -> None:
    tokenizer = fresh_tokenizer(iter(CORPUS), STAGE.vocab, STAGE.context)
    for mark in ("<think>", "</think>", "<tool_call>", "</tool_call>", "<|im_start|>", "<|im_end|>"):
        assert len(tokenizer.encode(mark)) == 1
    assert len(tokenizer) <= STAGE.vocab


def test_the_smallest_vocabulary_holds_every_byte_and_mark() -> None:
    tokenizer = fresh_tokenizer(iter(CORPUS), SMALLEST_VOCAB, STAGE.context)
    assert len(tokenizer) == SMALLEST_VOCAB
    assert {*SPECIAL, *MARKS} <= tokenizer.get_vocab().keys()
    assert tokenizer.decode(tokenizer.encode("Größe: 7 µm")) == "Größe: 7 µm"
