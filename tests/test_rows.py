"""Rows of the blend's schema."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m2rl_core.config import grounded
from m2rl_core.config.study import Study
from m2rl_core.errors import DataError
from m2rl_core.procedural import ProceduralConfig, ProceduralDomain
from m2rl_core.rows import gold, messages, on_hub, rows
from m2rl_core.study.keys import _by_content
from m2rl_core.types import Prompt

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "rows"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MATH = {"dataset": "math", "question": "1+1?", "expected_answer": "2"}
CHOICE = {"dataset": "mcqa", "options": [{"A": "one"}, {"B": "two"}], "expected_answer": "B"}
RULES = {"dataset": "if", "kwargs": [{"n": 4}, None, {"word": "x"}], "prompt": "Write."}
STUB = {"dataset": "math", "_hf_placeholder": {"row": 1, "question_template": "{question}"}}


def write(path: Path, *each: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(columns(each)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in each))
    return path


def columns(each: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """As a table has them: pyarrow takes the columns from the first row."""
    names = {name: None for row in each for name in row}
    return [{**names, **row} for row in each]


def read(source: object, *names: str) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """All rows, and what is wrong with the others."""
    found, errors = [], []
    iterator = rows(str(source), names)
    while True:
        try:
            found.append(next(iterator))
        except DataError as error:
            errors.append(str(error))
        except StopIteration:
            return found, errors


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(below) for key, below in value.items() if below is not None}
    return [without_nulls(below) for below in value] if isinstance(value, list) else value


# ── local files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_are_picked_by_their_data_set(tmp_path: Path) -> None:
    path = tmp_path / "blend.jsonl"
    path.write_text('{"dataset": "a", "n": 1}\n{"dataset": "b", "n": 2}\n{"n": 3}\n')
    found = list(rows(str(path), {"a"}))
    assert [row["n"] for _, row in found] == [1, 3]
    assert [place for place, _ in found] == [f"{path}, row 1", f"{path}, row 3"]


def test_a_placeholder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "blend.jsonl"
    path.write_text('{"dataset": "b", "_hf_placeholder": {"row": 1}}\n{"_hf_placeholder": {"row": 1}}\n')
    with pytest.raises(DataError, match="row 2 holds a placeholder"):
        list(rows(str(path), {"a"}))


def test_reading_goes_on_after_a_bad_row(tmp_path: Path) -> None:
    """So that all of them can be listed at once."""
    path = tmp_path / "blend.jsonl"
    path.write_text('{"_hf_placeholder": {"row": 1}}\n{"n": 2}\nnonsense\n{"n": 4}\n')
    found, errors = rows(str(path), ()), 0
    read = []
    while True:
        try:
            read.append(next(found))
        except DataError:
            errors += 1
        except StopIteration:
            break
    assert errors == 2
    assert read == [(f"{path}, row 2", {"n": 2}), (f"{path}, row 4", {"n": 4})]


@pytest.mark.parametrize("name", ["blend.jsonl", "blend.parquet"])
def test_a_row_is_the_same_whatever_file_holds_it(tmp_path: Path, name: str) -> None:
    """A table's rows have the columns of all others, and its kwargs their keys: nulls that JSON lines lack."""
    path = write(tmp_path / name, MATH, CHOICE, RULES)
    assert read(path, "math", "mcqa", "if") == (
        [(f"{path}, row 1", MATH), (f"{path}, row 2", CHOICE), (f"{path}, row 3", RULES)],
        [],
    )
    assert [place for place, _ in read(path, "if")[0]] == [f"{path}, row 3"]


def test_a_parquet_file_is_read_in_small_parts(tmp_path: Path) -> None:
    path = tmp_path / "blend.parquet"
    pq.write_table(pa.table({"n": list(range(1000))}), path, row_group_size=300)
    assert [row["n"] for _, row in rows(str(path), ())] == list(range(1000))
    assert list(islice(rows(str(path), ()), 999, None)) == [(f"{path}, row 1000", {"n": 999})]


