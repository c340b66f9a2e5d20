"""The blend of supervised fine-tuning: what is counted, what is drawn, in which order, and how much memory it takes."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from m2rl_core import rows
from m2rl_core.blend import Blend, is_materialised, materialised, permuted
from m2rl_core.cli import app
from m2rl_core.config import BlendSource, Study, check_references, grounded, load_study
from m2rl_core.errors import ConfigError, DataError
from m2rl_core.plugins import load_plugins
from m2rl_core.rows import Questions, UnusableError, conversation
from m2rl_core.seeding import derive
from m2rl_core.study import plan


def talk(number: int, **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": f"{number}!", **more}]
    }


def file_of(path: Path, each: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in each))
    return str(path)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, BlendSource]:
    """Like Table 1: sampled, repeated, all; 5 of the last have no messages."""
    big = file_of(tmp_path / "big.jsonl", [talk(i) for i in range(100)])
    small = file_of(tmp_path / "small.jsonl", [talk(1000 + i) for i in range(7)])
    folder = tmp_path / "folder"
    file_of(folder / "a.jsonl", [talk(2000 + i) if i % 2 else {"messages": []} for i in range(10)])
    file_of(folder / "b.jsonl", [talk(3000 + i) for i in range(3)])
    return {
        "math": BlendSource(source=big, sample=30),
        "science": BlendSource(source=small, repeat=10),
        "code": BlendSource(source=f"{folder}/"),
    }


def asked(blend: Blend, epoch: int = 0, size: int | None = None) -> list[str]:
    size = size or len(blend)
    return [each.messages[0]["content"] for each in blend.batch(epoch, size, size)]


# ── order ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000])
def test_a_permutation_has_everything_once(size: int) -> None:
    assert sorted(permuted(i, size, 5) for i in range(size)) == list(range(size))


def test_permutations_differ_by_seed_and_move_nearly_everything() -> None:
    one, two = ([permuted(i, 1000, seed) for i in range(1000)] for seed in (1, 2))
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 12  # 1 on average
    assert sum(i == place for i, place in enumerate(one)) < 12


def test_where_a_permutation_puts_things_is_uniform() -> None:
    """Of 2,000 orders of 8 things: chi-squared of the first thing's place; 7 degrees of freedom, 24.3 is p = 0.001."""
    seen = Counter(permuted(0, 8, seed) for seed in range(2000))
    assert sum((seen[i] - 250) ** 2 / 250 for i in range(8)) < 24.3


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_method_gives_its_exact_count(sources: dict[str, BlendSource], tmp_path: Path) -> None:
    blend = materialised(tmp_path / "out", sources, seed=1)
    assert [len(part) for part in blend.parts] == [30, 70, 8]
    code = blend.parts[2].tally
    assert (code.read, code.kept, code.dropped) == (13, 8, {"no messages": 5})
    found = Counter(asked(blend))
    assert len(blend) == sum(found.values()) == 108
    assert {text: n for text, n in found.items() if n > 1} == {f"{1000 + i}?": 10 for i in range(7)}
    drawn = {text for text in found if len(text) <= 3}
    assert len(drawn) == 30, "random sampling draws different rows"


def test_rows_are_sampled_evenly(tmp_path: Path) -> None:
    source = BlendSource(source=file_of(tmp_path / "r.jsonl", [talk(i) for i in range(20)]), sample=5)
    seen = Counter[str]()
    for seed in range(80):
        seen.update(asked(materialised(tmp_path / str(seed), {"m": source}, seed)))
    assert sum((seen[f"{i}?"] - 20) ** 2 / 15 for i in range(20)) < 45  # 19 degrees of freedom: p < 0.001


def test_the_blend_follows_from_its_seed(sources: dict[str, BlendSource], tmp_path: Path) -> None:
    one, two, other = (
        asked(materialised(tmp_path / name, sources, seed)) for name, seed in zip("abc", (1, 1, 2), strict=True)
    )
    assert one == two
    assert one != other
    assert set(one) != set(other), "another seed samples other rows"


