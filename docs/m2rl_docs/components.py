"""A page per plugin: what it offers, every setting from its ``Config``, and its own README."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

from m2rl_core.describe import describe
from m2rl_core.plugins import load_plugins
from m2rl_core.registry import KINDS, Entry, Registry
from m2rl_docs.tables import settings_table, table

__all__ = ["component_index", "plugin_pages"]

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
CORE = "m2rl-core"
URL = re.compile(r"https://[^\s;,)]+")
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)[^)]+\)")


@cache
def _offers() -> dict[str, tuple[list[Entry], Path | None]]:
    """Distribution → what it offers, and its folder: the core, and every folder below plugins/, installed or not."""
    offers: dict[str, tuple[list[Entry], Path | None]] = {CORE: (_of(load_plugins(), CORE), None)}
    for folder in sorted(path.parent for path in PLUGINS.glob("*/*/pyproject.toml")):
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        registry = Registry()
        for target in project["entry-points"]["m2rl"].values():
            registry.register(import_module(target), distribution=project["name"], version=project["version"])
        offers[project["name"]] = (_of(registry, project["name"]), folder)
    return offers


def plugin_pages() -> dict[str, str]:
    """Path below docs/ → Markdown, for the core's own components and for every plugin."""
    return {_path(name): _page(name, *found) for name, found in _offers().items()}


def component_index() -> str:
    """A table of all components, as Markdown, with links from a page beside those of the plugins."""
    rows = [
        [entry.kind, f"[`{entry.name}`]({_path(name).removeprefix('plugins/')})", _summary(entry)]
        for kind in KINDS
        for name, (entries, _) in _offers().items()
        for entry in entries
        if entry.kind == kind
    ]
    return table(["kind", "name", "what it is"], rows)


def _of(registry: Registry, distribution: str) -> list[Entry]:
    found = [registry.lookup(kind, name) for kind in KINDS for name in registry.names(kind)]
    return [entry for entry in found if entry.distribution == distribution]


def _path(distribution: str) -> str:
    return f"plugins/{distribution.removeprefix('m2rl-')}.md"


def _page(distribution: str, entries: Sequence[Entry], folder: Path | None) -> str:
    how = "Part of the core." if folder is None else f"```bash\npip install {distribution}\n```"
    parts = [f"# {distribution.removeprefix('m2rl-')}\n\n{how}\n", *map(_component, entries)]
    return "\n".join([*parts, *([] if folder is None else [_readme(folder)])])


def _readme(folder: Path) -> str:
    """The plugin's own README a heading lower, without links to files, which the site does not have.

    Bars within code are escaped for GitHub's tables; those of this site take them as they are.
    """
    body = (folder / "README.md").read_text().removeprefix("# ").partition("\n")[2]
    body = LINK.sub(r"\1", re.sub(r"^(#+ )", r"#\1", body, flags=re.MULTILINE))
    body = CODE.sub(lambda found: found[0].replace(r"\|", "|"), body)
    return f"## About this plugin\n\n{body.strip()}\n"


def _component(entry: Entry) -> str:
    found = describe(entry)
    lines = [
        f"## {found.kind} `{found.name}`",
        found.text,
        "Defined by: " + URL.sub(r"<\g<0>>", found.reference) + ".",
        settings_table(found.settings),
    ]
    if found.presets:
        rows = [[f"`{each.name}`", f"`{each.settings}`", each.note] for each in found.presets]
        lines.append(table(["preset", "settings", "meaning"], rows))
    return "\n\n".join(lines) + "\n"


def _summary(entry: Entry) -> str:
    return describe(entry).text.partition("\n\n")[0]
