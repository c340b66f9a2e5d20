"""Writing that a crash or a full disk cannot tear."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from m2rl_core.errors import DataError, RunError
from m2rl_core.files import (
    append_jsonl,
    atomic_file,
    atomic_folder,
    content_hash,
    locked,
    make_folder,
    numbered_rows,
    read_jsonl,
    sweep,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_python(code: str, *args: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "deep" / "model") as folder:
        (folder / "weights").write_text("w")
        assert not (tmp_path / "deep" / "model").exists()
    assert names(tmp_path / "deep") == ["model"]
    assert (tmp_path / "deep" / "model" / "weights").read_text() == "w"


def test_a_folder_replaces_an_older_one(tmp_path: Path) -> None:
    for version in ("old", "new"):
        with atomic_folder(tmp_path / "model") as folder:
            (folder / version).touch()
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["new"]


def test_an_exception_leaves_the_older_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "old").touch()
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "model") as folder:
        shutil.copy(tmp_path / "nothing", folder / "new")
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["old"]


def test_kill_leaves_only_what_sweep_removes(tmp_path: Path) -> None:
    code = """
    import os, signal, sys
    from pathlib import Path
    from m2rl_core.files import atomic_folder
    with atomic_folder(Path(sys.argv[1]) / "model") as folder:
        (folder / "half").write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(code, tmp_path).returncode == -signal.SIGKILL
    (tmp_path / ".keep").touch()
    assert len(names(tmp_path)) == 2
    sweep(tmp_path)
    assert names(tmp_path) == [".keep"]


def test_sweep_goes_deep_where_asked(tmp_path: Path) -> None:
    torn = tmp_path / "state" / ".step.part-1"
    torn.mkdir(parents=True)
    sweep(tmp_path)
    assert torn.exists()
    sweep(tmp_path, deep=True)
    assert not torn.exists()
    assert torn.parent.exists()


def test_text_is_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "1")
    write_text(tmp_path / "a", "äöü")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "äöü"
    assert names(tmp_path) == ["a"]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    for version in (b"old", b"new"):
        with atomic_file(path) as file:
            file.write(version)
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["rows"]


@pytest.mark.parametrize("name", [300 * "x", "file/model", "/proc/model"], ids=["long", "file", "proc"])
def test_a_place_where_no_folder_can_be_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    said = r"cannot be written: .* Next: name another folder"
    with pytest.raises(RunError, match=said), atomic_folder(tmp_path / name):
        pass
    with pytest.raises(RunError, match=said):
        make_folder(tmp_path / name)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["/dev/null", ".", "nowhere/rows"])
def test_what_can_be_no_file_is_left_alone(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="cannot be written"), atomic_file(tmp_path / name):
        pass
    assert names(tmp_path) == []
    assert Path("/dev/null").is_char_device()


def test_rows_come_back(tmp_path: Path) -> None:
    rows = [{"step": 0, "text": "π ≠ 3\n"}, {"step": 1, "nested": [1.5, None, {"x": True}]}]
    append_jsonl(tmp_path / "rows", rows[:1])
    append_jsonl(tmp_path / "rows", rows[1:])
    assert list(read_jsonl(tmp_path / "rows")) == rows
    assert (tmp_path / "rows").read_bytes().count(b"\n") == 2


def test_what_json_does_not_know(tmp_path: Path) -> None:
    append_jsonl(tmp_path / "rows", [{"a": math.nan, "b": (1.0, -math.inf), "c": "\ud800"}])
    assert list(read_jsonl(tmp_path / "rows")) == [{"a": None, "b": [1.0, None], "c": "\ud800"}]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text('{"step": 0}\n{"step": 1, "rew')
    assert list(read_jsonl(tmp_path / "rows")) == [{"step": 0}]


@pytest.mark.parametrize("line", ["nonsense", "[1, 2]"])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows").write_text(f'{{"step": 0}}\n{line}\n')
    with pytest.raises(DataError, match="line 2"):
        list(read_jsonl(tmp_path / "rows"))


def test_reading_goes_on_after_a_wrong_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\nnonsense\n[]\n' + "[" * 100_000 + '\n{"a": 2}\n{"a"')
    found = numbered_rows(path, torn=False)
    assert next(found) == (1, {"a": 1})
    for number in (2, 3, 4):
        with pytest.raises(DataError, match=f"line {number},"):
            next(found)
    assert next(found) == (5, {"a": 2})
    with pytest.raises(DataError, match="line 6,"):
        next(found)
    assert list(found) == []


def test_content_hash_sees_names_and_bytes_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text("x")
    (tmp_path / "two" / ".cache").mkdir()
    (tmp_path / "two" / ".cache" / "junk").touch()
    os.utime(tmp_path / "two" / "sub" / "file", (0, 0))
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")
    (tmp_path / "two" / "sub" / "file").rename(tmp_path / "two" / "sub" / "other")
    assert content_hash(tmp_path / "one") != content_hash(tmp_path / "two")
    # sha256 of "x", by hand
    assert content_hash(tmp_path / "one" / "sub" / "file").startswith("2d711642b726b04401627ca9fbac32f5")


def test_a_lock_names_its_holder(tmp_path: Path) -> None:
    code = """
    import sys
    from pathlib import Path
    from m2rl_core.files import locked
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(RunError, match=f"process {holder.pid}"), locked(tmp_path / "lock"):
            pass
        holder.kill()
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_full_disk_is_named_and_leaves_nothing_half(tmp_path: Path) -> None:
    """On a real file system of 256 KiB."""
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    mount = f'mount -t tmpfs -o size=256k none {tmp_path} && exec "$0" "$@"'
    if subprocess.run([*prefix, mount, "true"], capture_output=True).returncode:
        pytest.skip("this system does not let a user mount a file system")
    code = """
    import json, sys
    from pathlib import Path
    from m2rl_core.errors import RunError
    from m2rl_core.files import append_jsonl, atomic_folder, write_text
    root, found = Path(sys.argv[1]), []
    append_jsonl(root / "rows", [{"step": 0}])
    write_text(root / "text", "old")

    def folder():
        with atomic_folder(root / "model") as new:
            (new / "weights").write_bytes(bytes(1 << 20))

    def safetensors():
        import numpy, safetensors.numpy
        with atomic_folder(root / "model") as new:
            safetensors.numpy.save_file({"w": numpy.zeros(1 << 20)}, new / "weights")

    def text():
        write_text(root / "text", "x" * (1 << 20))

    def rows():
        append_jsonl(root / "rows", [{"step": 1, "text": "x" * (1 << 20)}])

    for attempt in (folder, safetensors, text, rows):
        try:
            attempt()
        except RunError as error:
            found.append(str(error))
    files = {path.name: path.read_text() for path in root.iterdir()}
    print(json.dumps([found, files]))
    """
    done = run_python(code, tmp_path, prefix=(*prefix, mount))
    assert done.returncode == 0, done.stderr
    messages, files = json.loads(done.stdout)
    assert len(messages) == 4
    assert all("no space left" in message and str(tmp_path) in message for message in messages)
    assert files == {"rows": '{"step":0}\n', "text": "old"}
