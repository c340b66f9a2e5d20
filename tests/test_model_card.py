"""Cards of models: what they say, that they are the same from run to run, and that their snippet loads the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from m2rl_core import Study, api
from m2rl_core.config import MergeStage, RlStage
from m2rl_core.model_card import Made, complete, front_matter, published
from m2rl_core.plugins import Registry
from m2rl_core.run import NodeView
from m2rl_core.run.origin import made

LETTERS = Path(__file__).parent / "letters_plugin.py"
RL = {"kind": "rl", "init": "sft", "algorithm": "letters", "prompts": 2, "group": 2, "max_tokens": 4, "lr": 0.01}
STAGES = {
    "init": {"kind": "init", "domains": ["a"], "vocab": 300, "hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1},
    "sft": {"kind": "sft", "init": "init", "domains": ["a"], "conversations": 8, "batch": 4, "max_length": 64},
    "rl": {**RL, "domains": ["a"], "steps": 2, "keep_every": 1},
    "merged": {"kind": "merge", "base": "sft", "experts": ["rl", "rl@1"], "merger": "average"},
}


def read(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def ran(runs: Path) -> Path:
    domains = {"a": {"use": "letters", "suite": "s", "reasoning": "off"}}
    study = Study.model_validate({"name": "tiny", "domains": domains, "plugins": [str(LETTERS)], "stages": STAGES})
    return api.run(study, runs=runs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran(tmp_path_factory.mktemp("first"))


def test_every_model_has_a_card_and_the_same_one_wherever_it_is_made(folder: Path, tmp_path: Path) -> None:
    cards = sorted(path.relative_to(folder) for path in folder.rglob("README.md"))
    made_by = [*(f"{stage}/checkpoint" for stage in STAGES), "rl/kept/000001", "rl/kept/000002"]
    assert [str(card.parent) for card in cards] == sorted(made_by)
    other = ran(tmp_path)
    for card in cards:
        assert (other / card).read_bytes() == (folder / card).read_bytes()
        assert str(folder.parent) not in (folder / card).read_text(), card


def test_it_says_what_the_model_was_made_of(folder: Path) -> None:
    front, text = read(folder / "rl" / "kept" / "000001")
    assert front["library_name"] == "transformers"
    assert front["tags"] == ["reinforcement-learning", "letters", "m2rl"]
    assert "base_model" not in front  # nothing of it is on the hub
    assert "stage `rl` of study `tiny`, as it was after 1 steps" in text
    assert f"| `sft` | `{(folder / 'sft' / 'KEY').read_text().strip()}` |" in text
    assert f"| this stage | `{(folder / 'rl' / 'KEY').read_text().strip()}` |" in text
    blocks = [yaml.safe_load(block.partition("```")[0]) for block in text.split("```yaml\n")[1:]]
    assert blocks[0]["seed"] == 17
    assert blocks[0]["config"]["lr"] == 0.01
    assert blocks[0]["algorithm"]["use"] == "letters"
    assert blocks[1]["a"] == {"reasoning": "off", "use": "letters", **blocks[1]["a"]}
    for library in ("m2rl-core", "torch", "transformers"):
        assert f"| {library} | " in text


def test_a_merge_tells_its_recipe_first_by_the_names_of_the_study(folder: Path) -> None:
    front, text = read(folder / "merged" / "checkpoint")
    assert front["tags"] == ["merge", "m2rl"]
    recipe = yaml.safe_load(text.split("```yaml\n")[1].partition("```")[0])
    assert (recipe["base"], recipe["experts"]) == ("sft", {"rl": "rl", "rl@1": "rl@1"})
    assert text.index("## Task vectors") < text.index("## Where it comes from")


@pytest.mark.parametrize("stage", ["rl", "merged"])
def test_its_snippet_loads_the_model(folder: Path, stage: str) -> None:
    here = folder / stage / "checkpoint"
    code = read(here)[1].split("```python\n")[1].partition("```")[0].replace("256", "2")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "<|im_start|>user" in done.stdout


def run_of(stage: object, *nodes: NodeView) -> Any:
    return SimpleNamespace(
        study=SimpleNamespace(name="s"), name="n", stage=stage, key="k", covered={}, nodes=nodes, registry=Registry()
    )


def node(name: str, *inputs: str, hub: str = "") -> NodeView:
    return NodeView(name, name, "rl", Path(), 1, inputs, name, hub)


def test_the_base_model_is_what_it_started_from_and_no_teacher() -> None:
    base, other = node("base", hub="Qwen/Qwen3-4B-Base"), node("other", hub="Qwen/Qwen3-8B")
    nodes = [base, other, node("sft", "base"), node("math", "sft", "other")]
    stage = RlStage.model_validate({**RL, "init": "math", "domains": ["a"], "teachers": {"a": "other"}})
    assert made(run_of(stage, *nodes), None).published == ["Qwen/Qwen3-4B-Base"]
    merge = MergeStage(kind="merge", base="sft", experts=["math@3", "other"], merger={"use": "average"})
    assert made(run_of(merge, *nodes), None).published == ["Qwen/Qwen3-4B-Base", "Qwen/Qwen3-8B"]


def test_the_hub_reads_the_base_model_and_its_relation(tmp_path: Path) -> None:
    complete(tmp_path, Made("s", "n", "rl", "k", published=["Qwen/Qwen3-4B-Base"]))
    front, text = read(tmp_path)
    assert (front["base_model"], front["base_model_relation"]) == ("Qwen/Qwen3-4B-Base", "finetune")
    assert "trust_remote_code" not in text
    assert published(tmp_path) == ["Qwen/Qwen3-4B-Base"]
    assert front_matter(["A/a", "B/b"], ["merge"], merged=True)["base_model"] == ["A/a", "B/b"]
    complete(tmp_path, Made("s", "n", "rl", "k", covered={"model": {"trust_remote_code": True}}))
    assert read(tmp_path)[1].count(", trust_remote_code=True)") == 2


def test_folders_without_a_card_tell_of_no_base_model(tmp_path: Path) -> None:
    assert published(tmp_path) == []
    (tmp_path / "README.md").write_text("# A model\n\n---\nbase_model: none\n---\n")
    assert published(tmp_path) == []


@pytest.mark.parametrize(
    "front",
    ["base_model:", "base_model: 3", "base_model: [1]", "\tx: :", "date: 2026-13-41", "a: " + 5000 * "[", "é"],
    ids=lambda front: front[:20],
)
def test_a_card_that_cannot_be_read_tells_of_no_base_model(tmp_path: Path, front: str) -> None:
    (tmp_path / "README.md").write_bytes(f"---\n{front}\n---\n".encode("latin-1"))
    assert published(tmp_path) == []
