"""Code of models runs only where the study says so; nothing reads pickles, unsafe YAML or listens to the world."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import Study
from m2rl_core.errors import DataError
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.model import model
from m2rl_core.plugins import Registry, load_plugins
from m2rl_core.policy import Policy
from m2rl_core.policy.frozen import Frozen
from m2rl_core.run import StageRun
from m2rl_core.study import plan
from m2rl_core.train_rl import train_rl
from m2rl_core.types import Prompt, Reward, Trajectory

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [p for top in ("m2rl_core", "plugins") for p in sorted((ROOT / top).rglob("*.py")) if "tests" not in p.parts]

CODE = """
from pathlib import Path
from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM

Path(MARK).touch()

class OwnConfig(Qwen3Config):
    model_type = "own"

class OwnForCausalLM(Qwen3ForCausalLM):
    config_class = OwnConfig
"""
DOMAIN = """
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Composition, Prompt, Reward

class Even(Domain):
    name, reference, suites, Config = "trust-even", "test", {}, ComponentConfig
    def __init__(self, config):
        pass
    def prompts(self, split):
        return [Prompt(str(i), "even", ({"role": "user", "content": str(i)},)) for i in range(8)]
    def verify(self, trajectory):
        return Reward(float(trajectory.answer[:1] in set("02468abcdefghijklm")))

class Part:
    name, reference, Config = "trust-part", "test", ComponentConfig
    needs, separable, vanishes, divergence = frozenset({"reference_logps"}), True, False, None
    def __init__(self, config):
        pass
    def compose(self):
        return Composition({"use": "trust-part"}, {"use": "trust-loss"})
    def __call__(self, group):
        import torch
        return [torch.full((len(s.ids_L),), s.reward.value) for s in group]

class Loss(Part):
    name = "trust-loss"
    def __call__(self, logps, batch):
        return -logps * batch.advantage_T

@hookimpl
def m2rl_domains():
    return [Even]

@hookimpl
def m2rl_algorithms():
    return [Part]

@hookimpl
def m2rl_advantages():
    return [Part]

@hookimpl
def m2rl_losses():
    return [Loss]
"""


@pytest.fixture
def foreign(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose architecture only its own code knows; ``ran`` appears beside its folder when that code runs."""
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    folder = tmp_path / "foreign"
    shutil.copytree(tiny_model, folder)
    (folder / "own.py").write_text(CODE.replace("MARK", repr(str(tmp_path / "ran"))))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def rl(folder: Path, model: Path, trust: bool) -> StageRun[Any]:
    plugin = folder / "even.py"
    plugin.write_text(DOMAIN)
    stage = {
        "kind": "rl", "init": "start", "domains": ["even"], "algorithm": "trust-part", "steps": 2, "prompts": 2,
        "group": 2, "max_tokens": 4, "checkpoint_every": 1,
    }  # fmt: skip
    study = Study.model_validate(
        {
            "name": "s",
            "model": {"dtype": "float32", "trust_remote_code": trust},
            "domains": {"even": {"use": "trust-even", "reasoning": "off"}},
            "stages": {"rl": stage},
            "plugins": [str(plugin)],
        }
    )
    return StageRun(
        name="rl", stage=study.stages["rl"], study=study, seed=1, folder=folder / "rl", models={"start": model},
        registry=load_plugins([plugin]), key="k",
    )  # fmt: skip


def test_code_of_a_model_does_not_run(foreign: Path, tmp_path: Path) -> None:
    run = rl(tmp_path, foreign, trust=False)
    with pytest.raises(DataError, match=r"cannot be opened without code of its own.*own\.py.*model\.trust_remote_code"):
        train_rl(run)
    for opened in (
        lambda: Policy.load(foreign, dtype="float32"),
        lambda: Frozen(
            {"a": foreign, "b": foreign}, {"math": "b"}, "a", lambda folder: Policy.load(folder, dtype="float32")
        ),
    ):
        with pytest.raises(DataError, match="trust_remote_code: true"):
            opened()
    assert not (tmp_path / "ran").exists()


