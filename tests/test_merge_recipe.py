"""Recipes of merges: read with complaints at their lines, several mergers to a model, remarks on the inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from m2rl_core.errors import ConfigError
from m2rl_core.interfaces import ComponentConfig, Merger, Pass
from m2rl_core.merge import Parted, load_recipe, merge_models, merge_recipe
from m2rl_core.plugins import load_plugins
from m2rl_core.testing.family import family
from m2rl_core.types import Block, Stats
from m2rl_core.weights import fingerprint
from m2rl_merger_average import Average
from m2rl_merger_task_arithmetic import TaskArithmetic

RECIPE = """\
merger: {use: task-arithmetic, scale: 0.5}
base: models/base
experts:
  math: models/math
  science: models/science
dtype: float32
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    family(tmp_path / "models")
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return file


def refused(file: Path, text: str) -> str:
    """The message, without the folder, for a file of ``text``."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(file)
    return str(caught.value).replace(f"{file.parent}/", "")


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return found


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recipe_does_what_its_settings_say(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders start from the recipe, wherever one is."""
    root = recipe.parent
    monkeypatch.chdir("/")
    merge_recipe(load_recipe(recipe), load_plugins(), out=root / "out")
    models = root / "models"
    merge_models(
        TaskArithmetic(TaskArithmetic.Config(scale=0.5)),
        base=models / "base",
        experts={name: models / name for name in ("math", "science")},
        out=root / "by-hand",
        dtype="float32",
    )
    found = [(root / out / "model.safetensors").read_bytes() for out in ("out", "by-hand")]
    assert found[0] == found[1]


def test_the_cards_recipe_merges_again_to_the_same_bytes(recipe: Path) -> None:
    root = recipe.parent
    recipe.write_text(RECIPE + "parts: [{tensors: ['*mlp*', model.norm.weight], merger: average}]\n")
    merge_recipe(load_recipe(recipe), load_plugins(), out=root / "one")
    card = (root / "one" / "README.md").read_text()
    again = root / "again" / "recipe.yaml"
    again.parent.mkdir()
    again.write_text(card.partition("```yaml\n")[2].partition("```")[0])
    merge_recipe(load_recipe(again), load_plugins(), out=root / "two")
    found = [(root / out / "model.safetensors").read_bytes() for out in ("one", "two")]
    assert found[0] == found[1]
    assert TaskArithmetic.reference in card
    assert Average.reference in card


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("dtype:", "dtyp:"), "recipe.yaml:6: dtyp: unknown key. Did you mean 'dtype'?"),
        (("float32", "int8"), "recipe.yaml:6: dtype: should be 'float32', 'bfloat16' or 'float16', found 'int8'."),
        (("math: models/math", "math: models/mth"), "recipe.yaml:4: experts.math: there is no folder models/mth."),
        (
            ("models/base", "./base"),
            "recipe.yaml:2: base: there is no folder base. Folders start from the recipe's own.",
        ),
        (("base:", "math: 1\nbase:"), "recipe.yaml:2: math: unknown key."),
        (("{use: task-arithmetic, scale: 0.5}", "{scale: 0.5}"), "recipe.yaml:1: merger: needs a component's name"),
        (("dtype: float32", "parts: [{tensors: [], merger: average}]"), "recipe.yaml:6: parts[0].tensors: "),
        (("dtype: float32", "base: models/math"), "recipe.yaml:6: key 'base' is already there on line 2"),
    ],
)
def test_complaints_name_the_line(recipe: Path, change: tuple[str, str], said: str) -> None:
    assert said in refused(recipe, RECIPE.replace(*change))


def test_all_complaints_come_at_once(recipe: Path) -> None:
    assert len(refused(recipe, "merger: average\nexpert: {}\n").splitlines()) == 2
    assert "should hold keys such as 'merger' and 'experts'" in refused(recipe, "- 1\n")


