"""Where a study that is meant to be the paper's says the same, something else, or what the paper leaves open.

A claim (:mod:`m2rl_core.paper.claims`) names a role and a path. :func:`places` resolves a study into one tree per role
and stage: its section with all defaults, and the configurations of its components as the plugins complete them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from m2rl_core.composition import composed
from m2rl_core.config import AnalyzeStage, AnyStage, EvalStage, MergeStage, RlStage, SftStage, Study, suite_owners
from m2rl_core.interfaces import Domain
from m2rl_core.paper.claims import CLAIMS, SILENT, Claim, Role
from m2rl_core.paper.counterparts import role_of
from m2rl_core.registry import KINDS, Kind, Registry, use_of

__all__ = ["Drift", "Verdict", "drift", "places", "shown"]

Verdict = Literal["same", "different", "paper silent"]
Tree = Mapping[str, Any]

ABSENT = "not in this study"


@dataclass(frozen=True, slots=True)
class Drift:
    """A claim beside what a study says."""

    claim: Claim
    values: Mapping[str, Any]
    """Stage or domain → its value; :data:`ABSENT` where it has none. Empty where the study has nothing of the role."""

    @property
    def verdict(self) -> Verdict:
        if self.claim.expected == SILENT:
            return "paper silent"
        same = self.values and all(_equal(value, self.claim.expected) for value in self.values.values())
        return "same" if same else "different"

    @property
    def found(self) -> str:
        """The values, those that are equal once."""
        owners: dict[str, list[str]] = {}
        for owner, value in self.values.items():
            owners.setdefault(shown(value), []).append(owner)
        if len(owners) < 2:
            return next(iter(owners), ABSENT)
        return ", ".join(f"{' '.join(names)}: {text}" for text, names in owners.items())


def drift(study: Study, registry: Registry, claims: Sequence[Claim] = CLAIMS) -> list[Drift]:
    """Every claim beside the values of ``study``, which is checked and grounded.

    Settings of which the paper is silent are left out where the study has nothing of their kind.
    """
    found = places(study, registry)
    each = (Drift(claim, dict(_values(claim, found[claim.role]))) for claim in claims)
    return [one for one in each if one.values or one.claim.expected != SILENT]


def _values(claim: Claim, trees: Mapping[str, Tree]) -> Iterator[tuple[str, Any]]:
    for owner, tree in trees.items():
        if claim.where is None or _at(tree, claim.where[0]) == claim.where[1]:
            yield owner, _at(tree, claim.path)


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return ABSENT
        tree = tree[key]
    return tree


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isinstance(value, int | float):
        return math.isclose(value, expected, rel_tol=1e-9)
    if isinstance(expected, Mapping) and isinstance(value, Mapping):
        return value.keys() == expected.keys() and all(_equal(value[key], expected[key]) for key in expected)
    return bool(value == expected)


def shown(value: Any) -> str:
    """A value in a table's cell."""
    match value:
        case Mapping():
            return ", ".join(f"{key} {shown(below)}" for key, below in value.items())
        case list():
            return ", ".join(map(shown, value)) or "none"
        case None:
            return "unset"
        case bool():
            return "yes" if value else "no"
        case int() if value >= 10_000:
            return f"{value:,}"
        case float():
            return f"{value:g}"
    return str(value)


# ── resolving a study ────────────────────────────────────────────────────────────────────────────────────────────────


def places(study: Study, registry: Registry) -> dict[Role, dict[str, Tree]]:
    """Role → the study, stage or domain of that role → its resolved tree."""
    found: dict[Role, dict[str, Tree]] = {role: {} for role in get_args(Role)}
    found["domain"] = {name: _domain(study, registry, name) for name in study.domains}
    built = {name: _built(study, registry, name) for name in study.domains}
    for name, stage in study.stages.items():
        if (role := role_of(study, name)) is not None:
            found[role][name] = _stage(built, registry, name, stage)
    mergers = {_label(tree["merger"], registry) for tree in found["merge"].values()}
    experts = {domain for tree in found["expert"].values() for domain in tree["domains"]}
    suites = {suite for tree in found["eval"].values() for suite in tree["k"]}
    lists = {"experts": sorted(experts), "mergers": sorted(mergers), "suites": sorted(suites)}
    return {**found, "study": {study.name: {"model": study.model.model_dump(), **lists}}}


