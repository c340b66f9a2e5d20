"""From a lab to findings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from m2rl_analyzer_weight_shift import tables
from m2rl_analyzer_weight_shift.claims import claims
from m2rl_analyzer_weight_shift.measures import Shifts, default_layer
from m2rl_analyzer_weight_shift.models import opened
from m2rl_analyzer_weight_shift.names import PARTS
from m2rl_analyzer_weight_shift.rules import eta_for
from m2rl_analyzer_weight_shift.stream import survey
from m2rl_analyzer_weight_shift.tally import Tally
from m2rl_core.errors import DataError, nearest
from m2rl_core.interfaces import Lab
from m2rl_core.types import Figure, Findings, Table

if TYPE_CHECKING:
    from m2rl_analyzer_weight_shift import WeightShift

MOST_THREADS = 16


def findings(lab: Lab, config: WeightShift.Config) -> Findings:
    """See :meth:`m2rl_analyzer_weight_shift.WeightShift.run`."""
    base, domains = _base(lab, config), _domains(lab, config)
    with opened(lab.models[base], {model: lab.models[model] for model in domains}) as models:
        threads = min(MOST_THREADS, os.cpu_count() or 1)  # more would wait for the interpreter, not for the disk
        found = survey(models, eta=config.eta, seed=config.seed, threads=threads)
        dtypes = [models.dtypes(model) for model in domains]
    other = found.places.get(None, Tally.zero(len(domains)))
    known = sorted(place for place in found.places if place is not None)
    shifts = Shifts(list(domains), {place: found.places[place] for place in known}, other)
    layer = _layer(shifts, config.layer)
    etas = [eta_for(tables.TYPICAL, histogram_B) for histogram_B in found.histogram_EB]
    return Findings(
        tables={"changed": tables.changed(shifts, dtypes, config.eta, etas), **_tables(shifts, layer)},
        figures=_figures(shifts, layer),
        claims=claims(shifts, domains, config.reasoning),
    )


def _tables(shifts: Shifts, layer: int) -> dict[str, Table]:
    found = {"changed-by-type": tables.changed_by_type(shifts), "changed-by-layer": tables.changed_by_layer(shifts)}
    if shifts.pairs:
        found |= {
            "jaccard-layer": tables.overlaps(shifts, layer),
            "jaccard": tables.overlaps(shifts, None),
            "jaccard-by-rule": tables.overlaps_by_rule(shifts),
            "cosine": tables.angles(shifts, layer),
        }
    return found


def _figures(shifts: Shifts, layer: int) -> dict[str, Figure]:
    found = {"changed-by-layer": tables.by_layer(shifts)}
    if shifts.pairs:
        found["jaccard-by-layer"] = tables.overlaps_by_layer(shifts)
        found |= {f"cosine-{part.lower()}": tables.heatmap(shifts, part, layer) for part in PARTS}
    return found


def _base(lab: Lab, config: WeightShift.Config) -> str:
    base = config.base or lab.start
    if base is None:
        raise DataError("weight-shift needs a base", then="name the model that the others were trained from")
    if base not in lab.models:
        raise DataError(
            f"weight-shift compares with '{base}', which is not among the models.{nearest(base, lab.models)}",
            allowed=lab.models,
        )
    return base


def _domains(lab: Lab, config: WeightShift.Config) -> Mapping[str, str]:
    """Model → its domain, of the experts; without experts, of every model but the base."""
    base = _base(lab, config)
    experts = {model: domain for domain, model in lab.experts.items() if model != base}
    found = experts or {model: model for model in lab.models if model != base}
    if not found:
        raise DataError(f"weight-shift finds no model to compare with '{base}'", found=", ".join(lab.models))
    return found


def _layer(shifts: Shifts, chosen: int | None) -> int:
    if chosen is None:
        return default_layer(shifts.layers)
    if chosen not in shifts.layers:
        raise DataError(f"there is no layer {chosen}", allowed=f"{shifts.layers[0]} to {shifts.layers[-1]}")
    return chosen