def test_a_mergers_own_complaints_name_the_line(recipe: Path) -> None:
    recipe.write_text("\n" + RECIPE.replace("scale", "scal"))
    with pytest.raises(ConfigError, match=r"recipe\.yaml:2: merger\.scal: unknown key\. Did you mean 'scale'\?"):
        merge_recipe(load_recipe(recipe), load_plugins(), out=recipe.parent / "out")
    recipe.write_text(RECIPE + "parts:\n  - {tensors: ['*'], merger: {use: average, weight: 1}}\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml:8: parts\[0\]\.merger\.weight: unknown key"):
        merge_recipe(load_recipe(recipe), load_plugins(), out=recipe.parent / "out")


# ── several mergers to a model ───────────────────────────────────────────────────────────────────────────────────────


class Wide(Merger):
    """A merger that measures the whole model, or needs more than weights, or makes two models."""

    name: ClassVar[str] = "wide"
    reference: ClassVar[str] = "test"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    granularity: Literal["block", "rows", "tensor"] = "block"
    needs_base = False

    def __init__(self, what: str) -> None:
        self.what = what
        self.needs = frozenset({"gram"}) if what == "gram" else frozenset()

    def outputs(self) -> list[str]:
        return ["", "two"] if self.what == "two" else [""]

    def passes(self) -> list[Pass]:
        return [Whole()] if self.what == "whole" else []

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        return [block.experts_E[0].clone()] * len(self.outputs())


class Whole(Pass):
    name = "whole"
    scope: Literal["model", "tensor"] = "model"

    def measure(self, block: Block, stats: Stats) -> int:
        return 1

    def combine(self, left: int, right: int) -> int:
        return left + right


def parted(folder: Path, *parts: Parted, merger: Merger | None = None) -> Path:
    models = {path.name: path for path in sorted((folder / "models").iterdir())}
    merge_models(
        merger or TaskArithmetic(TaskArithmetic.Config()),
        base=models.pop("base"),
        experts=models,
        out=folder / "out",
        dtype="float32",
        parts=parts,
        threads=2,
    )
    return folder / "out"


def test_the_first_part_that_names_a_tensor_merges_it(recipe: Path) -> None:
    root = recipe.parent
    half = TaskArithmetic(TaskArithmetic.Config(scale=0.5))
    out = weights(parted(root, Parted(["*mlp*"], Average(Average.Config())), Parted(["*.layers.1.*"], half)))
    base, math, science = (weights(root / "models" / name) for name in ("base", "math", "science"))
    seen = set()
    for name, start in base.items():
        moved = math[name].float() + science[name].float() - 2 * start.float()
        share = 0.5 if "mlp" in name or ".layers.1." in name else 1.0
        seen.add((share, "mlp" in name))
        torch.testing.assert_close(out[name], start.float() + share * moved, rtol=1e-6, atol=1e-7)
    assert len(seen) == 3


def test_parts_count_bytes_and_fingerprints_of_the_whole_model(recipe: Path) -> None:
    models = {name: recipe.parent / "models" / name for name in ("math", "science")}
    told: list[tuple[int, int]] = []
    found = merge_models(
        Average(Average.Config()),
        base=None,
        experts=models,
        out=recipe.parent / "out",
        parts=[Parted(["*mlp*"], Average(Average.Config())), Parted(["*attn*"], Average(Average.Config()))],
        report=lambda done, total: told.append((done, total)),
    )
    size = 2 * sum(tensor.nbytes for tensor in weights(models["math"]).values())
    assert told[-1] == (size, size)
    assert {total for _, total in told} == {size}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert found.fingerprints == {name: fingerprint(path) for name, path in models.items()}
    assert found.survey.size == sum(tensor.numel() for tensor in weights(models["math"]).values())


