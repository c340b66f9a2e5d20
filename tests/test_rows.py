"""Rows of the blend's schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from m2rl_core.errors import DataError
from m2rl_core.rows import gold, messages, rows


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


@pytest.mark.parametrize("source", ["owner/name", "missing.jsonl", "."])
def test_what_is_no_file_is_refused(source: str) -> None:
    with pytest.raises(DataError, match=r"'generated', or the path of a local \.jsonl file"):
        list(rows(source, ()))


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
