"""Settings, how they become vLLM's arguments, and what importing the plugin costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from m2rl_core.interfaces import Engine
from m2rl_engine_vllm import m2rl_engines
from m2rl_engine_vllm.arguments import arguments, environment, flags
from m2rl_engine_vllm.config import VllmConfig
from m2rl_engine_vllm.serve import command


def test_the_engine_has_the_shape_of_one() -> None:
    [found] = m2rl_engines()
    assert isinstance(found(found.Config()), Engine)  # type: ignore[arg-type]


def test_listing_imports_neither_torch_nor_vllm() -> None:
    code = (
        "import sys, m2rl_engine_vllm; m2rl_engine_vllm.m2rl_engines();"
        "assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"urls": ["http://a:8000"]},
        {"placement": "server", "urls": ["http://user:secret@a:8000"]},
        {"memory": 1.5},
        {"in_flight": "wait"},
        {"sleep": 3},
        {"rows": 0},
        {"gpu_memory_utilization": 0.5},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        VllmConfig.model_validate(wrong)


def test_seeds_need_whole_prefills_on_a_cpu_only() -> None:
    config = VllmConfig(cache_gib=2, rows=32)
    cpu = arguments(config, Path("m"), 20_000, cuda=False)
    assert (cpu["enable_chunked_prefill"], cpu["max_num_batched_tokens"]) == (False, 20_000)
    assert cpu["kv_cache_memory_bytes"] == 2 * 2**30
    assert cpu["logprobs_mode"] == "processed_logprobs"
    assert not cpu["enable_sleep_mode"]
    cuda = arguments(config, Path("m"), 20_000, cuda=True)
    assert (cuda["enable_chunked_prefill"], cuda["max_num_batched_tokens"]) == (True, 8192)
    assert cuda["enable_sleep_mode"]
    for config in (VllmConfig(sleep=0), VllmConfig(placement="server")):
        assert not arguments(config, Path("m"), 512, cuda=True)["enable_sleep_mode"]


def test_arguments_become_options() -> None:
    assert flags({"a_b": 3, "on": True, "off": False, "none": None, "map": {"k": "v"}}) == [
        "--a-b", "3", "--on", "--no-off", "--map", '{"k": "v"}',
    ]  # fmt: skip


def test_a_server_stays_on_this_machine_unless_told_otherwise() -> None:
    options = command(["model", "--host", "0.0.0.0"], cuda=False)
    assert options[:2] == ["serve", "model"]
    hosts = [options[i + 1] for i, each in enumerate(options) if each == "--host"]
    assert hosts == ["127.0.0.1", "0.0.0.0"], "the last one wins"


def test_the_users_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    assert "VLLM_LOGGING_LEVEL" not in environment(cuda=False)
    assert environment(cuda=False)["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment(cuda=True)
