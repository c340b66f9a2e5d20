"""Secrets in texts and in settings: what must be in no message, log, report or copy of a study.

A secret is known by its form (a password in a URL, a key of a well-known service), by the name of the setting that
holds it, or because an environment variable such as ``HF_TOKEN`` or ``JUDGE_API_KEY`` holds the same text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["MASK", "masked", "redacted", "secrets_in"]

MASK = "***"
SHORTEST = 8
"""Characters of an environment variable's value that is looked for: shorter ones occur by chance."""
_FORMS = (
    re.compile(r"(?<=://)[^\s/@?#'\"]+(?=@)"),  # user:password@host
    re.compile(r"(?<=[?&])((?:api[-_]?key|key|(?:\w+_)?token|secret|password|sig|signature)=)[^&\s#'\"]+", re.I),
    re.compile(r"\b(Bearer\s+)[\w.~+/=-]{12,}", re.I),
    re.compile(
        r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[\w-]{16,}|nvapi-[\w-]{16,}|gh[pousr]_\w{20,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16})"
    ),
)
_VARIABLE = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)$")
_SETTING = re.compile(
    r"(?:.*[_-])?(?:api_?key|access_?key|secret|secret_?key|password|passwd|passphrase|authorization|credentials?)"
    r"|token|(?:access|api|auth|bearer|hf|hub)_?token",
    re.I,
)


def redacted(text: str) -> str:
    """``text`` with ``***`` in the place of every secret."""
    for form in _FORMS:
        text = form.sub(lambda found: (found[1] if found.re.groups else "") + MASK, text)
    for value in _known():
        text = text.replace(value, MASK)
    return text


def _known() -> list[str]:
    """Secrets that environment variables hold, the longest first."""
    values = {value for name, value in os.environ.items() if _VARIABLE.search(name.upper())}
    return sorted((value for value in values if len(value) >= SHORTEST), key=len, reverse=True)


def masked(value: Any, key: object = "") -> Any:
    """``value`` of the setting ``key``, plain data, with every secret below it replaced."""
    match value:
        case str():
            return MASK if value and _SETTING.fullmatch(str(key)) else redacted(value)
        case Mapping():
            return {name: masked(below, name) for name, below in value.items()}
        case list() | tuple():
            return [masked(below, key) for below in value]
    return value


def secrets_in(value: Any, path: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """The paths of all settings at or below ``value`` that hold a secret."""
    match value:
        case str():
            name = next((part for part in reversed(path) if isinstance(part, str)), "")
            if masked(value, name) != value:
                yield path
        case Mapping():
            for key, below in value.items():
                yield from secrets_in(below, (*path, key))
        case list() | tuple():
            for index, below in enumerate(value):
                yield from secrets_in(below, (*path, index))