def _stage(domains: Mapping[str, Domain], registry: Registry, name: str, stage: AnyStage) -> Tree:
    tree, owner = stage.model_dump(mode="json"), f"stages.{name}"
    match stage:
        case SftStage():
            methods = {key: {**tree["blend"][key], "method": each.method} for key, each in stage.blend.items()}
            return {**tree, "blend": methods}
        case RlStage():
            return {**tree, **_rl(registry, stage, owner)}
        case MergeStage():
            return {**tree, "merger": _resolved(registry, "merger", stage.merger, f"{owner}.merger")}
        case AnalyzeStage():
            return {**tree, "analyzer": _resolved(registry, "analyzer", stage.analyzer, f"{owner}.analyzer")}
        case EvalStage():
            return {**tree, "k": _k(domains, stage, owner)}
    return tree


def _rl(registry: Registry, stage: RlStage, owner: str) -> Tree:
    made = composed(registry, stage.algorithm, f"{owner}.algorithm")
    given: dict[Kind, Any] = {"advantage": made.advantage, "importance": made.importance, "loss": made.loss}
    parts = {kind: _part(registry, kind, part, f"{owner}.algorithm.{kind}") for kind, part in given.items()}
    return {
        "algorithm": _resolved(registry, "algorithm", stage.algorithm, f"{owner}.algorithm"),
        "parts": {**parts, "reduction": made.reduction},
        "shares": _shares(stage),
        "taught": sorted(stage.teachers),
    }


def _part(registry: Registry, kind: Kind, part: Any, owner: str) -> Any:
    if isinstance(part, Mapping):
        return _resolved(registry, kind, {key: value for key, value in part.items() if key != "weight"}, owner)
    return part and [_part(registry, kind, each, owner) for each in part]


def _shares(stage: RlStage) -> Any:
    """Percent of each domain's prompts; the name of the mixture where shares change."""
    if stage.mixture is not None:
        return use_of(stage.mixture)[0]
    shares = dict(stage.domains) if isinstance(stage.domains, Mapping) else dict.fromkeys(stage.domains, 1.0)
    return {name: round(100 * share / sum(shares.values()), 1) for name, share in shares.items()}


def _k(domains: Mapping[str, Domain], stage: EvalStage, owner: str) -> dict[str, int]:
    """Suite → samples of each prompt."""
    owners = suite_owners(domains, stage.suites, f"{owner}.suites")
    asked = dict(stage.suites) if isinstance(stage.suites, Mapping) else {}
    return {name: asked.get(name) or domains[owners[name]].suites[name].k for name in sorted(stage.suites or owners)}


def _built(study: Study, registry: Registry, name: str) -> Domain:
    section = study.domains[name]
    return registry.create("domain", {"use": section.use, **section.config}, f"domains.{name}")


def _domain(study: Study, registry: Registry, name: str) -> Tree:
    section = study.domains[name]
    config = _resolved(registry, "domain", {"use": section.use, **section.config}, f"domains.{name}")
    return {**config, "reasoning": section.reasoning}


def _resolved(registry: Registry, kind: Kind, use: Any, owner: str) -> Tree:
    """A component's name with its whole configuration, those of components within it too."""
    name = use_of(use)[0]
    return {"use": name, **_below(registry, kind, registry.configure(kind, use, owner).model_dump(mode="json"), owner)}


def _below(registry: Registry, kind: Kind, config: Tree, owner: str) -> Tree:
    def resolved(key: str, value: Any) -> Any:
        its = next((each for each in KINDS if each == key), kind)
        if isinstance(value, Mapping) and value.get("use") in registry.names(its):
            return _resolved(registry, its, value, f"{owner}.{key}")
        return value

    return {key: resolved(key, value) for key, value in config.items()}


def _label(component: Tree, registry: Registry) -> str:
    """``dare+ties`` for a merger that hands on to another one."""
    below = [value for value in component.values() if isinstance(value, Mapping)]
    inner = [_label(value, registry) for value in below if value.get("use") in registry.names("merger")]
    return "+".join([component["use"], *inner])
