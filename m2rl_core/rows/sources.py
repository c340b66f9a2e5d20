"""Where rows come from: local files, or a data set of the hub at one commit. Nothing is held but a few rows.

Parquet files, data sets that ``save_to_disk`` has written and the hub give every row all columns; what is null there is
left out, as in the blend's JSON lines.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.files import numbered_rows

__all__ = ["Numbered", "is_commit", "is_hub_id", "local_files", "numbered", "on_hub"]

Numbered = tuple[str, int, dict[str, Any]]
"""File or hub id, number of the row in it from 1, the row."""

SUFFIXES = (".jsonl", ".parquet")
SAVED, SPLITS = "state.json", "dataset_dict.json"
"""Files of a folder that ``save_to_disk`` of ``datasets`` has written: of a data set, of one with several splits."""
FORMS = (
    "'generated', the path of a local .jsonl or .parquet file, of a folder of such or of one written by save_to_disk "
    "(with a slash), or a hub id with its commit, OWNER/NAME@COMMIT or OWNER/NAME@COMMIT:SPLIT"
)
BATCH = 64
"""Rows of a parquet file that are held at a time: one may have megabytes of unit tests."""
_PINNED = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([^:]*))?(?::([\w.-]+))?")


@dataclass(frozen=True)
class _OnHub:
    name: str
    commit: str
    split: str

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}:{self.split}"


def is_hub_id(text: str) -> bool:
    """True for ``OWNER/NAME``."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None


def is_commit(text: str) -> bool:
    """True for 40 hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None


def on_hub(source: str) -> bool:
    """True for a data set of the hub at a commit: reading it takes a network. Nothing is read here."""
    try:
        return isinstance(_resolved(source), _OnHub)
    except DataError:
        return False


def local_files(source: str) -> list[Path]:
    """The files of a local source, in the order in which they are read; none for a data set of the hub.

    Raises:
        DataError: as :func:`numbered`, at once.
    """
    found = _resolved(source)
    return [] if isinstance(found, _OnHub) else found


def numbered(source: str) -> Iterator[Numbered]:
    """All rows of ``source``; the files of a folder in the order of their names.

    Raises:
        DataError: at once: there is no such file, the folder has no rows or several splits, or a hub id is not pinned.
            While iterating: a row that is no JSON object, after which the iterator goes on with the next one, or a file
            or data set that cannot be read, after which it goes on with the next file; a package that is missing.
    """
    found = _resolved(source)
    if isinstance(found, _OnHub):
        return _hub_rows(found)
    return chain.from_iterable(map(_file_rows, found))  # chain, too, outlives what its parts raise


def _resolved(source: str) -> list[Path] | _OnHub:
    path = Path(os.path.expanduser(source))
    if path.is_file() and path.suffix in SUFFIXES:
        return [path]
    if "/" in source and path.is_dir():
        return _files(path)
    named = _PINNED.fullmatch(source)
    if named is None or path.suffix in SUFFIXES or source.startswith((".", "/", "~")):
        raise DataError("no rows to read", found=repr(source), allowed=FORMS)
    name, commit, split = named.groups()
    if not is_commit(commit or ""):
        raise DataError(
            f"'{name}' is no local file or folder, and what comes from the hub is pinned",
            found=repr(source),
            allowed=f"{FORMS}; a commit is 40 hexadecimal digits",
            then=f"copy the newest from https://huggingface.co/datasets/{name}/commits",
        )
    return _OnHub(name, commit, split or "train")


def _files(folder: Path) -> list[Path]:
    if (folder / SPLITS).is_file():
        splits = _names(folder / SPLITS, lambda said: said["splits"])
        raise DataError(
            f"the folder {folder} holds several splits", found=", ".join(splits), then=f"name one: {folder}/{splits[0]}"
        )
    if (folder / SAVED).is_file() and list(folder.glob("*.arrow")):
        # a map over the data set leaves other files beside its own
        names = _names(folder / SAVED, lambda said: [each["filename"] for each in said["_data_files"]])
        return [folder / name for name in names]
    paths = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file() and not p.name.startswith("."))
    if not paths:
        raise DataError(f"the folder {folder} has no rows", allowed=f"files that end in {' or '.join(SUFFIXES)}")
    return paths


def _names(file: Path, listed: Callable[[Any], Any]) -> list[str]:
    """What one of the files that ``save_to_disk`` writes beside the data lists."""
    try:
        names = listed(json.loads(file.read_bytes()))
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{file} lists no files of a data set", found=repr(error), then="save it again") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} lists no files of a data set", found=repr(names)[:80], then="save it again")
    return names


def _file_rows(path: Path) -> Iterator[Numbered]:
    readers: Mapping[str, Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]] = {
        ".jsonl": partial(numbered_rows, torn=False), ".parquet": _parquet_rows, ".arrow": _saved_rows,
    }  # fmt: skip
    rows = readers[path.suffix](path)

    def placed(row: tuple[int, dict[str, Any]]) -> Numbered:
        return str(path), *row

    return map(placed, rows)  # unlike a generator, a map outlives what its parts raise


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    arrow, parquet = (_library(name, str(path)) for name in ("pyarrow", "pyarrow.parquet"))
    try:
        with parquet.ParquetFile(path) as file:
            rows = chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(BATCH))
            yield from ((number, _without_nulls(row)) for number, row in enumerate(rows, 1))
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from error


def _saved_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Of one of the files that ``save_to_disk`` writes, which are mapped into memory."""
    datasets = _library("datasets", str(path))
    try:
        yield from (
            (number, _without_nulls(row)) for number, row in enumerate(datasets.Dataset.from_file(str(path)), 1)
        )
    except Exception as error:  # the library lets through whatever its own libraries raise
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _hub_rows(hub: _OnHub) -> Iterator[Numbered]:
    datasets = _library("datasets", str(hub))
    try:
        stream = datasets.load_dataset(hub.name, split=hub.split, revision=hub.commit, streaming=True)
        yield from ((str(hub), number, _without_nulls(row)) for number, row in enumerate(stream, 1))
    except Exception as error:  # the library lets through whatever its own libraries raise
        raise DataError(
            f"{hub} cannot be read: {type(error).__name__}: {error}",
            then=f"without a network, copy it where there is one, 'hf download {hub.name} --repo-type dataset "
            f"--revision {hub.commit} --local-dir FOLDER', and name the folder with its .jsonl or .parquet files",
        ) from error


def _library(name: str, needed_for: str) -> Any:
    """An optional dependency.

    Raises:
        DataError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise DataError(
            f"{needed_for} needs the package '{package}': {error}", then="pip install 'm2rl-core[data]'"
        ) from error


def _without_nulls(value: Any) -> Any:
    """``value`` without the keys that a table gave it for other rows' sake; nulls in lists stay."""
    match value:
        case dict():
            return {key: _without_nulls(below) for key, below in value.items() if below is not None}
        case list():
            return [_without_nulls(below) for below in value]
    return value
