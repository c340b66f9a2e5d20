"""Files that a crash cannot tear.

Whatever must be whole is written under a temporary name beside its place, flushed to the disk and renamed; what is
appended to (JSON lines) may lose its last line only. Temporary names start with a dot and hold :data:`MARK`, so that
:func:`sweep` finds what a crash left behind. This module imports no torch.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

from m2rl_core.errors import DataError, RunError

__all__ = [
    "append_jsonl",
    "atomic_file",
    "atomic_folder",
    "content_hash",
    "content_hashes",
    "fsync_tree",
    "jsonl_line",
    "left_over",
    "locked",
    "make_folder",
    "newest_first",
    "numbered_rows",
    "place_for",
    "read_jsonl",
    "room",
    "sweep",
    "temporary_folder",
    "write_text",
]

MARK = ".part-"
_GULP = 1 << 22
"""Bytes that a file is read by from its end."""


def _temporary(path: Path, use: str = "") -> Path:
    return path.with_name(f".{path.name}{MARK}{use}{os.getpid()}")


def left_over(path: Path) -> list[Path]:
    """What processes that were killed, or are still at work, have beside ``path`` under temporary names."""
    return sorted(path.parent.glob(f".{path.name}{MARK}*"))


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder``, and ``folder`` itself, to the disk."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            _fsync(path)
    _fsync(folder)


@contextmanager
def room(path: Path) -> Iterator[None]:
    """Name a full disk for what it is, whoever wrote.

    Raises:
        RunError: instead of any exception that a full disk at ``path`` explains.
    """
    try:
        yield
    except Exception as error:
        if not _is_full(error, path):
            raise
        raise RunError(
            f"no space left on the disk that holds {path}",
            found=f"{_free(path) >> 20} MiB free",
            then="free some space and run the same command again; what is finished is kept",
        ) from error


def _is_full(error: Exception, path: Path) -> bool:
    """safetensors puts the system's words into its own exception; torch says only that a write failed."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if "No space left on device" in str(error):
        return True
    return type(error) is RuntimeError and _free(path) < 1 << 20


def _free(path: Path) -> int:
    """Bytes left on the disk that holds ``path``."""
    return shutil.disk_usage(next(p for p in path.absolute().parents if p.exists())).free


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder that becomes ``path`` when the block ends, whole or not at all; an older ``path`` is replaced.

    Raises:
        RunError: the disk is full, or ``path`` is no place for a folder; nothing is left behind.
    """
    temporary, old = _temporary(path), _temporary(path, "old-")
    try:
        with room(path):  # inside: what it looks for is gone once the temporary folder is
            _make(temporary, path)
            yield temporary
            fsync_tree(temporary)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
            _fsync(path.parent)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """``path`` and the folders above it, as far as they are not there.

    Raises:
        RunError: it cannot be made, or is a file.
    """
    with place_for(path):
        path.mkdir(parents=True, exist_ok=True)


def _make(temporary: Path, path: Path) -> None:
    with place_for(path):
        temporary.mkdir(parents=True)


@contextmanager
def place_for(path: Path) -> Iterator[None]:
    """Say that no folder can be at ``path``; of a full disk :func:`room` tells.

    Raises:
        RunError: instead of what making it, or looking at its place, raises.
    """
    try:
        yield
    except OSError as error:
        if _is_full(error, path):
            raise
        raise RunError(f"{path} cannot be written: {error.strerror}", then="name another folder") from error


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` that is gone when the block ends; what a crash leaves of it, :func:`sweep` finds."""
    folder = _temporary(path)
    try:
        with room(path):
            _make(folder, path)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that becomes ``path`` when the block ends, whole or not at all; an older ``path`` is replaced.

    Raises:
        RunError: the disk is full, or ``path`` is no place for a file; what was there is untouched.
    """
    if path.exists() and not path.is_file():  # renaming would replace a device, too
        raise RunError(f"{path} cannot be written: it is no file")
    temporary = _temporary(path)
    with room(path):
        try:
            with _created(temporary, path) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _created(temporary: Path, path: Path) -> BinaryIO:
    try:
        return temporary.open("wb")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        RunError: as :func:`atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(text.encode())


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one line per row. Numbers that JSON does not know (NaN, ±∞) become ``null``.

    Not flushed to the disk: a killed process loses nothing, a power cut may lose the newest lines.

    Raises:
        RunError: the disk is full; the file ends as it did before.
    """
    view = memoryview(b"".join(map(jsonl_line, rows)))
    with room(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(handle).st_size
        try:
            while view:
                view = view[os.write(handle, view) :]
        except OSError:
            os.ftruncate(handle, size)
            raise
        finally:
            os.close(handle)


def jsonl_line(row: Mapping[str, Any]) -> bytes:
    """One line of a file of JSON objects. Numbers that JSON does not know (NaN, ±∞) become ``null``."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(row), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON objects; a torn last line, still being written, is left out.

    Raises:
        DataError: as :func:`numbered_rows`.
    """
    return map(itemgetter(1), numbered_rows(path))


def numbered_rows(path: Path, *, torn: bool = True) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of its line, row) for every row of a file of JSON objects.

    Args:
        torn: a last line that is no JSON and has no end is still being written, and left out; else it is an error.

    Raises:
        DataError: a line that is no JSON object; it names the line. The iterator then goes on with the next one.
    """

    def row(numbered: tuple[int, bytes]) -> tuple[int, dict[str, Any]]:
        number, line = numbered
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}, is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise DataError(f"{path}, line {number}, is no JSON object", found=type(found).__name__)
        return number, found

    return map(row, _numbered_lines(path, torn))  # unlike a generator, a map outlives what its function raises


def _numbered_lines(path: Path, torn: bool) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not torn or line.endswith(b"\n") or _is_json(line):
                yield number, line


def newest_first(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON objects from the last to the first, read from its end; a torn last line is left out.

    Raises:
        DataError: a line that is no JSON object.
    """
    for number, line in enumerate(_backwards(path)):
        if not line or (number == 0 and not _is_json(line)):
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number} from its end, is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number} from its end, is no JSON object", found=type(row).__name__)
        yield row


def _backwards(path: Path) -> Iterator[bytes]:
    """The lines of a file, the last one first; before them what follows the last line's end, or nothing."""
    with path.open("rb") as file:
        end, rest = file.seek(0, os.SEEK_END), b""
        while end:
            start = max(0, end - _GULP)
            file.seek(start)
            rest, *lines = (file.read(end - start) + rest).split(b"\n")
            yield from reversed(lines)
            end = start
        yield rest


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def content_hash(path: Path) -> str:
    """SHA-256 [hex] of a file, or of all files of a folder with their relative names; hidden files are left out."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digests = content_hashes(path)
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in digests.items()).encode()).hexdigest()


def content_hashes(folder: Path, *, hidden: bool = False) -> dict[str, str]:
    """Relative name → SHA-256 [hex] of every file below ``folder``, sorted by name; hidden ones where asked for."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = sorted(path.as_posix() for path in found if hidden or not _is_hidden(path))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
        return dict(zip(names, pool.map(lambda name: content_hash(folder / name), names), strict=True))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def sweep(folder: Path, *, deep: bool = False) -> None:
    """Remove the temporary files and folders that a crash left in ``folder``, and below it where ``deep``."""
    for path in list((folder.rglob if deep else folder.glob)(f".*{MARK}*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path``; the system frees it when the process ends, however it ends.

    Raises:
        RunError: another process holds it, and ``wait`` is False; it names that process.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise RunError(
                f"{path.parent} is in use by process {file.read().strip() or 'unknown'}",
                then="wait for it to end, or stop it",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