def test_a_data_set_saved_to_disk_is_read_in_its_order(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list(list(columns((MATH, CHOICE, RULES))))
    table.save_to_disk(tmp_path / "saved", num_shards=2)
    read_back = datasets.load_from_disk(str(tmp_path / "saved"))
    read_back.map(lambda row: row, load_from_cache_file=False)  # leaves a file of its own in the folder
    found, errors = read(tmp_path / "saved", "math", "mcqa", "if")
    assert [row for _, row in found] == [MATH, CHOICE, RULES]
    assert [place.rpartition("/")[2] for place, _ in found] == [
        "data-00000-of-00002.arrow, row 1",
        "data-00000-of-00002.arrow, row 2",
        "data-00001-of-00002.arrow, row 1",
    ]
    assert not errors


def test_of_several_saved_splits_one_is_named(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list([{"n": 1}, {"n": 2}])
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"several splits\. Found: train, test\. Next: name one: .*/saved/train"):
        rows(str(tmp_path / "saved"), ())
    assert [row for _, row in read(tmp_path / "saved" / "test")[0]] == [{"n": 2}]


def test_a_damaged_saved_data_set_is_said(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"n": 1}]).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "data-00000-of-00001.arrow").write_bytes(b"nothing of the kind")
    found, errors = read(tmp_path / "saved")
    assert not found
    assert "data-00000-of-00001.arrow cannot be read" in errors[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("dataset_dict.json", text) for text in ("{", "[]", "{}", '{"splits": 3}', '{"splits": []}')),
        *(("state.json", text) for text in ("\xff", "3", '{"_data_files": 3}', '{"_data_files": [{"filename": 1}]}')),
    ],
)
def test_a_saved_data_set_that_lists_no_files_is_said(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "data-0.arrow").touch()
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"\.json lists no files of a data set\. Found: .* Next: save it again"):
        rows(str(tmp_path), ())


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", {"n": 2}, {"n": 3})
    write(tmp_path / "a.parquet", {"n": 1})
    write(tmp_path / "c.parquet", {"n": 4})
    write(tmp_path / ".hidden.jsonl", {"n": 5})
    write(tmp_path / "below" / "d.jsonl", {"n": 6})
    (tmp_path / "README.md").write_text("no rows")
    found, errors = read(tmp_path)
    assert [row["n"] for _, row in found] == [1, 2, 3, 4]
    assert found[2][0] == f"{tmp_path / 'b.jsonl'}, row 2"
    assert not errors


def test_reading_goes_on_after_a_bad_file_and_its_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('nonsense\n{"n": 1}\n[]\n{"n": 2}\n{"n"')
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    write(tmp_path / "c.parquet", {"n": 3})
    found, errors = read(tmp_path)
    assert [row["n"] for _, row in found] == [1, 2, 3]
    assert [error.split(" is no JSON")[0].split(" cannot be read")[0] for error in errors] == [
        f"{tmp_path / 'a.jsonl'}, line 1,",
        f"{tmp_path / 'a.jsonl'}, line 3,",
        f"{tmp_path / 'a.jsonl'}, line 5,",
        f"{tmp_path / 'b.parquet'}",
    ]


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no rows\. Allowed: files that end in \.jsonl or \.parquet"):
        rows(str(tmp_path), ())


@pytest.mark.parametrize(
    "source",
    ["missing.jsonl", "missing.parquet", "data/missing.jsonl", "./owner/name", "~/name", "/owner/name", ".", "word", "",
     "a/b/c", "no\0path"],
)  # fmt: skip
def test_what_is_no_source_is_refused(source: str) -> None:
    with pytest.raises(DataError, match=r"'generated', the path of a local \.jsonl or \.parquet file"):
        rows(source, ())
    assert not on_hub(source)


def test_paths_in_a_study_start_from_its_folder_and_count_with_their_content(tmp_path: Path) -> None:
    write(tmp_path / "data" / "blend" / "a.parquet", MATH)
    write(tmp_path / "data" / "b.parquet", MATH)
    named = {"folder": "data/blend", "file": "data/b.parquet", "hub": f"owner/name@{COMMIT}:math"}
    sections = {name: {"use": "quiz", "config": {"source": source}} for name, source in named.items()}
    study = grounded(Study.model_validate({"name": "s", "domains": sections, "stages": {}}), tmp_path)
    placed = {name: section.config["source"] for name, section in study.domains.items()}
    assert placed == {**named, "folder": str(tmp_path / "data/blend"), "file": str(tmp_path / "data/b.parquet")}
    assert [len(read(placed[name])[0]) for name in ("folder", "file")] == [0, 0]
    assert [len(read(placed[name], "math")[0]) for name in ("folder", "file")] == [1, 1]
    before = _by_content(placed)
    assert before["hub"] == named["hub"]
    write(tmp_path / "data" / "blend" / "b.jsonl", MATH)
    after = _by_content(placed)
    assert (before["folder"] != after["folder"], before["file"] == after["file"]) == (True, True)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared beside the repository")
