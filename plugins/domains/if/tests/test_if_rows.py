"""Rows of the blend and the published suites, from local files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_if import If

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
ROWS, IFEVAL, IFBENCH = (
    DATA / "rows" / "instruction_following.jsonl",
    *(DATA / "suites" / f"{name}.jsonl" for name in ("ifeval", "ifbench")),
)
TITLE = {"prompt": "Say.", "instruction_id_list": ["detectable_format:title"], "kwargs": [{}]}


def write(folder: Path, *rows: object) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(folder: Path, *rows: object) -> list[Prompt]:
    return list(If(If.Config(source=write(folder, *rows))).prompts("train"))


@pytest.mark.skipif(not ROWS.is_file(), reason="needs ../shared beside the repository")
def test_real_rows_load() -> None:
    domain = If(If.Config(source=str(ROWS)))
    prompts = list(domain.prompts("train"))
    assert len(prompts) == 5
    answer = "p one\n\np two\n\ncrash here\n\nthe end is a contest"
    assert domain.verify(Trajectory(prompts[0], (), answer)).value == 1.0
    assert domain.verify(Trajectory(prompts[0], (), answer + " of wills")).value == 0.0
    words = "One is here. "
    assert domain.verify(Trajectory(prompts[3], (), words * 17 + "[a] [b] [c] [d]")).value == 1.0
    assert domain.verify(Trajectory(prompts[4], (), "<<How>>\n***\nRun it.")).value == 1.0
    assert not list(domain.demonstrations())


@pytest.mark.skipif(not IFEVAL.is_file(), reason="needs ../shared beside the repository")
def test_the_published_ifeval_is_a_suite() -> None:
    domain = If(If.Config(ifeval=str(IFEVAL), mode="loose", reward="fraction"))
    assert domain.suites["ifbench"].missing
    assert (domain.suites["ifeval"].k, domain.suites["ifeval"].source) == (1, str(IFEVAL))
    prompts = list(domain.prompts("ifeval"))
    assert len(prompts) == 541
    two = next(prompt for prompt in prompts if len(prompt.metadata["instruction_id_list"]) == 3)
    reward = domain.verify(Trajectory(two, (), "No comma here."))
    assert (reward.value, reward.metrics["followed"]) == (0.0, pytest.approx(1 / 3))


@pytest.mark.skipif(not IFBENCH.is_file(), reason="needs ../shared beside the repository")
def test_the_published_ifbench_is_a_suite() -> None:
    assert len(list(If(If.Config(ifbench=str(IFBENCH))).prompts("ifbench"))) >= 294


@pytest.mark.parametrize("suite", ["ifeval", "ifbench"])
def test_a_suite_without_a_file_says_what_to_do(suite: str) -> None:
    assert If(If.Config()).suites[suite].missing
    with pytest.raises(DataError, match=rf"download .* domains\.if\.{suite}"):
        If(If.Config()).prompts(suite)
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        list(If(If.Config(ifeval="nowhere.jsonl")).prompts("ifeval"))


def test_reads_the_blend_schema(tmp_path: Path) -> None:
    asked = {"input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Title?"}]}
    newer = {"instruction_id_list": ["first_word:first_word_sent"], "kwargs": [{"first_word": ["So"], "N": None}]}
    [one, two, three] = read(
        tmp_path,
        {**TITLE, "responses_create_params": asked, "dataset": "nano_v3_sft_profiled_instruction_following"},
        {**TITLE, "kwargs": [None]},
        {**TITLE, "dataset": "nano_v3_sft_profiled_dapo17k"},
        {"prompt": "So?", "verifier_metadata": newer},
    )
    assert [message["role"] for message in one.messages] == ["system", "user"]
    assert two.messages[0]["content"] == "Say."
    assert len({one.id, two.id, three.id}) == 3
    domain = If(If.Config())
    assert domain.verify(Trajectory(two, (), "<<A>>")).value == 1.0
    assert domain.verify(Trajectory(three, (), "So be it. So there.")).value == 1.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"instruction_id_list": [], "kwargs": []}, "no instruction"),
        ({"instruction_id_list": None}, "no instruction"),
        ({"instruction_id_list": "detectable_format:title"}, "no instruction"),
        ({"instruction_id_list": [3]}, "no instruction"),
        ({"instruction_id_list": ["detectable_format:titel"]}, "Did you mean 'detectable_format:title'"),
        ({"kwargs": []}, "one element of kwargs"),
        ({"kwargs": None}, "one element of kwargs"),
        ({"kwargs": [{}, {}]}, "one element of kwargs"),
        ({"kwargs": ["{}"]}, "no object"),
        ({"prompt": None}, "asks nothing"),
        ({"_hf_placeholder": {"row": 3}}, "placeholder"),
    ],
)
def test_a_bad_row_is_an_error_that_names_it(tmp_path: Path, change: dict[str, object], named: str) -> None:
    with pytest.raises(DataError, match=named) as caught:
        read(tmp_path, TITLE, {**TITLE, **change})
    assert "rows.jsonl, row 2" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("keywords:existence", {}),
        ("keywords:existence", {"keywords": None}),
        ("keywords:existence", {"keywords": []}),
        ("keywords:existence", {"keywords": [" "]}),
        ("keywords:existence", {"keywords": "word"}),
        ("keywords:existence", {"keywords": ["x" * 2000]}),
        ("keywords:exclude_word_harder", {"instruction": "some words"}),
        ("length_constraints:number_words", {"num_words": 3}),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at most"}),
        ("length_constraints:number_words", {"num_words": "3", "relation": "at least"}),
        ("length_constraints:number_words", {"num_words": True, "relation": "at least"}),
        ("length_constraints:number_words", {"num_words": 3.5, "relation": "at least"}),
        ("length_constraints:number_words", {"num_words": 0, "relation": "at least"}),
        ("length_constraints:number_words", {"num_words": -3, "relation": "at least"}),
        ("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"}),
        ("language:response_language", {"language": "klingon"}),
        ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}),
        ("new:copy_span_idx", {"prompt_to_repeat": "abc", "n_start": 2, "n_end": 2}),
        ("new:copy_span_idx", {"prompt_to_repeat": "abc", "n_start": 5, "n_end": 9}),
        ("first_word:first_word_sent", {"first_word": []}),
    ],
)
def test_bad_arguments_are_an_error_in_a_row_and_no_reward(
    tmp_path: Path, name: str, arguments: dict[str, object]
) -> None:
    row = {"prompt": "Say.", "instruction_id_list": [name], "kwargs": [arguments]}
    with pytest.raises(DataError, match=r"rows.jsonl, row 1"):
        read(tmp_path, row)
    with pytest.raises(DataError, match="prompt 'p'"):
        If(If.Config()).verify(Trajectory(Prompt("p", "if", (), None, row), (), "word"))


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    [prompt] = read(tmp_path, {**TITLE, "instruction_id_list": ["count:lowercase_counting"], "kwargs": [{"N": 2.0}]})
    assert If(If.Config()).verify(Trajectory(prompt, (), "one two")).value == 1.0
