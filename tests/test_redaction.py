"""Secrets reach no message, log, report or copy of a study."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import Study, check_references, load_study
from m2rl_core.errors import ConfigError, StageError, boundary
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.redaction import masked, redacted, secrets_in
from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.run import StageRun
from m2rl_core.types import Prompt, Reward, Trajectory

HUB = "hf_" + "A1b2C3d4E5" * 3
SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://me:pw@host:80/v1?x=1", "see http://***@host:80/v1?x=1"),
        ("postgresql://tok@h", "postgresql://***@h"),
        ("GET /v1?api_key=abc&n=2", "GET /v1?api_key=***&n=2"),
        ("GET /v1?access_token=abc", "GET /v1?access_token=***"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer ***"),
        (f"token {HUB} refused", "token *** refused"),
        ("sk-proj-0123456789abcdefghij", "***"),
        ("bearer bonds, the key is 7, me@host, https://host/a?b=c", "bearer bonds, the key is 7, me@host, https://host/a?b=c"),
        ("tokens_per_device = 36864, sk-learn, hf_hub", "tokens_per_device = 36864, sk-learn, hf_hub"),
        ("http://host/path@2", "http://host/path@2"),
    ],
)  # fmt: skip
def test_secrets_are_known_by_their_form(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_secrets_are_known_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "falsehood")
    assert redacted(f"{SECRET}, abc, falsehood") == "***, abc, falsehood"


@pytest.mark.parametrize(
    "key", ["api_key", "judge_api_key", "token", "hf_token", "password", "Authorization", "secret"]
)
def test_secrets_are_known_by_their_settings(key: str) -> None:
    assert masked({"a": [{key: SECRET}]}) == {"a": [{key: "***"}]}
    assert list(secrets_in({"a": [{key: SECRET}]})) == [("a", 0, key)]


@pytest.mark.parametrize("key", ["api_key_env", "max_tokens", "stop_token", "tokens", "keys", "kind", "use"])
def test_other_settings_are_left_alone(key: str) -> None:
    assert list(secrets_in({key: "word"})) == []
    assert list(secrets_in({"secret": True, "token": 7, "password": ""})) == []


STUDY = """\
name: s
domains:
  d: {{use: math, {setting}}}
stages:
  a: {{kind: init, domains: [d]}}