def test_trusted_code_of_a_model_runs_in_a_whole_stage(foreign: Path, tmp_path: Path) -> None:
    run = rl(tmp_path, foreign, trust=True)
    train_rl(run)
    assert (tmp_path / "ran").exists()
    made = run.folder / "checkpoint"
    assert (made / "own.py").is_file()
    again = Policy.load(made, dtype="float32", trust_remote_code=True)
    assert type(again.model).__name__ == "OwnForCausalLM"
    with pytest.raises(DataError, match="trust_remote_code: true"):
        Policy.load(made, dtype="float32")


def test_code_that_is_not_needed_is_left_alone(foreign: Path, tmp_path: Path) -> None:
    """Many published models carry code for what transformers has learned since."""
    config = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps(config | {"model_type": "qwen3"}))
    Policy.load(foreign, dtype="float32")
    assert not (tmp_path / "ran").exists()


def test_weights_are_never_unpickled(tiny_model: Path, tmp_path: Path) -> None:
    """``transformers`` would fall back to the pickle where another safetensors file lies beside it."""
    import torch

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        Policy.load(folder, dtype="float32")


def test_code_is_fetched_from_the_hub_only_where_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def snapshot_download(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for trust in (False, True):
        study = Study.model_validate(
            {
                "name": "s",
                "model": {"trust_remote_code": trust},
                "stages": {"m": {"kind": "model", "path": "a/b", "revision": "0" * 40}},
            }
        )
        run: StageRun[Any] = StageRun(
            name="m", stage=study.stages["m"], study=study, seed=1, folder=tmp_path, models={}, registry=Registry()
        )
        with pytest.raises(DataError, match="could not be fetched"):
            model(run)
    assert ["*.py" in patterns for patterns in asked] == [False, True]
    assert all("*.bin" not in patterns for patterns in asked)


def test_trust_is_part_of_the_key(tiny_model: Path, tmp_path: Path, registry: Registry) -> None:
    from m2rl_core.hookspecs import hookimpl

    class Plain(Domain):
        name, reference, suites = "trust-plain", "test", {}
        Config = ComponentConfig

        def __init__(self, config: ComponentConfig) -> None: ...

        def prompts(self, split: str) -> list[Prompt]:
            return []

        def verify(self, trajectory: Trajectory) -> Reward:
            raise NotImplementedError

    class Plugin:
        @hookimpl
        def m2rl_domains(self) -> list[type[Domain]]:
            return [Plain]

    registry.register(Plugin(), distribution="test")

    def keys(trust: bool) -> dict[str, str]:
        sft = {"kind": "sft", "init": "base", "domains": ["d"], "conversations": 8, "batch": 8}
        study = Study.model_validate(
            {
                "name": "s",
                "model": {"base": str(tiny_model), "trust_remote_code": trust},
                "domains": {"d": "trust-plain"},
                "stages": {"sft": sft},
            }
        )
        return {node.id: node.key for node in plan(study, registry, tmp_path)}

    assert all(keys(False)[name] != keys(True)[name] for name in ("base", "sft"))


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def calls(path: Path) -> Iterator[tuple[str, set[str]]]:
    """(dotted name of what is called, names of its keywords; ``**x`` counts as ``x``) of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg or ast.unparse(k.value) for k in node.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_read_that_can_run_code(path: Path) -> None:
    for name, keywords in calls(path):
        last = name.rpartition(".")[2]
        assert name not in {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load"}, name
        if name == "torch.load":
            assert "weights_only" in keywords
        if last == "from_pretrained":
            assert keywords & {"trust_remote_code", "trust"}, f"{name} would ask on the terminal"
            assert "local_files_only" in keywords or "trust" in keywords


def test_no_server_listens_to_the_world() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in {"0.0.0.0", "::"}, path