@pytest.mark.parametrize("path", sorted(REAL.glob("*.jsonl")), ids=lambda path: path.stem)
def test_real_rows_are_the_same_from_parquet(tmp_path: Path, path: Path) -> None:
    names = {json.loads(line).get("dataset") for line in path.read_text().splitlines()}
    found, errors = read(path, *names)
    assert (len(found), errors) == (5, [])
    real = [without_nulls(row) for _, row in found]
    table = write(tmp_path / "rows.parquet", *real)
    assert [row for _, row in read(table, *names)[0]] == real
    for place, row in found:
        assert messages(place, row)


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Hub:
    """Instead of ``datasets.load_dataset``."""

    def __init__(self, *each: dict[str, Any]) -> None:
        self.rows, self.asked, self.read = each, [], 0

    def __call__(self, name: str, **settings: object) -> Iterator[dict[str, Any]]:
        self.asked.append((name, settings))
        return self._stream()

    def _stream(self) -> Iterator[dict[str, Any]]:
        for row in columns(self.rows):
            self.read += 1
            yield row


@pytest.mark.parametrize(("suffix", "split"), [("", "train"), (":math", "math")])
def test_a_pinned_data_set_of_the_hub_is_streamed(monkeypatch: pytest.MonkeyPatch, suffix: str, split: str) -> None:
    hub = Hub(MATH, RULES, MATH, MATH)
    monkeypatch.setattr(datasets, "load_dataset", hub)
    found = rows(f"owner/name@{COMMIT}{suffix}", {"math"})
    assert not hub.asked, "nothing is loaded before it is asked for"
    place = f"owner/name@{COMMIT}:{split}, row"
    assert next(found) == (f"{place} 1", MATH)
    assert next(found) == (f"{place} 3", MATH)
    assert hub.read == 3
    assert hub.asked == [("owner/name", {"split": split, "revision": COMMIT, "streaming": True})]


@pytest.mark.parametrize("pin", ["", "@main", "@" + COMMIT[:12], "@" + COMMIT.upper(), "@", ":train", "@main:train"])
def test_what_comes_from_the_hub_is_pinned(pin: str) -> None:
    with pytest.raises(
        DataError, match="'owner/name' is no local file or folder, and what comes from the hub is pinned"
    ) as e:
        rows(f"owner/name{pin}", ())
    assert "40 hexadecimal digits" in str(e.value)
    assert "https://huggingface.co/datasets/owner/name/commits" in str(e.value)
    assert not on_hub(f"owner/name{pin}")


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    found, [error] = read(f"owner/name@{COMMIT}")
    assert not found
    assert f"owner/name@{COMMIT}:train cannot be read: ConnectionError: no route" in error
    assert f"hf download owner/name --repo-type dataset --revision {COMMIT}" in error


def test_a_stream_that_breaks_off_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(*_: object, **__: object) -> Iterator[dict[str, Any]]:
        yield MATH
        raise OSError("reset")

    monkeypatch.setattr(datasets, "load_dataset", stream)
    found, errors = read(f"owner/name@{COMMIT}", "math")
    assert len(found) == len(errors) == 1


def test_rows_of_mixed_types_come_through_the_library(tmp_path: Path) -> None:
    """The blend's columns hold lists here and text there; no release of the library before 5 reads such."""
    stub = {**STUB, "_hf_placeholder": {"row": 2, "question_template": {"prefix": "p"}}}
    each = [
        MATH,
        CHOICE,
        RULES,
        STUB,
        stub,
        {"ground_truth": "text"},
        {"ground_truth": [{"name": "x", "arguments": "{}"}]},
    ]
    path = write(tmp_path / "blend.jsonl", *each)
    stream = datasets.load_dataset("json", data_files=str(path), split="train", streaming=True, cache_dir=str(tmp_path))
    assert [without_nulls(row) for row in stream] == [without_nulls(row) for row in each]