"""


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        (f"url: 'http://me:{SECRET}@host'", "domains.d.url"),
        (f"judge: {{api_key: {SECRET}}}", "domains.d.judge.api_key"),
        (f"headers: {{Authorization: {SECRET}}}", "domains.d.headers.Authorization"),
        (f"source: 'owner/name?token={SECRET}'", "domains.d.source"),
    ],
)
def test_a_study_holds_no_secret(tmp_path: Path, setting: str, path: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.format(setting=setting))
    with pytest.raises(ConfigError) as caught:
        load_study(file)
    assert f"{file}:3: {path}: holds a secret" in str(caught.value)
    assert "name, e.g. 'api_key_env: JUDGE_API_KEY'" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_nor_does_one_that_is_built_in_python() -> None:
    study = Study.model_validate(
        {"name": "s", "engine": {"use": "embedded", "password": SECRET}, "stages": {"a": {"kind": "report"}}}
    )
    with pytest.raises(ConfigError, match=r"engine\.password: holds a secret"):
        check_references(study)


def test_overrides_are_shown_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.format(setting="levels: [1]"))
    for override in (
        f"domains.d.api_key={SECRET}",
        f"domains.e.url=http://me:{SECRET}@host",
        f"seed=http://{SECRET}@h",
        f"seed={{token: {SECRET}}}",
    ):
        with pytest.raises(ConfigError) as caught:
            load_study(file, [override])
        assert "***" in str(caught.value)
        assert SECRET not in str(caught.value)


def test_a_value_that_is_refused_is_shown_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    for line in (f"token: {SECRET}", f"model: 'http://me:{SECRET}@host'", f"model: {{base: {{password: {SECRET}}}}}"):
        file.write_text(f"{STUDY.format(setting='levels: [1]')}{line}\n")
        with pytest.raises(ConfigError) as caught:
            load_study(file)
        assert SECRET not in str(caught.value)


def test_errors_of_components_say_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    with pytest.raises(StageError) as caught, boundary("judge", "asking"):
        raise RuntimeError(f"401 for {SECRET} at http://me:pw@host")
    assert "401 for *** at http://***@host" in str(caught.value)


class Leaky(Domain):
    """A remote verifier whose errors and reasons quote its key."""

    name, reference, remote, suites = "leaky", "test", True, {}
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None: ...

    def prompts(self, split: str) -> list[Prompt]:
        return []

    def verify(self, trajectory: Trajectory) -> Reward:
        raise NotImplementedError

    async def verify_remote(self, trajectory: Trajectory) -> Reward:
        if trajectory.answer == "raise":
            raise ConnectionError(f"refused with key {os.environ['LEAKY_KEY']}")
        return Reward(0.0, f"asked with key {os.environ['LEAKY_KEY']}")


@pytest.mark.parametrize("answer", ["raise", "say"])
def test_reasons_say_no_secret(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    from m2rl_core.config import DomainSection

    monkeypatch.setenv("LEAKY_KEY", SECRET)
    prompt = Prompt("1", "leaky", ({"role": "user", "content": "?"},))
    pool = VerifierPool({"leaky": Spec.of(Leaky(ComponentConfig()), DomainSection(use="leaky"), [])})
    try:
        verdict = asyncio.run(pool.verify("leaky", Trajectory(prompt, (), answer)))
    finally:
        pool.close()
    assert "with key ***" in verdict.reward.reason
    assert SECRET not in verdict.reward.reason


def test_notes_say_no_secret(tmp_path: Path, registry: Any) -> None:
    told: list[dict[str, Any]] = []
    study = Study.model_validate({"name": "s", "stages": {"a": {"kind": "report"}}})
    run: StageRun[Any] = StageRun(
        name="a", stage=study.stages["a"], study=study, seed=1, folder=tmp_path, models={}, registry=registry,
        send=lambda fields: told.append(dict(fields)),
    )  # fmt: skip
    run.note("no answer from http://me:pw@host")
    assert told == [{"note": "no answer from http://***@host"}]


# ── a whole run ──────────────────────────────────────────────────────────────────────────────────────────────────────

LOUD = '''
import os
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Conversation, Prompt, Reward, Suite

class Loud(Domain):
    """Prints its key, and its verifier quotes it."""
    name, reference, remote = "loud", "test", True
    suites = {"loud-all": Suite("generated")}
    class Config(ComponentConfig):
        api_key_env: str = "LOUD_API_KEY"
        fails: bool = False
    def __init__(self, config):
        self.config = config
    def prompts(self, split):
        os.write(1, f"key: {os.environ[self.config.api_key_env]}\\n".encode())
        return [Prompt(str(i), "loud", ({"role": "user", "content": str(i)},)) for i in range(4)]
    def demonstrations(self):
        for i in range(4):
            said = ({"role": "user", "content": "1"}, {"role": "assistant", "content": "2"})
            yield Conversation(str(i), "loud", said)
    async def verify_remote(self, trajectory):
        text = f"key {os.environ[self.config.api_key_env]} at http://me:swordfish@host"
        if self.config.fails:
            raise RuntimeError(text)
        return Reward(0.0, text)

@hookimpl
def m2rl_domains():
    return [Loud]
'''
RUN = """\
name: loud
plugins: [./loud.py]
domains: {loud: {use: loud, reasoning: "off"}}
stages:
  init: {kind: init, domains: [loud], hidden: 32, layers: 1, ffn: 32, vocab: 280, context: 64}
  evals: {kind: eval, models: [init], max_tokens: 4}
  report: {kind: report}
"""


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_no_file_and_no_output_of_a_run_holds_a_secret(tmp_path: Path, fails: bool) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "study.yaml").write_text(RUN)
    environment = {**os.environ, "LOUD_API_KEY": SECRET, "HF_TOKEN": HUB}
    program = "import sys; from m2rl_core.cli import main; sys.argv[0] = 'm2rl'; main()"
    said = ""
    for command in ("check", "run"):
        arguments = [command, "study.yaml", "--set", f"domains.loud.fails={str(fails).lower()}"]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == (1 if fails and command == "run" else 0), done.stderr
        said += done.stdout + done.stderr
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert any("***" in path.read_text(errors="replace") for path in files)
    for place, content in [("output", said.encode()), *((str(path), path.read_bytes()) for path in files)]:
        for secret in (SECRET, HUB, "swordfish"):
            assert secret.encode() not in content, place
    if not fails:
        [samples] = (tmp_path / "runs").rglob("samples.jsonl")
        assert all(
            "key *** at http://***@host" in json.loads(line)["reason"] for line in samples.read_text().splitlines()
        )
