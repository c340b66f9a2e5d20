"""The measures as tables and figures of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m2rl_analyzer_weight_shift import measures
from m2rl_analyzer_weight_shift.measures import Shifts
from m2rl_analyzer_weight_shift.names import LABELS, PARTS
from m2rl_analyzer_weight_shift.tally import RULES, Floats
from m2rl_core.types import Figure, Table

UNINFORMATIVE = 0.9
"""Share of changed weights above which masks tell nothing: two such masks overlap, whatever moved them."""
TYPICAL = 0.3
"""The share that the paper observes, and takes for its random masks."""

Cell = str | float | None


def changed(shifts: Shifts, dtypes: Sequence[str], eta: float, etas: Sequence[float | None]) -> Table:
    """Each model's share of changed weights under every rule.

    Args:
        dtypes: of each model's weights.
        etas: at which 30% of each model's weights change.
    """
    everything = [*shifts.places.values(), shifts.other]
    by_rule = [measures.shares(everything, rule) for rule in RULES]
    projections_E = measures.shares(shifts.of())
    rows: list[list[Cell]] = []
    for i, model in enumerate(shifts.models):
        found = [percent(share_E[i]) for share_E in by_rule]
        rows.append([model, dtypes[i], *found, etas[i], _remark(projections_E[i])])
    columns = ["model", "stored as", f"eta = {eta:g} [%]", "exact [%]", "ulp [%]", "eta for 30%", "remark"]
    note = (
        "Weights that differ from the base's: relatively by more than eta, at all, or by more than one step of the "
        "stored type. The paper: about 30% with eta = 0.001. Masks of projections of which more than 90% changed tell "
        "nothing (uninformative). No eta for 30%: fewer have changed at all."
    )
    return Table("Changed weights", columns, rows, note)


def _remark(share: float) -> str:
    return f"uninformative: {share:.0%} of the projections" if share > UNINFORMATIVE else ""


def changed_by_type(shifts: Shifts) -> Table:
    """Each model's share of changed weights in each weight type."""
    groups = {label: shifts.of([kind]) for kind, label in LABELS.items()}
    groups |= {"all of these": shifts.of(), "other tensors": [shifts.other]}
    by_group = [measures.shares(tallies) if tallies else None for tallies in groups.values()]
    rows: list[list[Cell]] = [
        [model, *(None if share_E is None else percent(share_E[i]) for share_E in by_group)]
        for i, model in enumerate(shifts.models)
    ]
    return Table("Changed weights by type [%], eta rule", ["model", *groups], rows)


def changed_by_layer(shifts: Shifts) -> Table:
    """Each model's share of changed weights in each weight type of each layer."""
    rows: list[list[Cell]] = []
    for layer in shifts.layers:
        groups = [shifts.of([kind], layer) for kind in LABELS] + [shifts.of(layer=layer)]
        by_group = [measures.shares(tallies) if tallies else None for tallies in groups]
        for i, model in enumerate(shifts.models):
            rows.append([model, layer, *(None if share_E is None else percent(share_E[i]) for share_E in by_group)])
    columns = ["model", "layer", *LABELS.values(), "all of these"]
    return Table("Changed weights by layer and type [%], eta rule", columns, rows)


def overlaps(shifts: Shifts, layer: int | None) -> Table:
    """Table 5: the Jaccard overlap of every pair of models, by weight type, of one layer or of all."""
    groups = [shifts.of([kind], layer) for kind in LABELS]
    found = [measures.jaccard(tallies) if tallies else None for tallies in groups]
    chance = [measures.random_jaccard(tallies) if tallies else None for tallies in groups]
    rows: list[list[Cell]] = [[shifts.label(p), *_at(found, p)] for p in shifts.pairs]
    rows += [[f"{shifts.label(p)}, random masks", *_at(chance, p)] for p in shifts.pairs]
    rows.append(["random masks of 30%", *[TYPICAL / (2 - TYPICAL)] * len(LABELS)])
    note = (
        "Random masks have as many weights as each model has changed in each tensor. The paper, layer 17: 0.45 to 0.48."
    )
    return Table(f"Jaccard overlap of changed weights, {_where(layer)}", ["domains", *LABELS.values()], rows, note)