def test_epochs_are_shuffled_anew_and_batches_may_span_them(sources: dict[str, BlendSource], tmp_path: Path) -> None:
    blend = materialised(tmp_path / "out", sources, seed=1)
    first, second = asked(blend, 0), asked(blend, 1)
    assert sorted(first) == sorted(second)
    assert first != second
    steps = [c.messages[0]["content"] for step in range(27) for c in blend.batch(step, 8, 108)]
    assert steps == first + second


def test_shorter_epochs_take_the_first_of_the_order(sources: dict[str, BlendSource], tmp_path: Path) -> None:
    blend = materialised(tmp_path / "out", sources, seed=1)
    assert asked(blend, 0, 40) == asked(blend)[:40]


def test_too_few_rows_to_sample_is_said(tmp_path: Path) -> None:
    listed = [*(talk(i) for i in range(3)), {"messages": None}, {"other": 1}]
    source = BlendSource(source=file_of(tmp_path / "r.jsonl", listed), sample=4)
    with pytest.raises(DataError, match=r"'m' has too few usable rows to sample 4.* 3 usable of 5, 2 with no messages"):
        materialised(tmp_path / "out", {"m": source}, 1)


def test_a_source_without_a_usable_row_is_an_error(tmp_path: Path) -> None:
    source = BlendSource(source=file_of(tmp_path / "r.jsonl", [{"prompt": "x"}]))
    with pytest.raises(DataError, match="'m' has no usable row"):
        materialised(tmp_path / "out", {"m": source}, 1)


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"blend source 'm': no rows to read\. Found: 'nowhere\.jsonl'"):
        materialised(tmp_path / "out", {"m": BlendSource(source="nowhere.jsonl")}, 1)


# ── resuming, memory ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_interrupted_blend_goes_on(
    sources: dict[str, BlendSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = asked(materialised(tmp_path / "whole", sources, seed=1))
    read, original = list[str](), rows.numbered

    def numbered(source: str) -> Any:
        read.append(Path(source).name)
        for row in original(source):
            if "folder" in source and len(read) == 4:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr("m2rl_core.blend.parts.numbered", numbered)
    with pytest.raises(KeyboardInterrupt):
        materialised(tmp_path / "out", sources, seed=1)
    assert not is_materialised(tmp_path / "out", sources, 1)
    assert asked(materialised(tmp_path / "out", sources, seed=1)) == whole
    assert read == ["big.jsonl", "big.jsonl", "small.jsonl", "folder", "folder"], "finished sources are kept"
    assert is_materialised(tmp_path / "out", sources, 1)


def test_changed_rows_are_read_again(sources: dict[str, BlendSource], tmp_path: Path) -> None:
    materialised(tmp_path / "out", sources, seed=1)
    file_of(tmp_path / "small.jsonl", [talk(1000 + i) for i in range(8)])
    assert len(materialised(tmp_path / "out", sources, seed=1)) == 118


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(number: int) -> int:
        path = tmp_path / f"{number}.jsonl"
        with path.open("w") as file:
            file.writelines(json.dumps(talk(i, reasoning_content="why " * 500)) + "\n" for i in range(number))
        source = {"m": BlendSource(source=str(path), sample=number // 2)}
        tracemalloc.start()
        blend = materialised(tmp_path / f"out{number}", source, seed=1)
        for step in range(3):
            blend.batch(step, 8, len(blend))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert path.stat().st_size > 2000 * number
        return found

    peak(100)
    assert peak(4000) < peak(400) + 100_000, "8 MB of rows, ten times as many"


# ── what a row says ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_reasoning_and_calls_are_part_of_what_is_said() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    row = {
        "messages": [
            {"role": "system", "content": None},
            {"role": "user", "content": "Do."},
            {"role": "assistant", "content": "", "reasoning_content": " I must. ", "tool_calls": json.dumps([call])},
            {"role": "tool", "content": "done", "tool_call_id": "1"},
            {"role": "assistant", "content": "It is done.", "reasoning_content": None, "tool_calls": None},
        ],
        "tools": json.dumps(json.dumps([{"type": "function"}])),
    }
    messages, tools = conversation(row)
    said = '<think>\nI must.\n</think>\n\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
    assert [m["content"] for m in messages] == ["", "Do.", said, "done", "It is done."]
    assert tools == ({"type": "function"},)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        (None, "no messages"),
        ("[]", "no messages"),
        ([{"role": "user", "content": "x"}], "no assistant turn"),
        ([{"role": "assistant", "content": "x"}], "an assistant turn that answers nothing"),
        ([*talk(1)["messages"], {"role": "assistant", "content": "x"}], "an assistant turn that answers nothing"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}], "an empty turn"),
        ([{"role": "user", "content": ["x"]}, {"role": "assistant", "content": "y"}], "content that is no text"),
        ([{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "y"}], "text that is no Unicode"),
        ([{"content": "x"}], "a message without a role"),
        ([{"role": "user", "content": "-"}, {"role": "assistant", "content": "y"}], "a placeholder instead"),
    ],
)
def test_unusable_rows_say_why(messages: Any, why: str) -> None:
    with pytest.raises(UnusableError, match=why):
        conversation({"messages": messages})


