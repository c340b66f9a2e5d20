"""The analyzer on small checkpoints: its tables by hand, its claims, and what every analyzer must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from m2rl_analyzer_weight_shift import WeightShift
from m2rl_analyzer_weight_shift.measures import Shifts, default_layer, jaccard, random_jaccard, shares
from m2rl_analyzer_weight_shift.names import Place
from m2rl_analyzer_weight_shift.tally import Tally
from m2rl_core.errors import DataError
from m2rl_core.interfaces import Lab
from m2rl_core.testing import AnalyzerContract
from m2rl_core.testing.family import family
from m2rl_core.types import Claim, Findings, Way

Q, DOWN = "model.layers.{}.self_attn.q_proj.weight", "model.layers.{}.mlp.down_proj.weight"


@dataclass
class Folders(Lab):
    """A lab over bare model folders."""

    models: Mapping[str, Path]
    experts: Mapping[str, str] = field(default_factory=dict)
    arms: Mapping[str, Way] = field(default_factory=dict)
    start: str | None = "base"


def analyse(lab: Folders, **settings: object) -> Findings:
    return WeightShift(WeightShift.Config.model_validate(settings)).run(lab)


def written(folder: Path, models: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Path]:
    for name, tensors in models.items():
        (folder / name).mkdir(parents=True)
        save_file(dict(tensors), folder / name / "model.safetensors")
    return {name: folder / name for name in models}


def trained(folder: Path, shared: float, own: float, layers: int = 3) -> dict[str, Path]:
    """A base and four experts; each has changed a share of weights that all have, in one direction, and its own."""
    names = [form.format(layer) for layer in range(layers) for form in (Q, DOWN)]
    noise = torch.Generator().manual_seed(11)
    base = {name: torch.randn(60, 80, generator=noise) for name in names}
    common = {name: (torch.rand(60, 80, generator=noise) < shared) * 0.1 for name in names}
    models = {"base": base}
    for domain in ("math", "coding", "if", "agent"):
        alone = {name: (torch.rand(60, 80, generator=noise) < own) * torch.randn(60, 80, generator=noise) * 0.1
                 for name in names}  # fmt: skip
        models[domain] = {name: (base[name] + common[name] + alone[name]).bfloat16() for name in names}
    models["base"] = {name: tensor.bfloat16() for name, tensor in base.items()}
    return written(folder, models)


def claim(found: Findings, words: str) -> Claim:
    [one] = [each for each in found.claims if words in each.statement]
    return one


class TestWeightShift(AnalyzerContract):
    analyzer = WeightShift(WeightShift.Config())

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        models = family(tmp_path, 3)
        self.folders = Folders(models, {"math": "math", "science": "science", "coding": "coding"})

    def lab(self) -> Lab:
        return self.folders


class TestOneModelAlone(AnalyzerContract):
    analyzer = WeightShift(WeightShift.Config())

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folders = Folders(family(tmp_path, 1))

    def lab(self) -> Lab:
        return self.folders


def test_four_weights_by_hand(tmp_path: Path) -> None:
    """math changes the first two weights of four and coding the last three: they share one."""
    base, moved = torch.ones(2, 2), torch.full((2, 2), 0.5)
    masks = {"math": [[1, 1], [0, 0]], "coding": [[0, 1], [1, 1]]}
    models = {name: {Q.format(0): base + moved * torch.tensor(mask)} for name, mask in masks.items()}
    found = analyse(Folders(written(tmp_path, {"base": {Q.format(0): base}, **models})))
    assert [row[1:5] for row in found.tables["changed"].rows] == [["float32", 50, 50, 50], ["float32", 75, 75, 75]]
    pair, chance, paper = found.tables["jaccard-layer"].rows
    assert pair[:2] == ["math - coding", 1 / 4]
    assert chance[:2] == ["math - coding, random masks", pytest.approx(0.375 / (1.25 - 0.375))]
    assert paper[1] == pytest.approx(0.18, abs=0.005)
    assert pair[2:] == [None] * 6, "weight types that the model lacks are missing"
    [row] = found.tables["cosine"].rows
    assert row[1:3] == pytest.approx([1, 1])
    assert row[3:5] == [None, None]


def test_the_random_reference_adds_up_tensors_of_different_shares() -> None:
    """Half of one tensor and nothing of another: by chance they overlap as within the first alone."""
    both = np.zeros((3, 2, 2), np.int64)
    both[0] = [[50, 20], [20, 50]]
    busy, still = Tally.zero(2), Tally.zero(2)
    busy.size, still.size, busy.both_REE = 100, 100, both
    assert shares([busy, still]).tolist() == [0.25, 0.25]
    assert jaccard([busy, still])[0, 1] == 20 / 80
    assert random_jaccard([busy, still])[0, 1] == pytest.approx(0.25 / 0.75)


@pytest.mark.parametrize(("layers", "wanted"), [(36, 17), (28, 17), (12, 5), (2, 0), (1, 0)])
def test_the_layer_of_the_paper_or_its_relative_depth(layers: int, wanted: int) -> None:
    assert default_layer(range(layers)) == wanted


def test_sparse_shifts_that_share_weights_and_direction(tmp_path: Path) -> None:
    domains = ("math", "coding", "if", "agent")
    found = analyse(Folders(trained(tmp_path, 0.2, 0.1), {d: d for d in domains}))
    sparse, overlap, aligned = (claim(found, words) for words in ("minority", "overlap more", "same way"))
    assert [each.verdict for each in (sparse, overlap, aligned)] == ["holds"] * 3
    assert sparse.statistic == pytest.approx(0.2 + 0.1 - 0.02, abs=0.01)
    assert overlap.statistic is not None
    assert overlap.statistic > 0.3
    assert claim(found, "Reasoning").verdict == "undecided", "no two domains are more alike here"
    assert set(found.figures) == {"changed-by-layer", "jaccard-by-layer", "cosine-attention", "cosine-ffn"}
    assert len(found.tables["jaccard"].rows) == 6 + 6 + 1
    assert [row[:2] for row in found.tables["changed-by-layer"].rows[:5]] == [*([d, 0] for d in domains), ["math", 1]]
    observed, chance = found.figures["jaccard-by-layer"].series.values()
    assert len(observed) == 3
    assert all(a is not None and b is not None and a > b + 0.3 for a, b in zip(observed, chance, strict=True))


def test_independent_shifts_neither_overlap_nor_align(tmp_path: Path) -> None:
    found = analyse(Folders(trained(tmp_path, 0.0, 0.3, layers=8)))
    assert claim(found, "minority").verdict == "holds"
    aligned = claim(found, "same way")
    assert aligned.verdict == "undecided"
    assert aligned.statistic == pytest.approx(0, abs=0.05)


def test_reasoning_domains_that_are_more_alike(tmp_path: Path) -> None:
    models = trained(tmp_path, 0.2, 0.1)
    found = analyse(
        Folders({**models, "coding": models["math"]}, {"m": "math", "c": "coding", "i": "if"}), reasoning=["m", "c"]
    )
    assert claim(found, "Reasoning").verdict == "holds"
    alone = analyse(Folders(models, {"i": "if", "a": "agent"}))
    assert claim(alone, "Reasoning").verdict == "not measurable"


def test_masks_that_hold_nearly_everything_are_called_uninformative(tmp_path: Path) -> None:
    found = analyse(Folders(trained(tmp_path, 0.95, 0.1)))
    assert {row[-1] for row in found.tables["changed"].rows} == {"uninformative: 95% of the projections"}
    overlap = claim(found, "overlap more")
    assert (overlap.verdict, overlap.statistic) == ("not measurable", None)
    assert "uninformative" in overlap.note


def test_of_models_that_equal_their_base_nothing_is_claimed(tmp_path: Path) -> None:
    base = trained(tmp_path, 0.2, 0.1)["base"]
    found = analyse(Folders({"base": base, "math": base, "coding": base}, {"m": "math", "c": "coding"}))
    assert {each.verdict for each in found.claims} == {"not measurable"}
    assert claim(found, "minority").note == claim(found, "overlap more").note == "no weight has changed"


def test_one_model_has_no_pairs(tmp_path: Path) -> None:
    models = trained(tmp_path, 0.2, 0.1)
    found = analyse(Folders({"base": models["base"], "math": models["math"]}))
    assert set(found.tables) == {"changed", "changed-by-type", "changed-by-layer"}
    assert claim(found, "same way").verdict == "not measurable"


def test_a_lower_pair_is_low_by_chance_unless_it_stands_out() -> None:
    """A pair that points the opposite way in every tensor makes the claim fail."""
    places = {}
    for layer in range(6):
        tally = Tally.zero(2)
        tally.size = 100
        tally.both_REE[:] = 30
        tally.dots_EE[:] = -0.5 - 0.01 * layer
        tally.squares_EE[:] = 1
        places[Place(layer, "q")] = tally
    from m2rl_analyzer_weight_shift.claims import claims

    shifts = Shifts(["math", "coding"], places, Tally.zero(2))
    [aligned] = [each for each in claims(shifts, {}, []) if "same way" in each.statement]
    assert aligned.verdict == "fails"
    assert aligned.statistic == pytest.approx(-0.525)


def test_experts_are_compared_and_other_models_left_alone(tmp_path: Path) -> None:
    models = trained(tmp_path, 0.2, 0.1)
    found = analyse(Folders(models, {"numbers": "math", "code": "coding"}))
    assert [row[0] for row in found.tables["changed"].rows] == ["math", "coding"]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    models = trained(tmp_path, 0.2, 0.1, layers=1)
    with pytest.raises(DataError, match="needs a base"):
        analyse(Folders(models, start=None))
    with pytest.raises(DataError, match=r"'bse', which is not among.*Did you mean 'base'"):
        analyse(Folders(models), base="bse")
    with pytest.raises(DataError, match="no model to compare with 'base'"):
        analyse(Folders({"base": models["base"]}))
    with pytest.raises(DataError, match=r"no layer 17.*0 to 0"):
        analyse(Folders(models), layer=17)
