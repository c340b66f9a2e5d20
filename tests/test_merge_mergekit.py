"""mergekit's recipes: golden numbers of mergekit 0.1.5, its filters and gradients, refusals that name key and line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from m2rl_core.errors import ConfigError
from m2rl_core.merge import load_recipe, merge_recipe, mergekit
from m2rl_core.merge.mergekit.file import Depths
from m2rl_core.merge.mergekit.methods import ELSEWHERE, METHODS
from m2rl_core.registry import Registry
from m2rl_core.testing.family import family
from m2rl_core.weights import Writer

PLUGINS = ("average", "dare", "geometric", "sce", "sparse", "task_arithmetic", "ties")
BASE = [1.0] * 8
DELTAS = {
    "a": [4, -2, 1, 0.5, 0, 3, -1, 2],
    "b": [2, 3, -1, 0.5, 0, -3, -4, 0.25],
    "c": [-1, 1, -2, 0.5, 0, 0, 2, 8],
}
"""The golden cases' task vectors."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    found = Registry()
    for name in PLUGINS:
        found.register(import_module(f"m2rl_merger_{name}"), distribution=f"m2rl-merger-{name}")
    return found


def saved(folder: Path, values: Sequence[float], name: str = "w") -> None:
    folder.mkdir(parents=True)
    with Writer(folder, {name: (torch.float32, (len(values),))}) as writer:
        writer.write(name, 0, torch.tensor(values, dtype=torch.float32))
    (folder / "config.json").write_text("{}")


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """Models of one tensor, and the recipe's place."""
    saved(tmp_path / "base", BASE)
    for name, delta in DELTAS.items():
        saved(tmp_path / name, [1 + value for value in delta])
    return tmp_path / "recipe.yaml"


def recipe(
    method: str,
    each: Mapping[str, Any],
    shared: Mapping[str, Any] | None = None,
    base: str | None = "base",
    **more: Any,
) -> str:
    models = [{"model": name, "parameters": dict(given)} for name, given in each.items()]
    tree = {"merge_method": method, "models": models, "base_model": base, "parameters": shared, **more}
    return yaml.safe_dump({key: value for key, value in tree.items() if value is not None}, sort_keys=False)


def merged(file: Path, registry: Registry, text: str) -> dict[str, Tensor]:
    file.write_text(text)
    merge_recipe(load_recipe(file), registry, out=file.parent / "out")
    found: dict[str, Tensor] = load_file(file.parent / "out" / "model.safetensors")
    return found


