"""Every node's key: a hash of all that can change its results, and of nothing else.

That is its resolved section, the parts of the study that it uses, its seed, its inputs' keys (pinned revisions or
content hashes for what comes from outside), the code of the components that it uses, and the core's code behind its
kind of stage. So another domain, a new merger or a longer list of evaluations leaves all other keys as they are.
Local files count with their name and content; where they lie does not matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m2rl_core.composition import composed, terms
from m2rl_core.config import (
    AnalyzeStage,
    AnyStage,
    EvalStage,
    MergeStage,
    ModelStage,
    ReportStage,
    RlStage,
    SftStage,
    Study,
    TrainStage,
    is_local,
    local_path,
    split_reference,
)
from m2rl_core.files import content_hash
from m2rl_core.registry import KINDS, Entry, Kind, Registry, use_of
from m2rl_core.study.code import code_hash, core_behind
from m2rl_core.study.graph import Node

__all__ = ["key_of", "keyed", "narrowed"]

HARMLESS = {"checkpoint_every", "verifier_failures"}
"""Settings that can end a stage early or cost time, but cannot change what it makes."""


def keyed(nodes: Sequence[Node], study: Study, registry: Registry, targets: Mapping[str, str]) -> list[Node]:
    """``nodes``, inputs first, with their keys and with what these cover.

    Args:
        study: with the paths of local folders and files made absolute (:func:`m2rl_core.config.grounded`).
        targets: kind of stage → ``module:function``.
    """
    done: dict[str, Node] = {}
    for node in nodes:
        covered = {
            "stage": node.stage,
            "kind": node.kind,
            **_settings(node, study, registry),
            "inputs": {name: done[name].key for name in node.inputs},
            "code": code_hash(targets[node.kind].partition(":")[0]),
        }
        done[node.id] = replace(node, covered=covered, key=key_of(covered))
    return list(done.values())


def key_of(covered: Mapping[str, Any]) -> str:
    """SHA-256 [hex] of what a key covers."""
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def narrowed(study: Study, node: Node) -> Study:
    """The study as ``node`` may see it: without the stages and domains that its key does not cover."""
    if isinstance(node.config, ReportStage):
        return study.model_copy(update={"seed": node.seed})
    if isinstance(node.config, AnalyzeStage):
        stages = {**_models(study), node.stage: node.config}
        return study.model_copy(update={"seed": node.seed, "seeds": None, "stages": stages})
    domains = {name: study.domains[name] for name in node.domains}
    update = {
        "seed": node.seed,
        "seeds": None,
        "domains": domains,
        "stages": {**_experts(study, node), node.stage: node.config},
    }
    return study.model_copy(update=update)


def _experts(study: Study, node: Node) -> dict[str, AnyStage]:
    """The stages that a merge's experts come from, which its inputs' keys cover."""
    names = node.config.experts if isinstance(node.config, MergeStage) else ()
    makers = dict.fromkeys(split_reference(name)[0] for name in names)
    return {name: study.stages[name] for name in makers if name in study.stages}


def _settings(node: Node, study: Study, registry: Registry) -> dict[str, Any]:
    """What a key covers beside inputs and code."""
    stage = node.config
    if isinstance(stage, ModelStage):
        found = content_hash(Path(stage.path)) if is_local(stage) else f"{stage.path}@{stage.revision}"
        return {"model": found, "trust_remote_code": study.model.trust_remote_code}
    if isinstance(stage, ReportStage):
        return {"study": _described(study)}
    components = dict(_components(node, study))
    settings: dict[str, Any] = {
        "seed": node.seed,
        "suite": node.suite,
        "config": stage.model_dump(mode="json", exclude=HARMLESS | {"kind"} | components.keys()),
        "components": {label: _covered(label, use, registry) for label, use in components.items()},
    }
    if isinstance(stage, SftStage):
        settings["config"]["blend"] = [[name, _by_content(each.model_dump())] for name, each in stage.blend.items()]
    if isinstance(stage, TrainStage):
        settings["order"] = list(stage.domains)  # of a mapping too: it decides who is drawn first
    if isinstance(stage, RlStage):
        settings["reasoning"] = {name: study.domains[name].reasoning for name in node.domains}
    evidence = stage.evidence if isinstance(stage, MergeStage) else None
    if evidence is not None:
        settings["config"]["evidence"]["conversations"] = _by_content(evidence.conversations)
    opens = isinstance(stage, MergeStage) and (stage.evidence or stage.search)
    if opens or isinstance(stage, TrainStage | EvalStage | AnalyzeStage):
        settings["model"] = study.model.model_dump(mode="json", include={"dtype", "trust_remote_code"})
    if isinstance(stage, AnalyzeStage):
        described = _described(study)["stages"]
        settings["stages"] = {name: _affecting(described[name]) for name in _models(study)}
    return settings


def _models(study: Study) -> dict[str, AnyStage]:
    """The stages that make models: all that an analyzer learns of the study's other stages."""
    return {n: s for n, s in study.stages.items() if not isinstance(s, EvalStage | AnalyzeStage | ReportStage)}


