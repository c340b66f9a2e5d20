"""Which of our mergers does what a method of mergekit 0.1.5 does, and with which settings.

Formulas: the methods' papers, and mergekit's own pages. A method that no merger of ours computes as mergekit does is
not here; a setting that none can express raises :class:`UnmappedError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isclose
from typing import Any, Literal

__all__ = ["ELSEWHERE", "METHODS", "At", "Method", "UnmappedError"]

Merger = dict[str, Any]
"""``{use: NAME, **settings}``."""

ELSEWHERE = (
    "arcee_fusion",
    "breadcrumbs_ties",
    "multislerp",
    "nearswap",
    "nuslerp",
    "passthrough",
    "ram",
    "ramplus_tl",
)
"""Methods of mergekit that are not read."""


class UnmappedError(ValueError):
    """A setting that our mergers cannot express.

    Args:
        key: of the parameter.
        text: why not.
        expert: place of the one whose parameter it is; ``None``: of any.
    """

    def __init__(self, key: str, text: str, expert: int | None = None) -> None:
        super().__init__(text)
        self.key, self.expert = key, expert


@dataclass(frozen=True, slots=True)
class At:
    """A method's settings at one tensor."""

    shared: Mapping[str, float]
    each_E: Mapping[str, Sequence[float]]
    """Parameter → a number per expert."""

    def one(self, key: str) -> float:
        """A parameter that may differ between experts, where our merger has one for all.

        Raises:
            UnmappedError: it differs.
        """
        values = self.each_E[key]
        if len(set(values)) > 1:
            raise UnmappedError(key, f"one {key} holds for all experts, found {', '.join(f'{v:g}' for v in values)}")
        return values[0]

    def scaled(self) -> Merger:
        """``weights`` and ``scale`` of a sum of task vectors; a division by the sum of the weights is part of λ."""
        weights, scale = list(self.each_E["weight"]), self.shared["lambda"]
        if self.shared["normalize"] and abs(sum(weights)) >= 1e-8:  # below it, mergekit does not divide
            scale /= sum(weights)
        return {"scale": scale, "weights": weights}


@dataclass(frozen=True, slots=True)
class Method:
    """How one method is read."""

    merger: Callable[[At], Merger]
    base: Literal["anchor", "first", "optional"]
    """``anchor``: task vectors start from it. ``first``: it is required, and merged like the others. ``optional``: the
    same, where there is one."""
    shared: Mapping[str, float | None] = field(default_factory=dict)
    """Parameter → its default; ``None``: required."""
    each: Mapping[str, float | None] = field(default_factory=dict)
    """The same for parameters that every expert has its own of."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Parameter → why nothing depends on it."""
    random: bool = False


def _linear(at: At) -> Merger:
    weights = list(at.each_E["weight"])
    if not at.shared["normalize"] and not isclose(sum(weights), 1.0):
        raise UnmappedError("normalize", f"an average has weights that sum to 1, found a sum of {sum(weights):g}")
    return {"use": "average", "weights": weights}


def _task_arithmetic(at: At) -> Merger:
    return {"use": "task-arithmetic", **at.scaled()}


def _ties(at: At) -> Merger:
    _refuse_rescaling(at)
    return _elected(at, _short(at.each_E["density"]))


def _dare(at: At, *, elect: bool) -> Merger:
    then = _elected(at, 1.0) if elect else _task_arithmetic(at)
    rate = _short([round(1.0 - density, 12) for density in at.each_E["density"]])  # as a person would write it
    return {"use": "dare", "rate": rate, "rescale": "l1" if at.shared["rescale"] else "none", "then": then}


def _elected(at: At, density: float | list[float]) -> Merger:
    """TIES with mergekit's rules; without a division by the weights, what agrees is summed."""
    for expert, weight in enumerate(at.each_E["weight"]):
        if weight < 0:
            text = f"signs are elected by weights, of which none may be negative, found {weight:g}"
            raise UnmappedError("weight", text, expert)
    return {
        "use": "ties",
        "density": density,
        "scope": "tensor",
        "semantics": "mergekit",
        "aggregate": "mean" if at.shared["normalize"] else "sum",
        "scale": at.shared["lambda"],
        "weights": list(at.each_E["weight"]),
    }


