"""The six ways to merge weights of the paper's Table 4, beside what the authors' release computes.

Its code (Mosi-AI/M2RL at d9807cf, ``MergeLM``) was run in float32, with the masks below in place of its draws, to find
the golden numbers. The naive versions follow its order of operations over whole models, so also where DARE writes a
thinned expert back before it is merged. Of a tiny Qwen3 in float32 and in bfloat16, its code and ours were compared
directly, too: see ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from m2rl_core.interfaces import Merger
from m2rl_core.merge import merge_models
from m2rl_core.plugins import load_plugins
from m2rl_core.testing import merge_tensors
from m2rl_core.testing.family import family
from m2rl_core.types import Block
from m2rl_core.weights import stream_named
from m2rl_merger_dare.drop import Dropping, Mask

Model = dict[str, Tensor]
ROWS: Mapping[str, dict[str, Any]] = {
    "Average": {"use": "average"},
    "TA": {"use": "task-arithmetic"},
    "Ties": {"use": "ties"},
    "SCE": {"use": "sce"},
    "TA+DARE": {"use": "dare"},
    "Ties+DARE": {"use": "dare", "then": "ties"},
}
RATES = {"released-code": 0.2, "paper": 0.8}


def merger(row: str, preset: str) -> Merger:
    made: Merger = load_plugins().create("merger", {**ROWS[row], "preset": preset}, "test")
    return made


# ── golden numbers ───────────────────────────────────────────────────────────────────────────────────────────────────

DELTAS = {
    "t0": [[4, -2, 1, 0.5, 0, 3, -1, 2], [2, 3, -1, 0.5, 0, -3, -4, 0.25], [-1, 1, -2, 0.5, 0, 0, 2, 8]],
    "t1": [[-0.5, 6, 0, 2], [7, -1.5, 3, -2], [0.75, -5, 1.25, 9]],
}
MASKS = {
    "t0": [[1, 0, 0, 1, 1, 0, 1, 1], [0, 1, 1, 1, 0, 1, 1, 0], [1, 1, 1, 0, 1, 0, 1, 1]],
    "t1": [[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]],
}
GOLDEN = [
    (
        "Average",
        "paper",
        [2.6666667, 1.6666666, 0.33333334, 1.5, 1, 1, 0, 4.4166665],
        [3.4166667, 0.83333331, 2.4166667, 4],
    ),
    ("TA", "paper", [6, 3, -1, 2.5, 1, 1, -2, 11.25], [8.25, 0.5, 5.25, 10]),
    ("Ties", "paper", [5, 4, -1, 1, 1, 4, -3, 6], [8, 7, 4, 6.5]),
    (
        "SCE",
        "released-code",
        [3.9455156, 2.6923499, -0.65382504, 1.5, 1, 3.9999998, -1.5817268, 5.5313945],
        [4.079587, -2.6954317, 2.9022844, 8.1010952],
    ),
    ("TA+DARE", "released-code", [4.75, 6, -2.75, 2.25, 1, -2.75, -2.75, 13.5], [10.0625, 2.25, 6.3125, 1]),
    ("Ties+DARE", "released-code", [6, 4.75, -1.5, 1, 1, -2.75, -4, 7.25], [9.75, 8.5, 4.75, 3.5]),
    ("TA+DARE", "paper", [16, 21, -14, 6, 1, -14, -14, 51], [37.25, 6, 22.25, 1]),
    ("Ties+DARE", "paper", [21, 16, -9, 1, 1, -14, -19, 26], [36, 31, 16, 11]),
]


@pytest.mark.parametrize(("row", "preset", "t0", "t1"), GOLDEN, ids=[f"{g[0]}, {g[1]}" for g in GOLDEN])
def test_golden_numbers_of_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, preset: str, t0: list[float], t1: list[float]
) -> None:
    def injected(self: Dropping, block: Block, expert: str, rate: float) -> Mask:
        whole = np.array(MASKS[block.name][int(expert.removeprefix("expert-"))], dtype=bool)
        return whole[block.offset : block.offset + block.shape[0]]

    monkeypatch.setattr(Dropping, "kept", injected)
    base = {name: torch.ones(len(rows[0])) for name, rows in DELTAS.items()}
    experts = [{name: base[name] + torch.tensor(DELTAS[name][index]) for name in base} for index in range(3)]
    [found] = merge_tensors(merger(row, preset), tmp_path, base, experts, block=3, threads=2)
    for name, wanted in (("t0", t0), ("t1", t1)):
        torch.testing.assert_close(found[name], torch.tensor(wanted, dtype=torch.float32), rtol=1e-6, atol=1e-7)


# ── a tiny model ─────────────────────────────────────────────────────────────────────────────────────────────────────


def added(base: Model, experts: list[Model]) -> Model:
    return {name: start + sum(expert[name] - start for expert in experts) for name, start in base.items()}


def averaged(base: Model, experts: list[Model]) -> Model:
    return {name: torch.stack([expert[name] for expert in experts]).mean(0) for name in base}


def tied(base: Model, experts: list[Model]) -> Model:
    """Four fifths of the whole model's entries trimmed, a sign elected for each entry, those that agree averaged."""
    names = sorted(base)
    deltas_EN = torch.stack([torch.cat([(expert[n] - base[n]).flatten() for n in names]) for expert in experts])
    floors_E1 = deltas_EN.abs().kthvalue(int(0.8 * deltas_EN.shape[1]), dim=1, keepdim=True).values
    deltas_EN = deltas_EN * (deltas_EN.abs() >= floors_E1)
    side_N = deltas_EN.sum(0).sign()
    side_N[side_N == 0] = side_N.sum().sign()
    agreeing_EN = deltas_EN * (deltas_EN * side_N > 0)
    mean_N = agreeing_EN.sum(0) / (agreeing_EN != 0).sum(0).clamp(min=1)
    parts = mean_N.split([base[name].numel() for name in names])
    return {name: base[name] + part.view_as(base[name]) for name, part in zip(names, parts, strict=True)}


