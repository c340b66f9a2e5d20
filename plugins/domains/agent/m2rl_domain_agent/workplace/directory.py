"""The company directory."""

from __future__ import annotations

from m2rl_domain_agent.workplace.failures import needed
from m2rl_domain_agent.workplace.pages import found_in
from m2rl_domain_agent.workplace.tables import Workplace

__all__ = ["find_email_address"]


def find_email_address(work: Workplace, name: str = "") -> list[str]:
    """All addresses that contain ``name``."""
    needed(name=name)
    return [address for address in work.addresses if found_in(name, address)]
