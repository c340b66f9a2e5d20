"""What other tools merge in silence is refused, in words that name the tensor and the model; nothing is left behind."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from m2rl_core.errors import ConfigError, DataError, M2rlError, RunError, StageError
from m2rl_core.merge import merge_models
from m2rl_core.plugins import load_plugins
from m2rl_core.testing.family import family
from m2rl_core.weights import stream_named
from m2rl_merger_average import Average
from m2rl_merger_task_arithmetic import TaskArithmetic

ADD = TaskArithmetic(TaskArithmetic.Config())
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    return family(tmp_path)


def edit(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the weights of a model."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def edit_json(file: Path, **fields: Any) -> None:
    """Set fields of a JSON file; ``...`` removes one."""
    found = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({name: value for name, value in found.items() if value is not ...}))


def merged(models: dict[str, Path]) -> dict[str, Tensor]:
    experts = {name: path for name, path in models.items() if name != "base"}
    out = models["math"].parent / "out"
    merge_models(ADD, base=models["base"], experts=experts, out=out)
    return dict(stream_named(out))


def refused(models: dict[str, Path], error: type[M2rlError] = DataError, **options: Any) -> str:
    """The message, after making sure that nothing was left behind."""
    experts = {name: path for name, path in models.items() if name != "base"}
    root = models["math"].parent
    before = sorted(path.name for path in root.iterdir())
    with pytest.raises(error) as caught:
        merge_models(options.pop("merger", ADD), base=models["base"], experts=experts, out=root / "out", **options)
    assert sorted(path.name for path in root.iterdir()) == before
    return str(caught.value)


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_extra_tensor(models: dict[str, Path]) -> None:
    edit(models["science"], lambda tensors: tensors.update({"model.extra": torch.zeros(3)}))
    assert "the base lacks tensor 'model.extra' of expert 'science'" in refused(models)


def test_a_missing_tensor(models: dict[str, Path]) -> None:
    edit(models["math"], lambda tensors: tensors.pop("model.norm.weight"))
    assert "expert 'math' lacks tensor 'model.norm.weight' of the base" in refused(models)


def test_another_shape(models: dict[str, Path]) -> None:
    edit(models["math"], lambda tensors: tensors.update({EMBEDDINGS: torch.zeros(70, 32)}))
    message = refused(models)
    for said in ("expert 'math'", EMBEDDINGS, "[70, 32]", "[64, 32]"):
        assert said in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["base", "science"])
def test_a_weight_that_is_no_number(models: dict[str, Path], name: str, value: float) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value

    edit(models[name], spoil)
    message = refused(models)
    assert ("the base" if name == "base" else "expert 'science'") in message
    assert f"model.layers.1.mlp.up_proj.weight' holds a weight that is no finite number. Found: {value}" in message
    assert f"element {3 * 32 + 4}." in message


def test_huge_weights_are_no_reason_to_refuse(models: dict[str, Path]) -> None:
    def enlarge(tensors: dict[str, Tensor]) -> None:
        tensors["model.norm.weight"][0] = 1e30

    edit(models["math"], enlarge)
    assert merged(models)["model.norm.weight"][0] > 9e29


def test_a_result_that_the_type_cannot_hold(models: dict[str, Path]) -> None:
    huge = TaskArithmetic(TaskArithmetic.Config(scale=1e9))
    assert "float16 cannot hold" in refused(models, StageError, merger=huge, dtype="float16")


def test_pickles(models: dict[str, Path]) -> None:
    (models["math"] / "model.safetensors").rename(models["math"] / "pytorch_model.bin")
    assert "pytorch_model.bin" in refused(models)


# ── function ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Field(NamedTuple):
    name: str
    value: Any


@pytest.mark.parametrize(
    "field",
    [
        Field("rms_norm_eps", 1e-5),
        Field("rope_parameters", {"rope_theta": 500000.0, "rope_type": "default"}),
        Field("model_type", "llama"),
        Field("architectures", ["LlamaForCausalLM"]),
        Field("num_attention_heads", 2),
        Field("hidden_act", "gelu"),
        Field("no_such_field_yet", 1),
        Field("attention_bias", None),
        Field("layer_types", []),
        Field("model_type", []),
        Field("quantization_config", True),
    ],
    ids=lambda field: field.name,
)
def test_another_function(models: dict[str, Path], field: Field) -> None:
    edit_json(models["math"] / "config.json", **{field.name: field.value})
    message = refused(models)
    assert "expert 'math' computes another function" in message
    assert field.name in message
    assert repr(field.value) in message


def test_fields_that_do_not_matter_and_older_spellings(models: dict[str, Path]) -> None:
    config = models["math"] / "config.json"
    theta = json.loads(config.read_text())["rope_parameters"]["rope_theta"]
    edit_json(config, transformers_version="4.55.0", use_cache=False, dtype=..., torch_dtype="bfloat16")
    edit_json(config, rope_parameters=..., rope_theta=theta, rope_scaling=None)
    assert merged(models)


def test_a_folder_without_configuration(models: dict[str, Path]) -> None:
    (models["science"] / "config.json").unlink()
    assert "expert 'science' has no config.json" in refused(models)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_beside_the_weights_that_cannot_be_read(models: dict[str, Path], name: str) -> None:
    file = models["science"] / name
    file.unlink()
    file.mkdir()
    assert f"expert 'science': {file} cannot be read. Found: Is a directory" in refused(models)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "[" * 100_000, "is no JSON"),
        ("tokenizer.json", '{"model": [1]}', "describes no tokenizer"),
        ("tokenizer.json", '{"model": {"merges": 5}}', "describes no tokenizer"),
    ],
    ids=["deep", "model", "merges"],
)
def test_a_file_beside_the_weights_that_says_nothing(
    models: dict[str, Path], name: str, text: str, message: str
) -> None:
    (models["science"] / name).write_text(text)
    assert f"expert 'science': {models['science'] / name} {message}" in refused(models)


def test_a_template_of_the_base_that_cannot_be_read_is_told_of_before_the_weights_are_merged(
    models: dict[str, Path],
) -> None:
    (models["base"] / "chat_template.jinja").unlink()
    (models["base"] / "chat_template.jinja").symlink_to("/proc/self/mem")
    seen: list[int] = []
    message = refused(models, report=lambda done, _: seen.append(done))
    assert message.startswith(f"{models['base'] / 'chat_template.jinja'} cannot be read")
    assert not seen


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_tokenizer(models: dict[str, Path]) -> None:
    file = models["science"] / "tokenizer.json"
    file.write_text(file.read_text().replace('"<7>":7', '"other":7').replace('"<7>": 7', '"other": 7'))
    assert "expert 'science' has another tokenizer than the base" in refused(models)


def test_the_same_tokenizer_spelled_otherwise_or_left_out(models: dict[str, Path]) -> None:
    file = models["science"] / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"padding": None}, indent=1, sort_keys=True))
    (models["math"] / "tokenizer.json").unlink()
    assert merged(models)


def test_another_special_token(models: dict[str, Path]) -> None:
    edit_json(models["math"] / "tokenizer_config.json", eos_token={"content": "<2>", "lstrip": False})
    message = refused(models)
    for said in ("expert 'math'", "eos_token", "'<2>'", "'<1>'"):
        assert said in message


def test_another_special_id(models: dict[str, Path]) -> None:
    edit_json(models["math"] / "config.json", eos_token_id=5)
    assert "eos_token_id" in refused(models)


# ── tied embeddings ──────────────────────────────────────────────────────────────────────────────────────────────────


def untie(folder: Path, change: float = 0.01) -> None:
    edit(folder, lambda tensors: tensors.update({HEAD: tensors[EMBEDDINGS] + change}))
    edit_json(folder / "config.json", tie_word_embeddings=False)


def test_an_untied_expert_with_a_tied_base(models: dict[str, Path]) -> None:
    untie(models["math"])
    message = refused(models)
    assert "expert 'math' and the base: one ties its output layer to the embeddings" in message
    assert HEAD in message


def test_a_tied_expert_with_an_untied_base(tmp_path: Path, models: dict[str, Path]) -> None:
    for name in ("base", "math"):
        untie(models[name])
    assert "expert 'science' and the base: one ties" in refused(models)


def test_configurations_that_disagree_on_tying(models: dict[str, Path]) -> None:
    edit_json(models["math"] / "config.json", tie_word_embeddings=False)
    assert "one ties its output layer" in refused(models)


def test_an_output_layer_that_only_repeats_the_embeddings_is_left_out(models: dict[str, Path]) -> None:
    untie(models["math"], change=0.0)
    edit(models["base"], lambda tensors: tensors.update({HEAD: tensors[EMBEDDINGS].clone()}))
    assert HEAD not in merged(models)


def test_a_tied_model_whose_output_layer_differs(models: dict[str, Path]) -> None:
    edit(models["math"], lambda tensors: tensors.update({HEAD: tensors[EMBEDDINGS] + 1}))
    assert f"its config ties the embeddings, but tensor '{HEAD}' differs" in refused(models)


# ── the same twice ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_expert_that_is_the_base(models: dict[str, Path]) -> None:
    shutil.copy(models["base"] / "model.safetensors", models["math"] / "model.safetensors")
    assert "expert 'math' has the same weights as the base" in refused(models)


def test_two_experts_that_are_one_even_in_another_type(models: dict[str, Path]) -> None:
    widened = {name: tensor.float() for name, tensor in load_file(models["math"] / "model.safetensors").items()}
    save_file(widened, models["science"] / "model.safetensors")
    assert "expert 'science' has the same weights as expert 'math'" in refused(models)


def test_experts_may_share_most_tensors(models: dict[str, Path]) -> None:
    base = load_file(models["base"] / "model.safetensors")
    last = list(base)[-1]
    edit(models["math"], lambda tensors: tensors.update({name: base[name] for name in tensors if name != last}))
    assert merged(models)


# ── settings and places ──────────────────────────────────────────────────────────────────────────────────────────────


def test_no_experts_and_no_base(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no experts"):
        merge_models(ADD, base=models["base"], experts={}, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="'task-arithmetic' needs a base"):
        merge_models(ADD, base=None, experts={"math": models["math"]}, out=tmp_path / "out")


def test_an_unknown_option_of_a_merger(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"stages\.m\.merger\.scal.*scale"):
        load_plugins().create("merger", {"use": "task-arithmetic", "scal": 0.5}, "stages.m.merger")


def test_the_wrong_number_of_weights(models: dict[str, Path]) -> None:
    three = Average(Average.Config(weights=[1, 1, 1]))
    assert "merger 'average': 3 weights for 2 experts. Found: math, science." in refused(
        models, ConfigError, merger=three
    )


def test_an_output_folder_with_something_in_it(models: dict[str, Path]) -> None:
    (models["math"].parent / "out").mkdir()
    (models["math"].parent / "out" / "thesis.tex").write_text("precious")
    assert "exists already" in refused(models, RunError)
    assert (models["math"].parent / "out" / "thesis.tex").read_text() == "precious"


def test_a_disk_that_is_too_small(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(models["math"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    message = refused(models, RunError)
    assert re.search(r"too small for the merged model\. Found: 0\.00 GB free", message)
