"""Stored rollouts, read from the end of their file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import m2rl_core.files
from m2rl_core.errors import DataError
from m2rl_core.files import append_jsonl, newest_first, read_jsonl
from m2rl_core.rollout.records import to_record
from m2rl_core.rollout.stored import latest_samples, stored_records
from m2rl_core.types import Sample

Make = Callable[..., Sample]


@pytest.mark.parametrize("gulp", [1, 3, 7, 1 << 22])
@pytest.mark.parametrize("tail", [b"", b'{"torn', b'{"a": 9}', b"\n"])
def test_rows_from_the_end_are_the_rows_turned_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gulp: int, tail: bytes
) -> None:
    monkeypatch.setattr(m2rl_core.files, "_GULP", gulp)
    file = tmp_path / "rows.jsonl"
    append_jsonl(file, [{"a": i, "text": "é" * i} for i in range(6)])
    with file.open("ab") as end:
        end.write(tail)
    wanted = [] if tail == b"\n" else list(read_jsonl(file))
    assert list(newest_first(file)) == (wanted[::-1] or [{"a": i, "text": "é" * i} for i in range(5, -1, -1)])


def test_a_broken_line_is_an_error_and_an_empty_file_is_none(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"")
    assert list(newest_first(file)) == []
    for broken, words in ((b'{"a": 1}\n{oops\n{"a": 2}\n', "line 2 from its end, is no JSON:"), (b"[1]\n", "list")):
        file.write_bytes(broken)
        with pytest.raises(DataError, match=words):
            list(newest_first(file))


def stage(folder: Path, make_sample: Make) -> Path:
    """An rl stage's folder: two prompts of math and one of science in each of three steps, two samples each."""
    for step in range(3):
        for number, domain in ((2 * step, "math"), (2 * step + 1, "math"), (50 + step, "science")):
            for index in range(2):
                sample = make_sample(12, 5, number, domain=domain)
                sample.index = index
                append_jsonl(folder / "rollouts.jsonl", [{"step": step, **to_record(sample)}])
    return folder


def prompts(samples: list[Sample]) -> list[str]:
    return [sample.prompt.id for sample in samples]


def test_the_first_sample_of_each_of_the_latest_prompts(tmp_path: Path, make_sample: Make) -> None:
    folder = stage(tmp_path, make_sample)
    found = latest_samples(folder / "checkpoint", 3, "math")
    assert prompts(found) == ["p5", "p4", "p3"]
    assert [sample.index for sample in found] == [0, 0, 0]
    assert found[0].ids_L == make_sample(12, 5, 5).ids_L
    assert prompts(latest_samples(folder / "checkpoint", 3, "science")) == ["p52", "p51", "p50"]
    assert prompts(latest_samples(folder / "checkpoint", 4)) == ["p52", "p5", "p4", "p51"]


def test_a_kept_step_has_what_was_drawn_before_it(tmp_path: Path, make_sample: Make) -> None:
    folder = stage(tmp_path, make_sample)
    assert prompts(latest_samples(folder / "kept" / "000002", 2, "math")) == ["p3", "p2"]
    assert {record["step"] for record in stored_records(folder / "kept" / "000001")} == {0}


def test_samples_that_teach_nothing_are_passed_over(tmp_path: Path, make_sample: Make) -> None:
    empty: dict[str, Any] = to_record(make_sample(12, 0, 8))
    gone = to_record(make_sample(12, 5, 9)) | {"finish": "abort"}
    rows = [to_record(make_sample(12, 5, 1)), empty, gone]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps({"step": 0, **row}) + "\n" for row in rows))
    assert prompts(latest_samples(tmp_path / "checkpoint", 1, "math")) == ["p1"]
    with pytest.raises(DataError, match=r"too few sequences of 'math'\. Found: 1\. Allowed: at least 2"):
        latest_samples(tmp_path / "checkpoint", 2, "math")


def test_a_stage_without_rollouts_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no rollouts beside it\. Found: no .*rollouts\.jsonl"):
        latest_samples(tmp_path / "checkpoint", 1, "math")
