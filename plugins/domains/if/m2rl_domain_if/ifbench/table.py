"""The table that the modules of this folder fill, and the types of the arguments that IFBench's rows give."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, StringConstraints

from m2rl_domain_if.registry import Table

__all__ = ["TABLE", "Index", "Percent", "Phrase", "PositiveInt", "Text"]

TABLE = Table()

Percent = Annotated[float, Field(ge=0, le=100)]
Index = Annotated[int, Field(ge=0)]
"""Of a character, from 0."""
Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""A keyword: an empty one would be found everywhere."""
Text = Annotated[str, Field(pattern=r"\S")]
"""A passage of the prompt, as it is."""
