"""A study file as typed, frozen data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from m2rl_core.config.sections import DomainSection, ModelSection, Section, Use
from m2rl_core.config.stages import AnyStage
from m2rl_core.config.trackers import AnyTracker

__all__ = ["Study"]


class Study(Section):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    """Its folder below ``runs/``; the file's own name without the ending is usual."""
    reproduces: Literal["paper"] | None = None
    """Whose experiment this is meant to be: its claims then stand beside the study's values in ``m2rl check``."""
    seed: int = 17
    """Of everything that is drawn: weights, data, samples."""
    seeds: list[int] | None = None
    """Several: the whole graph is repeated for each, and the report pools them."""
    model: ModelSection = ModelSection()
    """Where it starts from."""
    engine: Use = {"use": "embedded"}
    """What samples: the name of an engine, or ``{use: NAME}`` with its settings."""
    domains: dict[str, DomainSection] = Field(default_factory=dict)
    """Name → a data set with its verifier."""
    stages: dict[str, AnyStage]
    """Name → one step of the experiment, of one of the kinds below."""
    plugins: list[str] = Field(default_factory=list)
    """Local files or folders that offer components, e.g. ``./my_domain.py``."""
    trackers: list[AnyTracker] = Field(default_factory=list)
    """Where to show the numbers of every step, beside TensorBoard: ``trackio``, ``wandb``."""

    @field_validator("seeds")
    @classmethod
    def _several(cls, seeds: list[int] | None) -> list[int] | None:
        if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
            raise ValueError("should name at least one seed, and none twice")
        return seeds
