"""The functions of the Python API: exact signatures, and what their docstrings say, as Markdown."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

from m2rl_core import api
from m2rl_core.describe import markdown
from m2rl_docs.tables import table

__all__ = ["python_api", "signature"]

FUNCTIONS = (api.open_study, api.check, api.run, api.evaluate, api.merge, api.verify)
WIDTH = 88
"""Of the signatures, in characters."""
SECTION = re.compile(r"^(Args|Returns|Raises):\n((?:    .*\n|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"^(\w[\w, ]*): ", re.MULTILINE)


def python_api() -> str:
    """Markdown."""
    return "\n".join(map(_function, FUNCTIONS))


def signature(function: Callable[..., Any]) -> str:
    """As the source has it, without its body."""
    tree = ast.parse(inspect.getsource(function)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    arguments, result = _arguments(tree.args), ast.unparse(tree.returns or ast.Constant(None))
    line = f"def {tree.name}({', '.join(arguments)}) -> {result}: ..."
    if len(line) <= WIDTH:
        return line
    lines = "".join(f"    {each},\n" for each in arguments)
    return f"def {tree.name}(\n{lines}) -> {result}: ..."


def _arguments(found: ast.arguments) -> list[str]:
    """One text each, the mark before those that are named included."""
    plain = [None] * (len(found.args) - len(found.defaults)) + list(found.defaults)
    named = zip(found.kwonlyargs, found.kw_defaults, strict=True)
    star = ["*"] if found.kwonlyargs else []
    return [*_shown(zip(found.args, plain, strict=True)), *star, *_shown(named)]


def _shown(arguments: Any) -> list[str]:
    return [ast.unparse(each) + (f" = {ast.unparse(default)}" if default else "") for each, default in arguments]


def _function(function: Callable[..., Any]) -> str:
    text = inspect.getdoc(function) or ""
    parts = {name: inspect.cleandoc(body) for name, body in SECTION.findall(f"{text}\n")}
    lines = [
        f"## {function.__name__}",
        f"```python\n{signature(function)}\n```",
        markdown(text.partition("\nArgs:\n")[0]).strip(),
        table(["argument", "meaning"], _entries(parts["Args"])),
        f"**Returns** {markdown(parts['Returns'])}" if "Returns" in parts else "",
        table(["raises", "where"], _entries(parts["Raises"])),
    ]
    return "\n\n".join(filter(None, lines)) + "\n"


def _entries(body: str) -> list[list[str]]:
    """``name: text`` as (name, text)."""
    _, *found = ENTRY.split(body)
    return [[f"`{name}`", markdown(text)] for name, text in zip(found[::2], found[1::2], strict=True)]