ABC: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}
ONES: dict[str, dict[str, Any]] = {name: {"weight": 1.0} for name in ABC}
WEIGHED = {"a": {"weight": 1}, "b": {"weight": 0.5}, "c": {"weight": "0.25"}}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param(recipe("linear", ONES, base=None), [2.6667, 1.6667, 0.3333, 1.5, 1, 1, 0, 4.4167], id="G1"),
        pytest.param(recipe("task_arithmetic", ONES), [6, 3, -1, 2.5, 1, 1, -2, 11.25], id="G2"),
        pytest.param(
            recipe("task_arithmetic", WEIGHED, {"lambda": 0.5}),
            [3.375, 0.875, 1, 1.4375, 1, 1.75, -0.25, 3.0625],
            id="G3",
        ),
        pytest.param(
            recipe("ties", {"a": {"weight": 1.0}, "b": {"weight": 1.0}}, {"density": 0.5}),
            [4, 4, 1, 1, 1, 4, -3, 3],
            id="G4",
        ),
        pytest.param(
            recipe("ties", {"a": {"weight": 1.0, "density": 0.25}, "b": {"weight": 1.0, "density": 0.75}}),
            [4, 4, 0, 1.5, 1, 4, -3, 1],
            id="a density of each",
        ),
        pytest.param(  # a gradient from 0 to 1 is 0 at a tensor that belongs to no layer
            recipe(
                "ties",
                {"a": {"weight": 1.0, "density": 0.25}, "b": {"weight": [0, 1]}, "c": {"weight": 0.5}},
                {"density": 0.375},
            ),
            [5, 1, -1, 1, 1, 4, 3, 9],
            id="a weight of zero",
        ),
        pytest.param(recipe("ties", {"a": {"weight": 0}, "b": {"weight": 0.0}}), BASE, id="weights of zero"),
        pytest.param(  # signs are elected among weighted task vectors, and what agrees is summed
            recipe("ties", {"a": {"weight": 1.0}, "b": {"weight": 2.0}}, {"normalize": False, "lambda": 0.5}),
            [1 + value / 2 for value in (8, 6, -2, 1.5, 0, -6, -9, 2.5)],
            id="ties summed",
        ),
        pytest.param(
            recipe("dare_ties", {"a": {"weight": 1.0}, "b": {"weight": 2.0}}, {"lambda": 0.5}),
            [1 + value / 2 for value in (8, 6, -2, 1.5, 0, -6, -9, 2.5)],
            id="nothing dropped",
        ),
        pytest.param(recipe("dare_linear", ONES, {"rescale": False}), [6, 3, -1, 2.5, 1, 1, -2, 11.25], id="all kept"),
        pytest.param(
            recipe("sce", ABC),
            [3.94552, 2.69235, -0.653825, 1.5, 1, 4, -1.58173, 5.53139],
            id="G9",
        ),
        pytest.param(
            recipe("sce", ABC, {"select_topk": 0.5, "int8_mask": True}), [1, 1, 1, 1, 1, 4, -1.9248, 6.4012], id="G10"
        ),
        pytest.param(
            recipe("model_stock", ABC),
            [0.97298, 0.989192, 1.010808, 0.991894, 1, 1, 1.016212, 0.94461],
            id="G14",
        ),
        pytest.param(  # of 8 entries the largest is dropped, and the next two are kept
            recipe("breadcrumbs", {"c": {"weight": 1.0, "density": 0.25, "gamma": 0.125}}),
            [1, 1, -1, 1, 1, 1, 3, 1],
            id="breadcrumbs",
        ),
        pytest.param(
            recipe("task_arithmetic", {"a": {"weight": 3.0}, "b": {"weight": 1.0}}, {"normalize": True}),
            [1 + (3 * a + b) / 4 for a, b in zip(DELTAS["a"], DELTAS["b"], strict=True)],
            id="normalized",
        ),
        pytest.param(  # the base is merged like the others, and has the weight that all have
            recipe("linear", {"a": {"weight": 3.0}}, {"weight": 1.0}),
            [1 + 3 * a / 4 for a in DELTAS["a"]],
            id="linear with the base",
        ),
    ],
)
def test_golden_numbers(golden: Path, registry: Registry, text: str, wanted: list[float]) -> None:
    found = merged(golden, registry, text)["w"]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float32), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (recipe("slerp", {"v0": {}, "v1": {}}, {"t": 0.25}, "v0"), [0.849237, 0.647659, 0, 1.173067]),
        (recipe("slerp", {"v0": {}, "v1": {}}, {"t": 0.75}, "v1"), [0.849237, 0.647659, 0, 1.173067]),
        (recipe("slerp", {"v1": {}}, {"t": 0.25}, "v0"), [0.849237, 0.647659, 0, 1.173067]),
        (recipe("karcher", {"v0": {}, "v1": {}}, base=None), [0.795428, 1.006146, 0, 1.298501]),
        (recipe("karcher", {"v0": {}}, base="v1"), [0.795428, 1.006146, 0, 1.298501]),
    ],
)
def test_golden_angles(tmp_path: Path, registry: Registry, text: str, wanted: list[float]) -> None:
    """Case G13; ``t`` goes from the base to the other model, whatever their order."""
    saved(tmp_path / "v0", [1, 0, 0, 1])
    saved(tmp_path / "v1", [0, 2, 0, 1])
    found = merged(tmp_path / "recipe.yaml", registry, text)["w"]
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def test_what_dare_keeps_has_the_l1_norm_of_all(golden: Path, registry: Registry) -> None:
    found = merged(golden, registry, recipe("dare_linear", {"a": {"weight": 1.0}}, {"density": 0.5}))["w"] - 1
    delta = torch.tensor(DELTAS["a"])
    kept = found != 0
    assert 0 < kept.sum() < (delta != 0).sum()
    torch.testing.assert_close(
        found[kept] / delta[kept], (delta.abs().sum() / delta[kept].abs().sum()).expand(kept.sum())
    )


