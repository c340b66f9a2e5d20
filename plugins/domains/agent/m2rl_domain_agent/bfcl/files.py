"""The files of BFCL: those of v3 in a folder, or those inside an installed ``bfcl-eval``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from m2rl_core.errors import DataError
from m2rl_domain_agent.bfcl.categories import FREE

__all__ = ["DOCUMENTS", "INSTALL", "INSTALLED", "Files", "Row", "package_folder", "version"]

INSTALLED = "bfcl-eval"
"""Instead of a folder: the data of the installed package."""
INSTALL = "pip install --no-deps bfcl-eval==2025.8.6.2 && pip install mpmath"
"""The last release with v3's data. Its 25 dependencies are those of the leaderboard's models, not of its classes."""

_NAMES: Mapping[str, Mapping[str, str]] = {
    "BFCL_v3": {},
    "BFCL_v4": {"simple": "simple_python", "java": "simple_java", "javascript": "simple_javascript"},
}
"""Version → categories that its files call otherwise than v3's."""
DOCUMENTS: Mapping[str, str] = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}
"""Class of the multi-turn categories → name of the file that describes its functions, and of its module."""


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of a category with its gold."""

    place: str
    """File and line, for messages."""
    fields: Mapping[str, Any]
    gold: Any
    """``None`` in categories that have none."""


class Files:
    """A folder of BFCL's files.

    Args:
        source: the folder, or :data:`INSTALLED`.

    Raises:
        DataError: there is no such folder, or no BFCL in it.
    """

    def __init__(self, source: str) -> None:
        self.folder = package_folder() if source == INSTALLED else Path(source)
        self.version = version(self.folder)
        self._functions: dict[str, list[Mapping[str, Any]]] = {}

    def rows(self, category: str) -> list[Row]:
        """The entries of a category in their order.

        Raises:
            DataError: no such file, a row that is no entry, or one without gold; it names the row.
        """
        name = f"{self.version}_{_NAMES[self.version].get(category, category)}.json"
        golds = None if category in FREE else self._golds(name)
        return [self._row(place, entry, golds) for place, entry in _entries(self.folder / name)]

    def _golds(self, name: str) -> dict[str, Any]:
        golds: dict[str, Any] = {}
        for place, entry in _entries(self.folder / "possible_answer" / name):
            gold = entry.get("ground_truth")
            if not isinstance(gold, list) or not gold:
                raise DataError(f"{place} has no ground_truth", found=repr(gold)[:80])
            golds[entry["id"]] = gold
        return golds

    def _row(self, place: str, entry: Mapping[str, Any], golds: Mapping[str, Any] | None) -> Row:
        if golds is None:
            return Row(place, entry, None)
        if entry["id"] not in golds:
            raise DataError(f"{place}: '{entry['id']}' has no gold in possible_answer/")
        return Row(place, entry, golds[entry["id"]])

    def functions(self, name: str) -> list[Mapping[str, Any]]:
        """Descriptions of the functions of a multi-turn class.

        Raises:
            DataError: an unknown class, or no such file.
        """
        if name not in DOCUMENTS:
            raise DataError(f"BFCL has no class '{name}'", allowed=DOCUMENTS)
        if name not in self._functions:
            path = self.folder / "multi_turn_func_doc" / f"{DOCUMENTS[name]}.json"
            self._functions[name] = [function for _, function in _lines(path)]
        return self._functions[name]


def version(folder: Path) -> str:
    """``BFCL_v3`` or ``BFCL_v4``, after the names of the files.

    Raises:
        DataError: there is neither.
    """
    for each in _NAMES:
        if (folder / f"{each}_multiple.json").is_file():
            return each
    raise DataError(
        f"no BFCL in {folder}",
        allowed=f"a folder with BFCL_v3_*.json, possible_answer/ and multi_turn_func_doc/; or '{INSTALLED}'",
        then=f"{INSTALL}, and set bfcl_v3 to '{INSTALLED}'",
    )


def package_folder() -> Path:
    """The data folder of the installed ``bfcl-eval``; nothing of it is imported.

    Raises:
        DataError: it is not installed.
    """
    spec = find_spec("bfcl_eval")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("bfcl-eval is not installed", then=INSTALL)
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, entry) of every row that has an id of its own."""
    seen: set[str] = set()
    for place, entry in _lines(path):
        key = entry.get("id")
        if not isinstance(key, str) or not key or key in seen:
            raise DataError(f"{place} has no id of its own", found=repr(key)[:80])
        seen.add(key)
        yield place, entry


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"BFCL lacks the file {path}", then="copy the whole folder of upstream's data")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():  # some files end with an empty line
                place = f"{path.parent.name}/{path.name}, line {number}"
                yield place, _parsed(place, line)


def _parsed(place: str, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}, is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{place}, is no JSON object", found=type(found).__name__)
    return found