@pytest.mark.parametrize(("library", "source"), [("datasets", f"owner/name@{COMMIT}"), ("pyarrow", "blend.parquet")])
def test_a_missing_library_is_an_error_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "blend.parquet", MATH)
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    found, [error] = read(source, "math")
    assert not found
    assert f"needs the package '{library}'" in error
    assert "pip install 'm2rl-core[data]'" in error


def test_importing_rows_and_reading_json_lines_needs_no_library(tmp_path: Path) -> None:
    path = write(tmp_path / "blend.jsonl", MATH)
    code = f"""
import sys
from m2rl_core.rows import rows
assert list(rows({str(path)!r}, ["math"]))
print([name for name in ("datasets", "pyarrow", "pandas", "numpy", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ── a domain's check ─────────────────────────────────────────────────────────────────────────────────────────────────


class Sums(ProceduralDomain):
    name: ClassVar[str] = "sums"
    reference: ClassVar[str] = "a test"
    levels = {1: "one"}

    def __init__(self, source: str) -> None:
        self.config = ProceduralConfig(source=source)

    def questions(self, level: int, draw: Random) -> Iterator[Any]:
        return iter(())

    def rows(self) -> Iterator[Prompt]:
        found = rows(self.config.source, {"math"})
        return map(lambda n, at: Prompt(str(n), "sums", messages(*at), gold(*at)), count(), found)


def test_a_domain_checks_local_rows_to_their_end_and_the_form_of_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(*_: object, **__: object) -> None:
        pytest.fail("a check uses no network")

    monkeypatch.setattr(datasets, "load_dataset", network)
    Sums("generated").check()
    Sums(f"owner/name@{COMMIT}").check()
    with pytest.raises(DataError, match="pinned"):
        Sums("owner/name").check()
    with pytest.raises(DataError, match="no rows to read"):
        Sums("missing.parquet").check()
    path = write(tmp_path / "blend.parquet", *[MATH] * 100)
    Sums(str(path)).check()
    write(path, *[MATH] * 100, {**MATH, "expected_answer": None})
    with pytest.raises(DataError, match="row 101 has no gold answer"):
        Sums(str(path)).check()


# ── placeholders ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_placeholder_is_refused_with_the_command_that_fills_it_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "train.jsonl", MATH, STUB)
    found, [error] = read(path, "math")
    assert len(found) == 1
    assert f"{path}, row 2 holds a placeholder instead of its question" in error
    assert f"python create_nanov3_jsonl.py --input {path} --output {tmp_path}/train-complete.jsonl" in error
    monkeypatch.setattr(datasets, "load_dataset", Hub(STUB))
    for source in (write(tmp_path / "train.parquet", STUB), f"owner/name@{COMMIT}"):
        found, [error] = read(source, "math")
        assert "row 1 holds a placeholder" in error
        assert "--input train.jsonl --output train-complete.jsonl" in error
    assert read(write(tmp_path / "others.jsonl", STUB), "mcqa") == ([], []), "other domains' rows are no concern"


# ── what a row holds ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_messages_come_from_the_row_or_its_question() -> None:
    asked = [{"role": "user", "content": "1+1?", "extra": 1}]
    assert messages("here", {"responses_create_params": {"input": asked}, "question": "other"}) == (
        {"role": "user", "content": "1+1?"},
    )
    assert messages("here", {"responses_create_params": {"input": "1+1?"}})[0]["role"] == "user"
    assert messages("here", {"question": "1+1?"})[0]["content"] == "1+1?"
    for row in ({}, {"question": ""}, {"responses_create_params": {"input": [{"role": "user", "content": []}]}}):
        with pytest.raises(DataError, match="here asks nothing"):
            messages("here", row)


def test_gold_is_text_and_never_missing() -> None:
    assert gold("here", {"expected_answer": " 1/2 "}) == "1/2"
    assert gold("here", {"expected_answer": 0}) == "0"
    for answer in (None, "", "  ", [], True):
        with pytest.raises(DataError, match="here has no gold answer"):
            gold("here", {"expected_answer": answer})