@pytest.mark.parametrize("method", ["breadcrumbs", "della", "della_linear"])
def test_a_density_of_each_model(golden: Path, method: str) -> None:
    golden.write_text(recipe(method, {"a": {"density": 0.3}, "b": {"density": 0.6}}, {"weight": 1.0}))
    assert load_recipe(golden).recipe.merger["density"] == [0.3, 0.6]


def test_a_density_of_each_is_a_rate_of_each(golden: Path, registry: Registry) -> None:
    """What is dropped of one model alone and beside others is the same; a density of 1 keeps all."""
    each = {"a": {"weight": 1.0, "density": 0.5}, "b": {"weight": 1.0, "density": 1.0}}
    both = merged(golden, registry, recipe("dare_linear", each))["w"]
    (golden.parent / "out").rename(golden.parent / "both")
    alone = merged(golden, registry, recipe("dare_linear", {"a": each["a"]}))["w"]
    torch.testing.assert_close(both - alone, torch.tensor(DELTAS["b"]))
    golden.write_text(recipe("dare_ties", each))
    assert load_recipe(golden).recipe.merger["rate"] == [0.5, 0.0]
    assert load_recipe(golden).recipe.merger["then"]["density"] == 1.0


# ── filters and gradients ────────────────────────────────────────────────────────────────────────────────────────────

LAYERS = 5


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return family(tmp_path, num_hidden_layers=LAYERS, dtype=torch.float32, moved=0.01)["base"].parent


def test_filters_and_gradients_go_tensor_by_tensor(models: Path, registry: Registry) -> None:
    """As mergekit does it: what is in no layer has the first layer's value, also what comes after the last."""
    text = """
    merge_method: task_arithmetic
    base_model: base
    models:
      - model: math
        parameters:
          weight:
            - {filter: self_attn, value: [0.0, 1.0]}
            - {filter: mlp, value: 0.25}
            - value: [0.5, 0.1, 0.9]
      - model: science
    parameters: {weight: 0.75}
    """
    out = merged(models / "recipe.yaml", registry, text)
    base, math, science = (load_file(models / name / "model.safetensors") for name in ("base", "math", "science"))
    for name, start in base.items():
        layer = int(name.split(".")[2]) if ".layers." in name else 0
        rest = [0.5, 0.3, 0.1, 0.5, 0.9][layer]
        weight = layer / (LAYERS - 1) if "self_attn" in name else 0.25 if "mlp" in name else rest
        wanted = start + weight * (math[name] - start) + 0.75 * (science[name] - start)
        torch.testing.assert_close(out[name], wanted, rtol=1e-6, atol=1e-7)
    assert len(out) == len(base)


