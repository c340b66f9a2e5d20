"""MkDocs hooks that fill pages while the site is built, so that they always say what the code says.

In a page, a line ``<!-- source: MODULE.NAME -->`` stands for the source of that class or function, and
``<!-- made: NAME -->`` for one of :data:`MADE`. The plugins' pages are made as a whole.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

from m2rl_docs.commands import commands
from m2rl_docs.components import component_index, plugin_pages
from m2rl_docs.python_api import python_api
from m2rl_docs.study_file import study_file

SOURCE = re.compile(r"^<!-- source: ([\w.]+)\.(\w+) -->$", re.MULTILINE)
MADE = {"commands": commands, "components": component_index, "python": python_api, "study-file": study_file}
PLACE = re.compile(r"^<!-- made: ([\w-]+) -->$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """List the plugins' pages in the navigation."""
    for entry in config.nav or ():
        if isinstance(entry, dict) and "Plugins" in entry:
            entry["Plugins"] = ["plugins/index.md", *plugin_pages()]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the plugins' pages."""
    for path, content in plugin_pages().items():
        files.append(File.generated(config, path, content=content))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is made, and source code, where a page asks for it."""
    markdown = PLACE.sub(lambda found: MADE[found[1]](), markdown)
    return SOURCE.sub(lambda found: f"```python\n{_source(*found.groups())}```", markdown)


@event_priority(-100)  # after the plugin that writes the index
def on_post_build(config: MkDocsConfig) -> None:
    """Put the search's index into a script: pages that were opened without a server may load nothing else."""
    index = Path(config.site_dir) / "search" / "search_index.json"
    index.with_suffix(".js").write_text(f"var __index = {index.read_text()}")


def _source(module: str, name: str) -> str:
    return inspect.getsource(getattr(import_module(module), name))