def _breadcrumbs(at: At) -> Merger:
    _refuse_rescaling(at)
    return {"use": "breadcrumbs", "density": _short(at.each_E["density"]), "top": at.one("gamma"), **at.scaled()}


def _della(at: At, *, elect: bool) -> Merger:
    if not at.shared["rescale"]:
        raise UnmappedError("rescale", "DELLA rescales what it keeps")
    own = {"density": _short(at.each_E["density"]), "epsilon": at.one("epsilon"), "rescale": "l1", "elect": elect}
    if not elect:
        return {"use": "della", **own, **at.scaled()}
    if not at.shared["normalize"]:
        raise UnmappedError("normalize", "DELLA averages the task vectors that agree on a sign")
    return {"use": "della", **own, "scale": at.shared["lambda"], "weights": list(at.each_E["weight"])}


def _sce(at: At) -> Merger:
    return {"use": "sce", "tau": at.shared["select_topk"], "semantics": "mergekit"}


def _slerp(at: At) -> Merger:
    return {"use": "slerp", "t": at.shared["t"]}


def _karcher(at: At) -> Merger:
    return {"use": "karcher", "iterations": int(at.shared["max_iter"]), "tolerance": at.shared["tol"]}


def _model_stock(at: At) -> Merger:
    if at.shared["filter_wise"]:
        raise UnmappedError("filter_wise", "model-stock measures the angle of whole tensors")
    return {"use": "model-stock"}


def _short(values_E: Sequence[float]) -> float | list[float]:
    """One number where all experts have the same."""
    return values_E[0] if len(set(values_E)) == 1 else list(values_E)


def _refuse_rescaling(at: At) -> None:
    if at.shared["rescale"]:
        raise UnmappedError("rescale", "what is kept is not rescaled here")


_MASK = {"int8_mask": "it saves mergekit memory and changes no number"}
_DENSE = {"density": "this method drops nothing", "rescale": "this method drops nothing"}


def _sum(
    merger: Callable[[At], Merger], *, normalize: bool, rescale: bool = False, random: bool = False, **each: float
) -> Method:
    """One of the methods that mergekit makes of drop, rescale, weigh, elect, sum and divide."""
    shared = {"normalize": float(normalize), "rescale": float(rescale), "lambda": 1.0, "int8_mask": 0.0}
    silent = _MASK | (_DENSE if merger is _task_arithmetic else {})
    return Method(merger, "anchor", shared, {"weight": None, "density": 1.0, **each}, silent, random)


METHODS: Mapping[str, Method] = {
    "linear": Method(_linear, "optional", {"normalize": 1.0}, {"weight": None}),
    "task_arithmetic": _sum(_task_arithmetic, normalize=False),
    "ties": _sum(_ties, normalize=True),
    "dare_linear": _sum(partial(_dare, elect=False), normalize=False, rescale=True, random=True),
    "dare_ties": _sum(partial(_dare, elect=True), normalize=False, rescale=True, random=True),
    "breadcrumbs": _sum(_breadcrumbs, normalize=False, gamma=0.01),
    "della": _sum(partial(_della, elect=True), normalize=True, rescale=True, random=True, epsilon=0.15),
    "della_linear": _sum(partial(_della, elect=False), normalize=False, rescale=True, random=True, epsilon=0.15),
    "sce": Method(_sce, "anchor", {"select_topk": 1.0, "int8_mask": 0.0}, silent=_MASK),
    "slerp": Method(_slerp, "first", {"t": None}),
    "karcher": Method(_karcher, "optional", {"max_iter": 10.0, "tol": 1e-5}),
    "model_stock": Method(_model_stock, "anchor", {"filter_wise": 0.0}),
}