def test_whole_slices_are_models(models: Path, registry: Registry) -> None:
    sources = [{"model": name, "layer_range": [0, LAYERS]} for name in ("science", "math")]
    sliced = {"slices": [{"sources": sources}], "merge_method": "slerp", "base_model": "math", "parameters": {"t": 0.3}}
    one = merged(models / "recipe.yaml", registry, yaml.safe_dump(sliced))
    (models / "out").rename(models / "first")
    other = merged(models / "recipe.yaml", registry, recipe("slerp", {"science": {}}, {"t": 0.3}, "math"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_depth() -> None:
    depths = Depths(["emb", *(f"model.layers.{i}.mlp.experts.9.w" for i in range(3)), "norm"])
    assert [depths.of(f"model.layers.{i}.mlp.experts.9.w") for i in range(3)] == [0.0, 0.5, 1.0]
    assert [depths.of("emb"), depths.of("norm")] == [0.0, 0.0]
    assert Depths(["h.0.w"]).of("h.0.w") == 1.0


# ── what else the file says ──────────────────────────────────────────────────────────────────────────────────────────


def test_types_names_and_notes(golden: Path) -> None:
    text = recipe(
        "task_arithmetic",
        {"base": {"weight": 1.0}, **ONES},
        {"int8_mask": True, "density": 0.5},
        dtype="bfloat16",
        out_dtype="float16",
        tokenizer_source="base",
    )
    golden.write_text(text)
    loaded = load_recipe(golden)
    assert loaded.recipe.dtype == "float16"
    assert loaded.recipe.base == str(golden.parent / "base")
    assert list(loaded.recipe.experts) == ["a", "b", "c"]
    for said in (
        "Parameters of the base (weight)",
        "'int8_mask' is ignored",
        "'density' is ignored",
        "bfloat16",
        "token",
    ):
        assert sum(said in note for note in loaded.notes) == 1
    assert len(loaded.notes) == 5


def test_folders_of_one_name_are_told_apart(golden: Path) -> None:
    saved(golden.parent / "two" / "a", [2.0] * 8)
    golden.write_text(recipe("linear", {"a": {}, "two/a": {}}, {"weight": 1.0}, base=None))
    folders = [str(golden.parent / name) for name in ("a", "two/a")]
    assert load_recipe(golden).recipe.experts == {folder: folder for folder in folders}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_becomes_settings_that_its_merger_takes(models: Path, registry: Registry, method: str) -> None:
    needed = {key: 0.5 for key, default in METHODS[method].shared.items() if default is None}
    own: dict[str, Any] = dict.fromkeys(METHODS[method].each, 0.5)
    own |= {"density": 0.6} if "density" in own else {}
    own |= {"epsilon": 0.2} if "epsilon" in own else {}
    needed |= {"weight": 0.5} if method == "linear" else {}  # of the base, which is merged like the others
    names = ["math"] if method == "slerp" else ["math", "science"]
    out = merged(models / "recipe.yaml", registry, recipe(method, dict.fromkeys(names, own), needed))
    base = load_file(models / "base" / "model.safetensors")
    assert any(not torch.equal(out[name], base[name]) for name in base)
    assert all(torch.isfinite(tensor).all() for tensor in out.values())


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────

TA = """\
merge_method: task_arithmetic
base_model: base
models:
  - model: a
    parameters: {weight: 1.0}
  - model: b
    parameters: {weight: 0.5}
parameters: {normalize: false}
dtype: float32
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("weight: 0.5", "densty: 0.5", "7: models[1].parameters.densty: unknown key. Did you mean 'density'?"),
        ("weight: 0.5", "weight: much", "7: models[1].parameters.weight: should be a number, a list of numbers, or "),
        ("{weight: 0.5}", "{}", "models[1].parameters.weight: this key is required."),
        ("base_model", "base_modle", "2: base_modle: unknown key. Did you mean 'base_model'?"),
        ("base_model: base\n", "", "base_model: this key is required: task_arithmetic needs a base."),
        (
            "task_arithmetic",
            "task-arithmetic",
            "1: merge_method: 'task-arithmetic' is not known. Did you mean 'task_ar",
        ),
        ("task_arithmetic", "nuslerp", "1: merge_method: 'nuslerp' is not read by m2rl. Allowed: "),
        ("- model: b", "- model: org/name", "6: models[1].model: there is no folder "),
        ("- model: b", "- model: b+lora", "6: models[1].model: only a model's folder can be merged; merge a LoRA into"),
        ("- model: b", "- model: a", "6: models[1].model: "),
        ("dtype: float32", "chat_template: auto", "9: chat_template: the base's template is the result's"),
        ("dtype: float32", "modules: {text: 1}", "9: modules: models of several modules"),
        ("dtype: float32", "dtype: int8", "9: dtype: should be 'float32', 'bfloat16' or 'float16'"),
        ("dtype: float32", "tokenizer: {source: union, pad_to_multiple_of: 8}", "9: tokenizer.pad_to_multiple_of: the"),
        ("models:", "slices: [{sources: [{model: a}]}]\nmodels:", "name the inputs under 'models', or under 'slices'"),
        (
            "weight: 0.5",
            "weight: {value: 1, only: mlp}",
            "7: models[1].parameters.weight: 'only' is no key of a filter",
        ),
        ("weight: 0.5", "weight: [true, 1]", "7: models[1].parameters.weight: a gradient is of numbers"),
        (
            "weight: 1.0",
            "weight: [{filter: mlp, value: 1}]",
            "5: models[0].parameters.weight: this key is required for 'w'",
        ),
    ],
)
def test_refusals_name_key_and_line(golden: Path, old: str, new: str, said: str) -> None:
    assert old in TA
    golden.write_text(TA.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_recipe(golden)
    assert f"recipe.yaml:{said}" in str(caught.value) or (not said[0].isdigit() and said in str(caught.value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            recipe("linear", ONES, {"normalize": False}, None),
            "parameters.normalize: an average has weights that sum to 1",
        ),
        (
            recipe("model_stock", ABC, {"filter_wise": True}),
            "parameters.filter_wise: model-stock measures the angle of w",
        ),
        (recipe("breadcrumbs", ONES, {"rescale": True}), "parameters.rescale: what is kept is not rescaled here"),
        (recipe("ties", ONES, {"rescale": True}), "parameters.rescale: what is kept is not rescaled here"),
        (recipe("della", ONES, {"rescale": False, "density": 0.5}), "parameters.rescale: DELLA rescales what it keeps"),
        (
            recipe("breadcrumbs", {"a": {"gamma": 0.1}, "b": {"gamma": 0.2}}, {"weight": 1}),
            "models[0].parameters.gamma: one gamma holds for all experts, found 0.1, 0.2",
        ),
        (
            recipe("ties", {"a": {"weight": 1.0}, "b": {"weight": -0.5}}),
            "models[1].parameters.weight: signs are elected by weights, of which none may be negative, found -0.5",
        ),
        (recipe("della", ONES, {"normalize": False, "density": 0.5}), "parameters.normalize: DELLA averages"),
    ],
)
def test_settings_that_no_merger_has(golden: Path, text: str, said: str) -> None:
    golden.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(golden)
    place, _, key = said.partition(":")[0].rpartition(".")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if f"{key}:" in line]
    assert f"recipe.yaml:{lines[place == 'models[1].parameters']}: {said}" in str(caught.value)


def test_excerpts_of_models_are_refused(models: Path) -> None:
    file = models / "recipe.yaml"
    sources = [{"model": name, "layer_range": [0, 3]} for name in ("science", "math")]
    tree = {"merge_method": "linear", "slices": [{"sources": sources}], "parameters": {"weight": 1}}
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    with pytest.raises(ConfigError, match=r"sources\[1\]\.layer_range: all of a model's layers are merged, \[0, 5\]"):
        load_recipe(file)
    file.write_text(yaml.safe_dump({**tree, "slices": [{"sources": sources}] * 2}, sort_keys=False))
    with pytest.raises(ConfigError, match=r"slices\[1\]: layers of several models cannot be stacked"):
        load_recipe(file)


def test_a_mergers_own_complaint_names_the_method(golden: Path, registry: Registry) -> None:
    golden.write_text(recipe("sce", ABC, {"select_topk": 2.0}))
    with pytest.raises(ConfigError, match=r"recipe\.yaml:1: sce: merger\.tau: .* found 2\.0"):
        merge_recipe(load_recipe(golden), registry, out=golden.parent / "out")


def test_the_documentation_lists_every_method() -> None:
    text = (Path(mergekit.__file__).parent / "README.md").read_text()
    rows = [line.split("|")[1].strip().strip("`") for line in text.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row in METHODS] == list(METHODS)
    assert all(f"`{name}`" in text for name in ELSEWHERE)


def test_the_card_has_our_recipe(golden: Path, registry: Registry) -> None:
    merged(golden, registry, recipe("sce", ABC))
    card = (golden.parent / "out" / "README.md").read_text()
    found = yaml.safe_load(card.partition("```yaml\n")[2].partition("```")[0])
    assert found["merger"] == {"use": "sce", "tau": 1.0, "semantics": "mergekit"}
    assert json.loads(json.dumps(found))["experts"]["a"] == str(golden.parent / "a")