def _affecting(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's settings without those that cannot change what it makes."""
    return {key: value for key, value in stage.items() if key not in HARMLESS}


def _described(study: Study) -> dict[str, Any]:
    """The study without its trackers and the places of local models and files.

    The models' contents are in the keys of their nodes."""
    found = study.model_dump(mode="json", exclude={"plugins": True, "trackers": True, "model": {"base"}})
    for stage in found["stages"].values():
        stage.pop("path", None)
        if stage.get("blend"):
            stage["blend"] = _by_content(stage["blend"])
    return {**found, "domains": _by_content(found["domains"])}


def _components(node: Node, study: Study) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The components that a node uses, each under its kind or, for domains, ``domain NAME``."""
    for name in node.domains:
        yield f"domain {name}", {"use": study.domains[name].use, **study.domains[name].config}
    match node.config:
        case RlStage(algorithm=algorithm, mixture=mixture):
            yield "algorithm", algorithm
            yield from [("mixture", mixture)] if mixture else []
        case MergeStage(merger=merger):
            yield "merger", merger
        case AnalyzeStage(analyzer=analyzer):
            yield "analyzer", analyzer
    if isinstance(node.config, RlStage | EvalStage | AnalyzeStage):
        yield "engine", study.engine


def _covered(label: str, use: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """A component's name, its configuration with defaults and the contents of local files, and its code."""
    kind = next(kind for kind in KINDS if kind == label.split()[0])
    config: Mapping[str, Any] = use_of(use)[1]
    if kind != "engine":  # asking an engine's class for its defaults may import torch
        config = registry.configure(kind, use, label).model_dump(mode="json")
    names = {(kind, use_of(use)[0]), *_nested(kind, config, registry)}
    if kind == "algorithm":
        names |= set(_composed(use, registry, label))
    code = {f"{each} {name}": registry.content_hash(each, name) for each, name in sorted(names)}
    entries = [registry.lookup(each, name) for each, name in names]
    behind = {module for entry in entries for module in (*core_behind(entry.module), *_made_by(entry))}
    code |= {module: code_hash(module) for module in sorted(behind)}
    return {"use": use_of(use)[0], "config": _by_content(config), "code": code}


def _made_by(entry: Entry) -> Iterator[str]:
    """The core's modules that hold a class's bases: one that was made of a function imports them nowhere."""
    bases = () if isinstance(entry.target, str) else entry.target.__bases__
    yield from (base.__module__ for base in bases if base.__module__.startswith("m2rl_core."))


def _composed(use: Mapping[str, Any], registry: Registry, label: str) -> Iterator[tuple[Kind, str]]:
    """The parts that an algorithm is made of, those that it takes from other plugins by default included."""
    parts = composed(registry, use, label)
    given: dict[Kind, Mapping[str, Any] | Sequence[Mapping[str, Any]]] = {
        "advantage": parts.advantage, "loss": parts.loss, "importance": parts.importance or (),
    }  # fmt: skip
    for kind, part in given.items():
        for _, one in terms(part):
            yield kind, use_of(one)[0]
            yield from _nested(kind, one, registry)


def _nested(kind: Kind, value: object, registry: Registry) -> Iterator[tuple[Kind, str]]:
    """Components within a component: a ``{use: NAME}`` below a key that is a kind, or else of the same kind."""
    if isinstance(value, Mapping):
        if (name := value.get("use")) in registry.names(kind):
            yield kind, name
        for key, below in value.items():
            yield from _nested(next((each for each in KINDS if each == key), kind), below, registry)
    elif isinstance(value, list):
        for below in value:
            yield from _nested(kind, below, registry)


def _by_content(value: Any) -> Any:
    """``value`` with the paths of local files and folders replaced by their names and hashes."""
    match value:
        case str():
            path = local_path(value)
            return {"name": path.name, "sha256": content_hash(path)} if path else value
        case Mapping():
            return {key: _by_content(below) for key, below in value.items()}
        case list():
            return [_by_content(below) for below in value]
    return value