def test_a_pattern_without_a_tensor_is_a_mistake(recipe: Path) -> None:
    part = Parted(["model.norm.wight"], Average(Average.Config()))
    with pytest.raises(
        ConfigError, match=r"the base has no tensor 'model\.norm\.wight'\. Did you mean 'model\.norm\.we"
    ):
        parted(recipe.parent, part)
    assert not (recipe.parent / "out").exists()


@pytest.mark.parametrize(
    ("what", "said"), [("whole", "measures the whole model"), ("gram", "needs evidence"), ("two", "has other outputs")]
)
def test_mergers_that_cannot_share_a_model(recipe: Path, what: str, said: str) -> None:
    part = Parted(["*mlp*"], Average(Average.Config()))
    with pytest.raises(ConfigError, match=f"merger 'wide' {said}"):
        parted(recipe.parent, part, merger=Wide(what))
    with pytest.raises(ConfigError, match=f"merger 'wide' {said.replace('has other outputs', 'makes several models')}"):
        parted(recipe.parent, Parted(["*mlp*"], Wide(what)))


# ── what is told of the inputs ───────────────────────────────────────────────────────────────────────────────────────


def edit_field(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def to_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ other }}")


def to_template_in_the_tokenizer(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    edit_field(folder / "tokenizer_config.json", chat_template="{{ other }}")


def to_stops(folder: Path) -> None:
    edit_field(folder / "generation_config.json", eos_token_id=[1, 2])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (to_template, "Expert 'math' has another chat template than the base; the result will have that of the base."),
        (to_template_in_the_tokenizer, "Expert 'math' has another chat template than the base"),
        (to_stops, "Expert 'math' stops at other tokens than the base (generation_config.json: eos_token_id [1, 2], "),
    ],
)
def test_an_experts_files_that_the_result_will_not_have(
    recipe: Path, change: Callable[[Path], None], said: str
) -> None:
    change(recipe.parent / "models" / "math")
    found = merge_recipe(load_recipe(recipe), load_plugins(), out=recipe.parent / "out")
    [warning] = found.warnings
    assert said in warning
    assert warning in (recipe.parent / "out" / "README.md").read_text()


def test_an_expert_of_a_coarser_type_than_the_base(recipe: Path) -> None:
    base = recipe.parent / "models" / "base"
    save_file({name: tensor.float() for name, tensor in weights(base).items()}, base / "model.safetensors")
    found = merge_recipe(load_recipe(recipe), load_plugins(), out=recipe.parent / "out")
    assert len(found.warnings) == 2
    assert "of expert 'math' is stored as torch.bfloat16, that of the base as torch.float32" in found.warnings[0]


@pytest.mark.parametrize("names", [("math", "science"), ("science", "math")])
def test_without_a_base_the_first_expert_gives_the_files(recipe: Path, names: tuple[str, str]) -> None:
    to_template(recipe.parent / "models" / "math")
    experts = "".join(f"  {name}: models/{name}\n" for name in names)
    recipe.write_text(f"merger: average\nexperts:\n{experts}")
    found = merge_recipe(load_recipe(recipe), load_plugins(), out=recipe.parent / "out")
    assert f"'{names[1]}' has another chat template than expert '{names[0]}'" in found.warnings[0]
    wanted = (recipe.parent / "models" / names[0] / "chat_template.jinja").read_text()
    assert (recipe.parent / "out" / "chat_template.jinja").read_text() == wanted
    assert (recipe.parent / "out" / "generation_config.json").exists()


def test_relatives_cause_no_remark(recipe: Path) -> None:
    assert not merge_recipe(load_recipe(recipe), load_plugins(), out=recipe.parent / "out").warnings


def test_no_expert_may_be_called_base_beside_one(recipe: Path) -> None:
    tree = yaml.safe_load(RECIPE)
    recipe.write_text(yaml.safe_dump(tree | {"experts": {"base": "models/math"}}))
    with pytest.raises(ConfigError, match="an expert cannot be called 'base'"):
        merge_recipe(load_recipe(recipe), load_plugins(), out=recipe.parent / "out")
