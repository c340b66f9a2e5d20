"""Which domain owns a suite: the one domain of the study that offers it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from m2rl_core.errors import ConfigError, boundary, nearest
from m2rl_core.interfaces import Domain

__all__ = ["suite_owners"]


def suite_owners(domains: Mapping[str, Domain], wanted: Collection[str], where: str) -> dict[str, str]:
    """Every suite that exactly one of ``domains`` offers → that domain's name, in the order of the domains.

    A suite that misses something, such as the file it is read from, is offered only to those who name it.

    Args:
        wanted: suites that must be among them; if empty, all that are offered must, and there must be one.
        where: dotted path of ``wanted`` in the study, for messages.

    Raises:
        ConfigError: a wanted suite that no domain offers, or several do, or that misses something.
        StageError: a domain that fails to list its suites.
    """
    offers: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for name, domain in domains.items():
        with boundary(f"domain '{name}'", "listing its suites"):
            for suite, declared in domain.suites.items():
                if declared.missing:
                    missing[suite] = declared.missing
                else:
                    offers.setdefault(suite, []).append(name)
    if not wanted and not offers:
        raise ConfigError(f"{where}: no domain of this study has a suite")
    for suite in wanted or offers:
        if suite not in offers and suite in missing:
            raise ConfigError(f"{where}: suite '{suite}' has nothing to read", then=missing[suite])
        if suite not in offers:
            raise ConfigError(f"{where}: there is no suite '{suite}'.{nearest(suite, offers)}", allowed=sorted(offers))
        if len(offers[suite]) > 1:
            raise ConfigError(f"{where}: suite '{suite}' is offered by several domains", found=", ".join(offers[suite]))
    return {suite: names[0] for suite, names in offers.items() if len(names) == 1}
