"""One reading of several checkpoints against whole tensors in float64; projections; invariances; refusals."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from m2rl_analyzer_weight_shift import measures, stream
from m2rl_analyzer_weight_shift.models import opened
from m2rl_analyzer_weight_shift.names import Place, places
from m2rl_analyzer_weight_shift.rules import eta_for
from m2rl_analyzer_weight_shift.sketch import Projection, padded
from m2rl_analyzer_weight_shift.stream import Survey, survey
from m2rl_analyzer_weight_shift.tally import DIM
from m2rl_core.errors import DataError

Q, UP, NORM = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"
SHAPES = {Q: (300, 517), UP: (130, 257), NORM: (300,)}


def write(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def sparse(shape: tuple[int, ...], share: float, seed: int) -> Tensor:
    """Random shifts of a random share of the weights, with heavy columns as training makes them."""
    noise = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=noise) < share
    heavy = torch.exp(torch.randn(shape[-1:], generator=noise))
    return 0.05 * torch.randn(shape, generator=noise) * heavy * mask


def weights(dtype: torch.dtype, models: int = 3) -> list[dict[str, Tensor]]:
    """A base and models near it."""
    noise = torch.Generator().manual_seed(7)
    base = {name: torch.randn(shape, generator=noise).to(dtype) for name, shape in SHAPES.items()}
    shared = {name: sparse(shape, 0.3, 99) for name, shape in SHAPES.items()}
    return [base] + [
        {n: (base[n].float() + shared[n] + sparse(s, 0.2, i)).to(dtype) for n, s in SHAPES.items()}
        for i in range(models)
    ]


def measured(
    folder: Path, tensors: list[dict[str, Tensor]], *, threads: int = 2, seed: int = 0, span: int = stream.SPAN
) -> Survey:
    folders = [folder / str(i) for i in range(len(tensors))]
    for path, each in zip(folders, tensors, strict=True):
        if not path.exists():
            write(path, each)
    with opened(folders[0], {str(i): path for i, path in enumerate(folders[1:])}) as models:
        return survey(models, eta=1e-3, seed=seed, threads=threads, span=span)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_against_whole_tensors_in_float64(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = weights(dtype)
    found = measured(tmp_path, tensors)
    assert set(found.places) == {Place(0, "q"), Place(0, "up"), None}
    for name, place in ((Q, Place(0, "q")), (UP, Place(0, "up"))):
        base, models = tensors[0][name].double().numpy(), [t[name].double().numpy() for t in tensors[1:]]
        shifts = [model - base for model in models]
        masks = [abs(model - base) > 1e-3 * np.maximum(abs(model), abs(base)) for model in models]
        tally = found.places[place]
        assert tally.size == base.size
        for i, j in combinations(range(3), 2):
            both = masks[i] & masks[j]
            a, b = shifts[i][both], shifts[j][both]
            assert tally.both_REE[0, i, j] == both.sum()
            assert tally.both_REE[0, i, i] == masks[i].sum()
            assert measures.jaccard([tally])[i, j] == pytest.approx(both.sum() / (masks[i] | masks[j]).sum())
            assert measures.cosines(tally)[i, j] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-5)
    assert found.places[None].both_REE[1, 0, 0] == (tensors[1][NORM] != tensors[0][NORM]).sum()


def test_the_number_of_threads_changes_nothing_and_the_span_next_to_nothing(tmp_path: Path) -> None:
    tensors = weights(torch.float32)
    one, four = measured(tmp_path, tensors, threads=1), measured(tmp_path, tensors, threads=4)
    short = measured(tmp_path, tensors, span=stream.BLOCK)
    for place, tally in one.places.items():
        for field in ("both_REE", "dots_EE", "squares_EE", "sketch_EED"):
            assert np.array_equal(getattr(tally, field), getattr(four.places[place], field))
            np.testing.assert_allclose(getattr(tally, field), getattr(short.places[place], field), rtol=1e-9, atol=1e-9)
    assert np.array_equal(one.histogram_EB, four.histogram_EB)


def test_the_size_of_blocks_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = weights(torch.float32)
    large = measured(tmp_path, tensors)
    monkeypatch.setattr(stream, "BLOCK", 1 << 12)
    small = measured(tmp_path, tensors)
    for place, tally in large.places.items():
        other = small.places[place]
        assert np.array_equal(tally.both_REE, other.both_REE)
        np.testing.assert_allclose(measures.cosines(tally), measures.cosines(other), atol=1e-6)
        np.testing.assert_allclose(measures.projected_cosines(tally), measures.projected_cosines(other), atol=0.3)


def test_eta_search_over_checkpoints_against_brute_force(tmp_path: Path) -> None:
    tensors = weights(torch.float32)
    found = measured(tmp_path, tensors).histogram_EB
    for i, model in enumerate(tensors[1:]):
        base, values = (torch.cat([t[n].flatten() for n in SHAPES]).double().numpy() for t in (tensors[0], model))
        changes = abs(values - base) / np.maximum(abs(values), abs(base))
        assert found[i].sum() == pytest.approx(len(base), rel=1e-9)
        assert eta_for(0.3, found[i]) == pytest.approx(np.quantile(changes, 0.7), rel=0.03), "from a sample of blocks"


def test_equal_models_overlap_wholly_and_point_the_same_way(tmp_path: Path) -> None:
    base, model, _ = weights(torch.bfloat16, models=2)
    tally = measured(tmp_path, [base, model, model]).places[Place(0, "q")]
    assert measures.jaccard([tally])[0, 1] == 1
    assert measures.cosines(tally)[0, 1] == pytest.approx(1, abs=1e-6)
    assert measures.projected_cosines(tally)[0, 1] == pytest.approx(1, abs=1e-6)


def test_independent_masks_of_30_percent_overlap_by_chance(tmp_path: Path) -> None:
    base = {Q: torch.ones(500, 400)}
    models = [{Q: 1 + sparse((500, 400), 0.3, seed)} for seed in (1, 2)]
    tally = measured(tmp_path, [base, *models]).places[Place(0, "q")]
    error = np.sqrt(0.18 * 0.82 / (0.51 * 200_000))
    assert measures.jaccard([tally], "exact")[0, 1] == pytest.approx(0.09 / 0.51, abs=4 * error)
    assert measures.random_jaccard([tally], "exact")[0, 1] == pytest.approx(0.09 / 0.51, abs=0.003)


def test_the_projection_is_orthogonal_onto_256_dimensions() -> None:
    projection, width = Projection(5), 4 * DIM
    signs = projection.signs(width, "w", 3)
    units = torch.eye(width) * signs
    matrix = projection.within(units, torch.ones(1, width), "w", 3)[:, 0].T
    assert matrix.shape == (DIM, width)
    assert torch.equal(matrix @ matrix.T, 4 * torch.eye(DIM))
    assert torch.equal(matrix.abs().sum(0), torch.ones(width))


@pytest.mark.parametrize("cosine", [0.0, 0.5])
def test_the_projection_misses_the_cosine_by_about_6_percent(tmp_path: Path, cosine: float) -> None:
    shape, noise = (96, 500), torch.Generator().manual_seed(8)
    heavy = torch.exp(torch.randn(500, generator=noise))
    first, other = torch.randn(2, *shape, generator=noise) * heavy
    second = cosine * first + np.sqrt(1 - cosine**2) * other
    base = {Q: torch.full(shape, 10.0)}
    tensors = [base, {Q: 10 + first}, {Q: 10 + second}]
    errors = []
    for seed in range(40):
        tally = measured(tmp_path, tensors, seed=seed).places[Place(0, "q")]
        errors.append(measures.projected_cosines(tally)[0, 1] - measures.cosines(tally)[0, 1])
    stated = (1 - cosine**2) / np.sqrt(DIM)
    assert np.std(errors) == pytest.approx(stated, rel=0.3)
    assert abs(np.mean(errors)) < 3 * stated / np.sqrt(40)


def test_a_padded_block_ends_with_a_whole_run() -> None:
    assert [padded(n) for n in (1, 256, 257, 65536)] == [256, 256, 512, 65536]


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_weight_types_from_names() -> None:
    found = places(
        [
            "model.layers.3.self_attn.o_proj.weight",
            "model.language_model.layers.4.mlp.gate_proj.weight",
            "model.layers.5.mlp.experts.7.down_proj.weight",
            "model.layers.5.self_attn.q_proj.bias",
            "model.embed_tokens.weight",
            "vision_tower.encoder.layers.1.self_attn.q_proj.weight",
        ]
    )
    assert list(found.values()) == [Place(3, "o"), Place(4, "gate"), Place(5, "down"), None, None, None]


def test_other_names_are_refused_with_what_is_known() -> None:
    with pytest.raises(DataError, match=r"h\.0\.attn\.c_attn\.weight.*q_proj"):
        places(["transformer.h.0.attn.c_attn.weight"])


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_models_that_do_not_fit_their_base_are_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {Q: torch.ones(4, 4)})
    wide = write(tmp_path / "wide", {Q: torch.ones(4, 5)})
    more = write(tmp_path / "more", {Q: torch.ones(4, 4), UP: torch.ones(2)})
    with (
        pytest.raises(DataError, match=r"model 'math': tensor '.*q_proj.weight'.*\[4, 5\].*\[4, 4\]"),
        opened(base, {"math": wide}),
    ):
        pass
    with pytest.raises(DataError, match=r"model 'math'.*up_proj"), opened(base, {"math": more}):
        pass


def test_an_output_layer_that_only_one_stores_is_left_out(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {Q: torch.ones(4, 4)})
    tied = write(tmp_path / "tied", {Q: torch.ones(4, 4), "lm_head.weight": torch.ones(2)})
    with opened(base, {"math": tied}) as models:
        assert models.names == (Q,)


def test_a_weight_that_is_no_number_is_named(tmp_path: Path) -> None:
    tensors = weights(torch.bfloat16)
    tensors[2][UP][1, 3] = float("nan")
    with pytest.raises(DataError, match=r"1: tensor '.*up_proj.weight'.*nan at element 260"):
        measured(tmp_path, tensors)
    tensors[2][UP][1, 3] = 1
    tensors[0][NORM][5] = float("inf")
    with pytest.raises(DataError, match=r"the base: tensor 'model.norm.weight'.*inf at element 5"):
        measured(tmp_path / "again", tensors)
