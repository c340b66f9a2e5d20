"""Rows of the blend from a local file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_math import Math

ROWS = Path(__file__).resolve().parents[5] / "shared" / "data" / "rows" / "math_with_judge.jsonl"


def read(folder: Path, *rows: object) -> list[Prompt]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(Math(Math.Config(source=str(path))).prompts("train"))


@pytest.mark.skipif(not ROWS.is_file(), reason="needs ../shared beside the repository")
def test_real_rows_load_and_their_own_answers_are_right() -> None:
    domain = Math(Math.Config(source=str(ROWS)))
    prompts = list(domain.prompts("train"))
    assert len(prompts) == 5
    for prompt in prompts:
        assert prompt.messages[-1]["content"].startswith("Solve the following math problem")
        answer = f"So the answer is $\\boxed{{{prompt.ground_truth}}}$."
        assert domain.verify(Trajectory(prompt, (), answer)).value == 1.0, prompt.ground_truth
        assert domain.verify(Trajectory(prompt, (), r"\boxed{33}")).value == 0.0
    assert not set(domain.suites) - set(domain.published)
    assert not list(domain.demonstrations())


def test_reads_the_blend_schema(tmp_path: Path) -> None:
    asked = {"input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]}
    [one, two, three] = read(
        tmp_path,
        {"responses_create_params": asked, "expected_answer": "2", "dataset": "nano_v3_sft_profiled_dapo17k"},
        {"question": "2+2?", "expected_answer": 4},
        {"question": "left out", "expected_answer": "B", "dataset": "nano_v3_sft_profiled_stem_mcqa"},
        {"question": "1/2?", "expected_answer": '["\\\\frac{1}{2}"]'},
    )
    assert [message["role"] for message in one.messages] == ["system", "user"]
    assert (two.messages[0]["content"], two.ground_truth) == ("2+2?", "4")
    assert three.ground_truth == "\\frac{1}{2}"
    assert len({one.id, two.id, three.id}) == 3


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"question": "?", "expected_answer": ""}, "no gold"),
        ({"question": "?", "expected_answer": None}, "no gold"),
        ({"question": "?"}, "no gold"),
        ({"question": "?", "expected_answer": '["1", "2"]'}, "exactly one"),
        ({"question": "?", "expected_answer": '["", ""]'}, "exactly one"),
        ({"expected_answer": "1"}, "asks nothing"),
        ({"responses_create_params": {"input": [{"role": "user"}]}, "expected_answer": "1"}, "asks nothing"),
        ({"responses_create_params": ["1?"], "expected_answer": "1"}, "an object with input"),
        ({"question": "1\ud800?", "expected_answer": "1"}, "no Unicode"),
        ({"question": "?", "expected_answer": "1", "_hf_placeholder": {"row": 3}}, "placeholder"),
        (["no object"], "object"),
    ],
)
def test_a_bad_row_is_an_error_that_names_it(tmp_path: Path, row: object, named: str) -> None:
    with pytest.raises(DataError, match=named) as caught:
        read(tmp_path, {"question": "1?", "expected_answer": "1"}, row)
    assert "rows.jsonl" in str(caught.value)
    assert "2" in str(caught.value)


@pytest.mark.parametrize("source", ["nvidia/Nemotron-3-Nano-RL-Training-Blend", "nowhere.jsonl", "rows.parquet"])
def test_other_sources_are_refused(source: str) -> None:
    with pytest.raises(DataError, match=r"generated.*jsonl"):
        list(Math(Math.Config(source=source)).prompts("train"))
