"""Unit tests in the packed form of LiveCodeBench: base64 of zlib of a pickled text of JSON.

A pickle can run any code when it is read. This one may hold text in plain containers and nothing else: whatever asks
for a class or a function is refused.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from m2rl_core.errors import DataError

__all__ = ["Unpacked", "unpacked"]

LARGEST = 1 << 29
"""Bytes of the tests of one problem, unpacked."""
_SHAPE = "[{input: text, output: text}, ...] as JSON, or packed as LiveCodeBench does"


class _TextOnly(pickle.Unpickler):
    """Reads text in lists and dictionaries; knows no class and no function."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"asks for {module}.{name}")

    def persistent_load(self, key: object) -> NoReturn:
        raise pickle.UnpicklingError("asks for something elsewhere")


class Unpacked(NamedTuple):
    """What was packed."""

    pairs: list[tuple[str, str]]
    """(input, output) of every test."""
    name: object = None
    """The function to be called; SandboxFusion's copies pack it with the tests."""


def unpacked(place: str, given: object) -> Unpacked:
    """The tests in ``given``: a list as JSON, plain or packed; none for ``None``.

    Raises:
        DataError: it is something else, or larger than :data:`LARGEST` bytes.
    """
    if given is None:
        return Unpacked([])
    try:
        return _pairs(_listed(given))
    except (ValueError, TypeError, LookupError, RecursionError, EOFError, MemoryError) as error:
        found = f"{type(error).__name__}: {error}"
    except (pickle.UnpicklingError, zlib.error, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
    raise DataError(f"{place} has tests that cannot be read", found=found[:200], allowed=_SHAPE)


def _listed(given: object) -> Any:
    if not isinstance(given, str):
        raise TypeError(f"{type(given).__name__}, not text")
    if given.lstrip()[:1] in ("[", "{"):
        return json.loads(given)
    return json.loads(_text(_inflated(given)))


def _inflated(given: str) -> bytes:
    try:
        packed = base64.b64decode(given, validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from error
    inflate = zlib.decompressobj()
    data = inflate.decompress(packed, LARGEST)
    if inflate.unconsumed_tail:
        raise ValueError(f"more than {LARGEST} bytes")
    return data


def _text(data: bytes) -> str:
    """The pickled text; SandboxFusion's copies hold it as the ``input_output`` of a dictionary."""
    value = _TextOnly(io.BytesIO(data)).load()
    text = value.get("input_output") if type(value) is dict else value
    if type(text) is not str:
        raise TypeError(f"a pickled {type(text).__name__}, not text")
    return text


def _pairs(listed: Any) -> Unpacked:
    """From LiveCodeBench's list of tests, or SandboxFusion's of either kind."""
    is_table = isinstance(listed, Mapping)
    if is_table:
        pairs = list(zip(listed["inputs"], listed["outputs"], strict=True))
    else:
        pairs = [_pair(each["input"], each["output"]) for each in listed]
    if not all(isinstance(text, str) for pair in pairs for text in pair):
        raise TypeError("a test that is not text")
    return Unpacked(pairs, listed.get("fn_name") if is_table else None)


def _pair(given: Any, expected: Any) -> tuple[Any, Any]:
    return (given["stdin"], expected["stdout"]) if isinstance(given, Mapping) else (given, expected)