def fused(base: Model, experts: list[Model]) -> Model:
    """Shares by energy, tensor by tensor; entries against the sign of the sum erased."""
    found = {}
    for name, start in base.items():
        deltas_E = torch.stack([expert[name] - start for expert in experts])
        shares_E = deltas_E.flatten(1).double().square().sum(1)
        if not shares_E.any():  # nobody has moved
            shares_E += 1
        shares_E = (shares_E / shares_E.sum()).float().view(-1, *[1] * start.dim())
        agrees_E = shares_E * (deltas_E.sign() == torch.where(deltas_E.sum(0) >= 0, 1.0, -1.0))
        share = agrees_E.sum(0)
        found[name] = start + (deltas_E * agrees_E).sum(0) / share.where(share != 0, 1.0)
    return found


NAIVE: Mapping[str, Callable[[Model, list[Model]], Model]] = {
    "Average": averaged,
    "TA": added,
    "Ties": tied,
    "SCE": fused,
    "TA+DARE": added,
    "Ties+DARE": tied,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("row", "preset"),
    [(row, preset) for row in ROWS for preset in RATES if (row, preset) != ("SCE", "paper")],  # selects; in sce's tests
)
def test_a_tiny_model_is_merged_as_the_release_would(tmp_path: Path, row: str, preset: str, dtype: torch.dtype) -> None:
    """Five experts through files; DARE's masks are those that were drawn."""
    folders = family(tmp_path, 5, dtype=dtype)
    start = folders.pop("base")
    merge_models(merger(row, preset), base=start, experts=folders, out=tmp_path / "out", dtype="float32", threads=2)
    base = {name: tensor.float() for name, tensor in stream_named(start)}
    experts = [{name: tensor.float() for name, tensor in stream_named(folder)} for folder in folders.values()]
    if "DARE" in row:
        rate = RATES[preset]
        for expert, label in zip(experts, folders, strict=True):
            for name, values in expert.items():
                anchor = base[name]
                block = Block(name, 0, tuple(anchor.shape), anchor, values[None], (label,))
                kept = torch.from_numpy(Dropping(rate, "expected", 0).kept(block, label, rate))
                expert[name] = anchor + (values - anchor) * kept / (1 - rate)
    wanted, found = NAIVE[row](base, experts), dict(stream_named(tmp_path / "out"))
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-6, atol=1e-7)
