"""From a model and the names of suites to the study that measures it. This module imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m2rl_core.config import suite_owners
from m2rl_core.errors import ConfigError
from m2rl_core.registry import Registry

__all__ = ["evaluation"]

MODEL, EVALS = "model", "evals"
"""The study's stages."""


def evaluation(
    model: str, suites: Sequence[str], registry: Registry, changes: Mapping[str, Any], limit: int | None = None
) -> dict[str, Any]:
    """A study of one model and one ``eval`` stage, as a study file says it.

    Args:
        model: a Hugging Face folder.
        suites: ``DOMAIN``, ``DOMAIN:SUITE`` or ``DOMAIN:SUITE:K``.
        changes: sections of the study that are merged in.
        limit: only the first so many prompts of each suite.

    Raises:
        ConfigError: a name that does not read so, or a suite that its domain does not have.
        ComponentError: there is no such domain.
    """
    wanted = [_read(text) for text in suites]
    section = changes.get("domains", {})
    domains = {name: {"use": name, **section.get(name, {})} for name, _, _ in wanted}
    counts: dict[str, int] = {}
    for name, suite, k in wanted:
        config = {key: value for key, value in domains[name].items() if key != "reasoning"}
        domain = registry.create("domain", config, f"domains.{name}")
        for each in suite_owners({name: domain}, [suite] if suite else [], "--suite"):
            if suite in ("", each):
                counts[each] = k or domain.suites[each].k
    stage = {"kind": "eval", "models": [MODEL], "suites": counts, **({} if limit is None else {"limit": limit})}
    stages = {MODEL: {"kind": "model", "path": model}, EVALS: {**stage, **changes.get("stages", {}).get(EVALS, {})}}
    return {"name": "eval", **changes, "domains": domains, "stages": stages}


def _read(text: str) -> tuple[str, str, int | None]:
    """Domain, suite (``""``: all) and samples per prompt (``None``: the suite's own number)."""
    domain, _, rest = text.partition(":")
    suite, _, k = rest.partition(":")
    if not domain or (k and not (k.isascii() and k.isdigit() and int(k))):
        raise ConfigError("--suite: a suite is named as DOMAIN, DOMAIN:SUITE or DOMAIN:SUITE:K", found=text)
    return domain, suite, int(k) if k else None
