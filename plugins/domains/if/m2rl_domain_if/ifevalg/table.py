"""The table that the modules of this package fill."""

from __future__ import annotations

from m2rl_domain_if.registry import Table

__all__ = ["TABLE"]

TABLE = Table()
