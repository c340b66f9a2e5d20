"""Rows of the blend from a local file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_science import Science

ROWS = Path(__file__).resolve().parents[5] / "shared" / "data" / "rows" / "mcqa.jsonl"


def read(folder: Path, *rows: object) -> list[Prompt]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(Science(Science.Config(source=str(path))).prompts("train"))


@pytest.mark.skipif(not ROWS.is_file(), reason="needs ../shared beside the repository")
def test_real_rows_load_and_their_own_answers_are_right() -> None:
    domain = Science(Science.Config(source=str(ROWS)))
    prompts = list(domain.prompts("train"))
    assert len(prompts) == 5
    for prompt in prompts:
        gold, other = prompt.ground_truth, "A" if prompt.ground_truth != "A" else "B"
        asked = ("Option Selected: {}", "ANSWER IS {}", "Final Choice: {}", "Answer: {}", "\\boxed{{{}}}")
        wanted = next(each for each in asked if each.partition("{")[0].strip() in prompt.messages[-1]["content"])
        for form in {wanted, "\\boxed{{{}}}"}:
            assert domain.verify(Trajectory(prompt, (), form.format(gold))).value == 1.0, form
            assert domain.verify(Trajectory(prompt, (), form.format(other))).value == 0.0
    assert not set(domain.suites) - set(domain.published)
    assert not list(domain.demonstrations())


def test_reads_the_blend_schema(tmp_path: Path) -> None:
    options = [{"A": "one"}, {"B": "two"}]
    [one, two] = read(
        tmp_path,
        {"question": "?", "expected_answer": "B", "options": options, "template_metadata": {"output_regex": "(A|B)"}},
        {"question": "?", "expected_answer": "J", "options": None, "dataset": "nano_v3_sft_profiled_stem_mcqa"},
        {"question": "?", "expected_answer": "7", "dataset": "nano_v3_sft_profiled_dapo17k"},
    )
    assert one.metadata == {"options": options, "template_metadata": {"output_regex": "(A|B)"}}
    assert (two.ground_truth, two.metadata) == ("J", {})


@pytest.mark.parametrize(
    "row",
    [
        {"question": "?", "expected_answer": "", "options": [{"A": "x"}]},
        {"question": "?", "expected_answer": "B", "options": [{"A": "x"}]},
        {"question": "?", "expected_answer": "A", "options": [{"A": "x"}, {"A": "y"}]},
        {"question": "?", "expected_answer": "A", "template_metadata": {"output_regex": "("}},
        {"question": "?", "expected_answer": "A", "template_metadata": ["("]},
        {"expected_answer": "A"},
    ],
)
def test_a_bad_row_is_an_error_that_names_it(tmp_path: Path, row: object) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl, row 2"):
        read(tmp_path, {"question": "?", "expected_answer": "A"}, row)
