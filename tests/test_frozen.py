"""Teachers and reference: one in memory, scored exactly as the policy is."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from m2rl_core.errors import DataError
from m2rl_core.policy import Frozen, Policy
from m2rl_core.types import Sample

Make = Callable[..., Sample]


def opened(teachers: dict[str, Path], start: Path, dtype: str = "float32") -> Frozen:
    folders = {"start": start} | {f"model-{domain}": folder for domain, folder in teachers.items()}
    names = {domain: f"model-{domain}" for domain in teachers}
    return Frozen(folders, names, "start", lambda folder: Policy.load(folder, dtype=dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_teacher_scores_as_a_policy_of_its_weights(
    tiny_model: Path, other_model: Path, make_sample: Make, dtype: str
) -> None:
    frozen = opened({"math": tiny_model, "coding": other_model}, tiny_model, dtype)
    samples = [make_sample(20, 9, i) for i in range(3)]
    for name, folder in [("model-math", tiny_model), ("model-coding", other_model), ("model-math", tiny_model)]:
        policy = Policy.load(folder, dtype=dtype)
        [batch] = policy.pack(samples, 128)
        assert torch.equal(frozen.use(name).logps(batch), policy.logps(batch))


def test_changing_teachers_reuses_the_same_memory(tiny_model: Path, other_model: Path) -> None:
    frozen = opened({"math": tiny_model, "coding": other_model}, tiny_model)
    places = [p.data_ptr() for p in frozen.use("model-math").model.parameters()]
    assert [p.data_ptr() for p in frozen.use("model-coding").model.parameters()] == places
    assert not any(p.requires_grad for p in frozen.use("start").model.parameters())


def test_a_teacher_of_another_size_takes_the_place_of_the_first(tiny_model: Path, tmp_path: Path) -> None:
    big = Policy.load(tiny_model, dtype="float32").model
    big.config.num_hidden_layers = 3
    big.config.layer_types = ["full_attention"] * 3
    type(big)(big.config).save_pretrained(tmp_path)
    for file in tiny_model.glob("*token*"):
        shutil.copy(file, tmp_path)
    frozen = opened({"math": tiny_model, "coding": tmp_path}, tiny_model)
    frozen.use("model-math")
    larger = frozen.use("model-coding")
    gc.collect()
    assert len(larger.model.base_model.layers) == 3


def test_lectures_are_the_teachers_hidden_states(
    tiny_policy: Policy, tiny_model: Path, other_model: Path, make_sample: Make
) -> None:
    frozen = opened({"math": other_model}, tiny_model)
    [batch] = tiny_policy.pack([make_sample(20, 9)], 64)
    assert frozen.lecture(batch) is None
    batch.teacher = "model-math"
    lecture = frozen.lecture(batch)
    assert lecture is not None
    teacher = Policy.load(other_model, dtype="float32")
    logps = (lecture.hidden_N @ lecture.head.T).log_softmax(-1).gather(1, batch.ids_T[batch.trained_T][:, None])[:, 0]
    torch.testing.assert_close(logps, teacher.logps(batch)[batch.trained_T])
    assert not lecture.hidden_N.requires_grad


def test_a_teacher_of_another_vocabulary_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "m")
    tokenizer = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    first, second = list(vocab)[20:22]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(
        DataError, match="teacher 'model-math' has another vocabulary than the student, so it cannot teach it"
    ):
        opened({"math": tmp_path / "m"}, tiny_model)


def test_weights_that_do_not_fit_are_named(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_model / "model.safetensors")
    missing = {name: tensor for name, tensor in weights.items() if not name.endswith("layers.1.mlp.up_proj.weight")}
    policy = Policy.load(tiny_model, dtype="float32")
    save_file(missing, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"lacks the tensor 'model.layers.1.mlp.up_proj.weight'"):
        policy.read(tmp_path)
    save_file(weights | {"model.norm.weight": torch.ones(5)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"tensor 'model.norm.weight' does not fit. Found: \(5,\)"):
        policy.read(tmp_path)
