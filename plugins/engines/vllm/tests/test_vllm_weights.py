"""Weights on their way, and the reference that they are checked with, without vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from m2rl_core.errors import ConfigError, DataError, RunError, StageError
from m2rl_engine_vllm import buckets
from m2rl_engine_vllm.parity import Reference, compare, probe, vocabulary


def weights(folder: Path, noise: float = 0.0) -> list[tuple[str, Tensor]]:
    """The model's tensors with always the same noise, a tied head once."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    draw = torch.Generator().manual_seed(0)
    return [(name, p.detach() + noise * torch.randn(p.shape, generator=draw)) for name, p in model.named_parameters()]


def test_the_trainers_tensors_are_the_folders(tiny_model: Path) -> None:
    given = weights(tiny_model)
    shapes = buckets.shapes_of(tiny_model)
    assert "lm_head.weight" not in shapes
    passed = list(buckets.checked(given, shapes))
    assert [name for name, _ in passed] == [name for name, _ in given]


def test_what_does_not_fit_is_refused(tiny_model: Path) -> None:
    given, shapes = weights(tiny_model), buckets.shapes_of(tiny_model)
    for wrong, message in (
        ([("model.norm.wait", given[0][1])], r"no tensor 'model\.norm\.wait'\. Did you mean 'model\.norm\.weight'"),
        ([(given[0][0], given[0][1][:1])], r"another shape in vLLM\. Found: \(1, 32\)\. Allowed: \(384, 32\)"),
        ([given[0], given[0]], "given twice"),
        (given[1:], r"1 of the model's \d+ tensors were not given\. Found: model\.embed_tokens\.weight"),
    ):
        with pytest.raises(DataError, match=message):
            list(buckets.checked(wrong, shapes))


def test_buckets_are_bounded_and_hold_everything(tiny_model: Path, tmp_path: Path) -> None:
    given = weights(tiny_model)
    files = buckets.write(iter(given), tmp_path / "v", "bfloat16", limit=10_000)
    assert len(files) > 3
    found: dict[str, Tensor] = {}
    for path in files:
        bucket = load_file(path)
        assert len(bucket) == 1 or sum(each.nbytes for each in bucket.values()) <= 10_000
        found |= bucket
    assert set(found) == {name for name, _ in given}
    assert all(torch.equal(found[name], tensor.bfloat16()) for name, tensor in given)


def test_a_folder_that_cannot_be_written_is_named(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"engine\.folder: weights cannot be written to .*file/v"):
        buckets.write(weights(tiny_model), tmp_path / "file" / "v", "float32")


def test_the_reference_is_transformers_itself(tiny_model: Path, tmp_path: Path) -> None:
    reference, ids = Reference(tiny_model), probe(40, vocabulary(tiny_model))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for number, noise in enumerate((0.0, 0.02)):
        given = weights(tiny_model, noise)
        model.load_state_dict(dict(given), strict=False)
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        files = buckets.write(given, tmp_path / str(number), "float32", limit=50_000)
        assert reference.logps(files, ids) == pytest.approx(
            expected.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist(), abs=1e-5
        )
    held = sum(p.numel() for p in reference._lm.parameters() if not p.is_meta)
    assert held == 0, "between two checks it has no weights"


def test_a_reference_with_an_untied_head(tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path)
    ids = probe(9, 384)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    found = Reference(tmp_path).logps(buckets.files_of(tmp_path), ids)
    assert found == pytest.approx(expected.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist(), abs=1e-5)
    assert "lm_head.weight" in buckets.shapes_of(tmp_path)


def test_a_stale_head_is_outside_the_tolerance(tiny_model: Path, tmp_path: Path) -> None:
    """What vLLM on a CPU does if its packed head is left: a new body with an old head."""
    old, new = dict(weights(tiny_model)), dict(weights(tiny_model, 0.05))
    ids, model = probe(33, 384), AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    files = buckets.write(new.items(), tmp_path / "new", "float32")
    expected = Reference(tiny_model).logps(files, ids)
    head = old["model.embed_tokens.weight"]
    with torch.no_grad():
        model.load_state_dict(new, strict=False)
        stale = (model.model(torch.tensor([ids])).last_hidden_state[0, :-1] @ head.T).log_softmax(-1)
    found = stale.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    with pytest.raises(StageError, match=r"version 7.*stale or wrong.*Allowed: up to 0\.001 in float32"):
        compare(found, expected, "float32", 7)
    assert compare(expected, expected, "float32", 7) == 0.0
    with pytest.raises(StageError):
        compare([float("nan")] * 32, expected, "bfloat16", 7)


def test_an_unknown_module_with_buffers_is_named(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.qwen3 import modeling_qwen3

    class Odd(modeling_qwen3.Qwen3RotaryEmbedding):
        def __init__(self, *given: Any, needed: int = 0, **also: Any) -> None:
            if not also:
                raise TypeError("needed")
            super().__init__(*given, **also)

    monkeypatch.setattr(modeling_qwen3, "Qwen3RotaryEmbedding", Odd)
    with pytest.raises(ConfigError, match=r"engine\.parity_tokens: .*Odd\. Next: set it to 0"):
        Reference(tiny_model)