def test_placeholder_questions_are_looked_up(tmp_path: Path) -> None:
    taco = file_of(tmp_path / "taco.jsonl", [{"question": "zero"}, {"question": "one"}])
    forces = file_of(tmp_path / "cf.jsonl", [{"description": "Add.", "input_format": "Two.", "note": "Easy."}])
    known = Questions({"taco/train": taco, "open-r1/codeforces/test": forces})

    def question(dataset: str, split: str, index: object) -> str:
        row = {**talk(0), "dataset": dataset, "split": split, "index": index}
        row["messages"][0]["content"] = "-"
        return str(known.filled(row)["messages"][0]["content"])

    assert question("taco", "train", "1") == "one"
    assert question("open-r1/codeforces", "test", 0) == "Add.\n\nInput\n\nTwo.\n\nNote\n\nEasy."
    assert question("taco", "train", 2) == question("taco", "test", 0) == question("apps", "train", None) == "-"


# ── in a study ───────────────────────────────────────────────────────────────────────────────────────────────────────


def study_with(**changes: Any) -> Study:
    sft = {"kind": "sft", "init": "base", "conversations": 512, "blend": {"m": {"source": "x.jsonl"}}, **changes}
    return Study.model_validate({"name": "s", "model": {"base": "b"}, "stages": {"sft": sft}})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"domains": ["math"]}, "one of domains and blend"),
        ({"blend": {}}, "one of domains and blend"),
        ({"blend": {"m": {"source": "x", "sample": 1, "repeat": 2}}}, "one of sample and repeat"),
        ({"rollouts": {"m": "m"}}, "a blend has none"),
    ],
)
def test_a_blend_that_contradicts_itself_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        study_with(**changes)


def test_methods_are_named_as_in_table_1() -> None:
    methods = [BlendSource(source="x", **how).method for how in ({"sample": 3}, {"repeat": 10}, {"repeat": 1}, {})]
    assert methods == ["random sampling", "repeat 10 times", "use all", "use all"]


STUDY = """
name: tiny
reproduces: paper
model: {base: Qwen/Qwen3-4B-Base, revision: 906bfd4b4dc7f14ee4320094d8b41684abff8539}
stages:
  sft:
    kind: sft
    init: base
    batch: 8
    conversations: 108
    blend:
      math: {source: ../big.jsonl, sample: 30}
      science: {source: ../small.jsonl, repeat: 10}
      code: {source: ../folder/}
"""


@pytest.fixture
def study(sources: dict[str, BlendSource], tmp_path: Path) -> Path:
    file = tmp_path / "studies" / "tiny.yaml"
    file.parent.mkdir()
    file.write_text(STUDY)
    return file


