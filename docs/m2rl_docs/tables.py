"""Markdown tables, and those of settings."""

from __future__ import annotations

import re
from collections.abc import Iterable

from m2rl_core.describe import REQUIRED, Setting

__all__ = ["settings_table", "table"]

BAR = re.compile(r"(`[^`]*`)|\|")
"""Code, or else a bar."""


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; a cell is one line, and its bars are escaped where they are not within code."""
    cells = [[" ".join(BAR.sub(lambda found: found[1] or r"\|", cell).split()) for cell in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def settings_table(settings: Iterable[Setting]) -> str:
    """A row per setting; a sentence where there are none."""
    rows = [[f"`{each.name}`", each.type, _default(each), each.text] for each in settings]
    if not rows:
        return "No settings."
    return f'<div class="settings" markdown>\n\n{table(["setting", "type", "default", "meaning"], rows)}\n\n</div>'


def _default(setting: Setting) -> str:
    return setting.default if setting.default == REQUIRED else f"`{setting.default}`"