def overlaps_by_rule(shifts: Shifts) -> Table:
    """Whether the overlap hangs on what counts as changed."""
    tallies = shifts.of()
    columns = ["domains"]
    found: list[Floats | None] = []
    for rule in RULES:
        columns += [rule, f"{rule}, random masks"]
        found += [measures.jaccard(tallies, rule), measures.random_jaccard(tallies, rule)]
    rows: list[list[Cell]] = [[shifts.label(pair), *_at(found, pair)] for pair in shifts.pairs]
    return Table("Jaccard overlap by rule, all layers and types together", columns, rows)


def angles(shifts: Shifts, layer: int) -> Table:
    """Cosines within the overlap, averaged over the weight types of attention and of the FFN."""
    columns, found = ["domains"], list[Floats | None]()
    for where in (layer, None):
        for part in PARTS:
            for how in ("projected", "exact"):
                columns.append(f"{part}, {_where(where)}, {how}")
                found.append(angle(shifts, part, where, projected=how == "projected"))
    rows: list[list[Cell]] = [[shifts.label(pair), *_at(found, pair)] for pair in shifts.pairs]
    note = (
        "Projected: to 256 random orthogonal dimensions, as in the paper; each tensor's cosine then has an error of "
        "about 0.06. Exact: of all weights of the overlap. Figure 3 of the paper: positive, and modest."
    )
    return Table("Cosine of weight shifts within the overlap", columns, rows, note)


def angle(shifts: Shifts, part: str, layer: int | None, *, projected: bool) -> Floats | None:
    """Mean cosine [E, E] over a part's tensors; ``None`` of a part without any."""
    cosines = measures.projected_cosines if projected else measures.cosines
    tallies = shifts.of(PARTS[part], layer)
    return measures.mean([cosines(tally) for tally in tallies]) if tallies else None


def heatmap(shifts: Shifts, part: str, layer: int) -> Figure:
    """Figure 3."""
    found = angle(shifts, part, layer, projected=True)
    series = {
        model: [None if found is None or i == j else number(found[i, j]) for j in range(len(shifts.models))]
        for i, model in enumerate(shifts.models)
    }
    title = f"Projected cosine of weight shifts, {part}, layer {layer}"
    return Figure(title, "heatmap", list(shifts.models), series)


def by_layer(shifts: Shifts) -> Figure:
    """Each model's share of changed weights along the layers."""
    shares_LE = [measures.shares(shifts.of(layer=layer)) for layer in shifts.layers]
    series = {model: [percent(share_E[i]) for share_E in shares_LE] for i, model in enumerate(shifts.models)}
    return Figure("Changed weights by layer", "lines", list(shifts.layers), series, "layer", "changed [%]")


def overlaps_by_layer(shifts: Shifts) -> Figure:
    """The overlap along the layers, beside that of random masks; mean over pairs, all types of a layer together."""
    series: dict[str, list[float | None]] = {}
    for label, overlap in (("observed", measures.jaccard), ("random masks", measures.random_jaccard)):
        found = [overlap(shifts.of(layer=layer)) for layer in shifts.layers]
        series[label] = [number(float(np.mean([each[pair] for pair in shifts.pairs]))) for each in found]
    title = "Jaccard overlap of changed weights by layer, mean over pairs"
    return Figure(title, "lines", list(shifts.layers), series, "layer", "Jaccard")


def number(value: float) -> float | None:
    """``None`` for NaN, which shows as missing."""
    return float(value) if np.isfinite(value) else None


def percent(share: float) -> float | None:
    return number(100 * share)


def _at(found: Sequence[Floats | None], pair: tuple[int, int]) -> list[Cell]:
    return [None if each is None else number(each[pair]) for each in found]


def _where(layer: int | None) -> str:
    return "all layers" if layer is None else f"layer {layer}"