def m2rl(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_shows_table_1_beside_the_papers(study: Path, tmp_path: Path) -> None:
    result = m2rl("blend", study, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["math", "random", "sampling", "30", "27.78", "2,950,525", "20.89", "100", "0"] in rows
    assert ["science", "repeat", "10", "times", "70", "64.81", "2,263,340", "16.04", "7", "0"] in rows
    assert ["code", "use", "all", "8", "7.41", "3,927,984", "27.81", "13", "5:", "no", "messages"] in rows
    assert ["total", "108", "100.00", "14,121,873", "100.00", "120"] in rows
    assert result.stderr == ""
    kept = [json.loads(line) for line in (tmp_path / "out" / "math.jsonl").read_text().splitlines()]
    assert len(kept) == 30
    assert kept[0]["messages"][1]["content"] == kept[0]["messages"][0]["content"].replace("?", "!")


def test_the_command_writes_what_the_stage_trains_on(
    study: Path, sources: dict[str, BlendSource], tmp_path: Path
) -> None:
    m2rl("blend", study, "--out", tmp_path / "out")
    materialised(tmp_path / "stage", sources, seed=derive(17, "sft"))
    assert (tmp_path / "out" / "math.jsonl").read_bytes() == (tmp_path / "stage" / "math.jsonl").read_bytes()
    assert is_materialised(tmp_path / "stage", sources, derive(17, "sft"))


def test_the_command_tells_a_program_the_same(study: Path, tmp_path: Path) -> None:
    found = json.loads(m2rl("blend", study, "--out", tmp_path / "out", "--json").stdout)
    stage = found["stages"]["sft"]
    assert (stage["folder"], stage["samples"]) == (str(tmp_path / "out"), 108)
    math = next(source for source in stage["sources"] if source["name"] == "math")
    assert {key: math[key] for key in ("method", "samples", "read", "dropped")} == {
        "method": "random sampling", "samples": 30, "read": 100, "dropped": {},
    }  # fmt: skip
    code = next(source for source in stage["sources"] if source["name"] == "code")
    assert code["dropped"] == {"no messages": 5}


def test_a_number_of_conversations_that_does_not_fit_is_told(study: Path, tmp_path: Path) -> None:
    result = m2rl("blend", study, "--out", tmp_path / "out", "--set", "stages.sft.conversations=200")
    assert "conversations is 200, which is more than there are: the blend has 108." in result.stderr


def test_a_study_without_a_blend_is_refused(study: Path, tmp_path: Path) -> None:
    study.write_text("name: x\nstages: {m: {kind: model, path: ..}}\n")
    result = m2rl("blend", study, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "no stage of 'x' learns from a blend" in result.stderr


def sft_key(study: Path, tmp_path: Path, *overrides: str) -> str:
    loaded = grounded(load_study(study, overrides), study.parent)
    [node] = [node for node in plan(loaded, load_plugins(), tmp_path / "runs") if node.stage == "sft"]
    return node.key


def test_a_blend_counts_with_its_rows_and_not_with_its_place(study: Path, tmp_path: Path) -> None:
    before = sft_key(study, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "big.jsonl").rename(tmp_path / "elsewhere" / "big.jsonl")
    moved = "stages.sft.blend.math.source=../elsewhere/big.jsonl"
    assert sft_key(study, tmp_path, moved) == before
    assert sft_key(study, tmp_path, moved, "stages.sft.blend.science.repeat=9") != before
    with (tmp_path / "small.jsonl").open("a") as file:
        file.write(json.dumps(talk(1)) + "\n")
    assert sft_key(study, tmp_path, moved) != before


def test_check_says_which_source_is_missing(study: Path, tmp_path: Path) -> None:
    (tmp_path / "small.jsonl").unlink()
    result = m2rl("check", study, "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert "Error: stages.sft.blend.science.source: no rows to read. Found: '../small.jsonl'." in result.stderr
    assert "Drift from the paper" in result.stdout


@pytest.mark.parametrize("name", ["a/b", ".hidden", ""])
def test_a_source_whose_name_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a file"):
        check_references(study_with(blend={name: {"source": "x.jsonl"}}))
