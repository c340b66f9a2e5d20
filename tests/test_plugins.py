"""The loader and the registry, against throwaway distributions: good ones and one for every way to be broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import pytest

from m2rl_core.errors import ComponentError, ConfigError, StageError
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Preset
from m2rl_core.plugins import Entry, Plugin, Registry, discover, load_plugins, use_of

Install = Callable[..., Path]


def merger(name: str = "fine", hook: str = "m2rl_mergers", head: str = "") -> str:
    """The source of a plugin with one component."""
    return f"""{head}
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Preset

class Part:
    name = {name!r}
    reference = "a test"
    needs_base = False
    class Config(ComponentConfig):
        density: float = 0.2
    def __init__(self, config):
        self.config = config

@hookimpl
def {hook}():
    return [Part]
"""


def row(registry: Registry, name: str) -> Plugin:
    [found] = [plugin for plugin in registry.plugins if plugin.name == name]
    return found


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plugin_is_found_and_its_component_built(install: Install) -> None:
    install("merger-fine", merger())
    registry = load_plugins()
    assert row(registry, "merger-fine") == Plugin(
        "merger-fine", "m2rl_merger_fine", "m2rl-merger-fine", "1.2", "loaded", "", ("merger fine",)
    )
    assert "fine" in registry.names("merger")
    built = registry.create("merger", {"use": "fine", "density": 0.5}, "stages.x.merger")
    assert vars(built)["config"].density == 0.5
    assert str(registry.lookup("merger", "fine")) == "merger 'fine' of m2rl-merger-fine 1.2"


def test_listing_imports_nothing(install: Install) -> None:
    install("merger-fine", merger())
    install("merger-misfit", merger(), requires="m2rl-core>=9")
    found = {plugin.name: plugin.status for plugin in discover()}
    assert found["merger-fine"] == "installed"
    assert found["merger-misfit"] == "incompatible"
    assert "m2rl_merger_fine" not in sys.modules
    installed = [plugin.name for plugin in discover() if plugin.distribution != "m2rl-core"]
    assert installed == sorted(installed) == list(found)[-len(installed) :], (
        "entry points, sorted, after the core's own"
    )


BROKEN = {
    "raises": (merger(head="import no_such_thing"), "ModuleNotFoundError: No module named 'no_such_thing'"),
    "exits": (merger(head="raise SystemExit('bye')"), "SystemExit: bye"),
    "unknown-hook": (merger(hook="m2rl_merger"), "m2rl_merger is no hook. Did you mean 'm2rl_mergers'?"),
    "unmarked": (merger().replace("@hookimpl", ""), "m2rl_mergers is not marked with @hookimpl"),
    "arguments": (merger().replace("def m2rl_mergers()", "def m2rl_mergers(x)"), "Argument(s) {'x'}"),
    "hook-raises": (merger().replace("return [Part]", "1 / 0"), "ZeroDivisionError"),
    "unprintable": (
        "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E",
        "E: its message cannot be shown",
    ),
    "hook-exits": (merger().replace("return [Part]", "raise SystemExit"), "SystemExit"),
    "returns-none": (merger().replace("return [Part]", "return None"), "TypeError"),
    "no-class": (merger().replace("return [Part]", "return [Part(None)]"), "must return component classes"),
    "no-name": (merger(name="A b"), "needs a class attribute 'name'"),
    "no-config": (merger().replace("(ComponentConfig)", ""), "needs a class attribute 'Config'"),
    "no-reference": (merger().replace("reference =", "ref ="), "needs a class attribute 'reference'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_an_error_only_when_it_is_used(kind: str, install: Install) -> None:
    code, cause = BROKEN[kind]
    install("merger-fine", merger())
    install(f"merger-{kind}", code)
    registry = load_plugins()
    broken = row(registry, f"merger-{kind}")
    assert broken.status == "failed"
    assert cause in broken.problem
    assert "\n" not in str(broken)
    assert registry.lookup("merger", "fine")
    with pytest.raises(ComponentError) as caught:
        registry.create("merger", kind, "stages.x.merger")
    message = str(caught.value)
    assert message.startswith(f"stages.x.merger: merger '{kind}' is not available.")
    assert f"m2rl-merger-{kind} 1.2 is installed but failed: {broken.problem}".rstrip(".") in message
    assert re.search(r"Mergers available: .*\bfine\b", message)


def test_the_plugins_own_line_is_named(install: Install) -> None:
    install("merger-raises", "\n\nimport no_such_thing\n")
    assert row(load_plugins(), "merger-raises").problem.endswith("/m2rl_merger_raises.py:3)")


def test_an_interrupt_passes(install: Install) -> None:
    install("merger-slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins()


@pytest.mark.parametrize(
    ("requires", "problem"),
    [
        ("m2rl-core>=9", "it requires m2rl-core >=9, but 0.1.0 is running"),
        ("M2RL.core<0.1", "it requires m2rl-core <0.1, but 0.1.0 is running"),
        ("m2rl-core>=9; extra == 'new'", ""),
        ("m2rl-core>=9; python_version < '3'", ""),
        ("numpy>=9999", ""),
    ],
)
def test_the_distributions_requirement_is_checked_before_import(install: Install, requires: str, problem: str) -> None:
    install("merger-fine", merger(), requires=requires)
    registry = load_plugins()
    found = row(registry, "merger-fine")
    assert (found.status, found.problem) == (("incompatible", problem) if problem else ("loaded", ""))
    if problem:
        assert "m2rl_merger_fine" not in sys.modules
        with pytest.raises(ComponentError, match=re.escape(f"m2rl-merger-fine 1.2 does not fit: {problem}")):
            registry.lookup("merger", "fine")


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        (
            "Metadata-Version: 2.1\nName: m2rl-half\nVersion: 1\nRequires-Dist: m2rl-core>>=9\n",
            "InvalidRequirement: Exp",
        ),
        ("", "LookupError: it does not say whose it is"),
    ],
)
def test_unreadable_metadata_is_a_problem_of_its_plugin_only(install: Install, metadata: str, problem: str) -> None:
    install("merger-fine", merger())
    info = install("merger-half", merger("half")).parent / "m2rl_merger_half-1.2.dist-info"
    (info / "METADATA").write_text(metadata)
    if not metadata:
        (info / "METADATA").unlink()
    registry = load_plugins()
    assert row(registry, "merger-half").status == "failed"
    assert row(registry, "merger-half").problem.startswith(f"its metadata cannot be read: {problem}")
    assert registry.names("merger").count("fine") == 1


def test_a_name_taken_twice_names_both_distributions(install: Install) -> None:
    install("merger-b", merger("same"))
    install("merger-a", merger("same"))
    registry = load_plugins()
    assert registry.lookup("merger", "same").distribution == "m2rl-merger-a"
    problem = row(registry, "merger-b").problem
    assert "merger 'same' of m2rl-merger-b 1.2 is refused" in problem
    assert "merger 'same' of m2rl-merger-a 1.2" in problem
    assert "M2RL_DISABLE_PLUGINS=m2rl-merger-b" in problem


def test_a_refused_plugin_leaves_nothing_behind(install: Install) -> None:
    """Its other component and its observer go with it."""
    before = load_plugins().names("analyzer")
    install("merger-a", merger("same"))
    more = "\n@hookimpl\ndef m2rl_step_end(step):\n    pass\n@hookimpl\ndef m2rl_analyzers():\n    return [Part]\n"
    install("merger-b", merger("same") + more)
    registry = load_plugins()
    assert registry.names("analyzer") == before
    assert registry.observers == []


CHOICE = """m2rl-core>=0.1,<0.2
Provides-Extra: cuda
Requires-Dist: no-such-package; extra == "cuda"
Provides-Extra: cpu
Requires-Dist: pluggy>={version}; extra == "cpu\""""


def test_a_plugin_waits_for_the_package_that_suits_the_machine(install: Install) -> None:
    install("merger-choosy", merger(), requires=CHOICE.format(version="99"))
    [found] = [plugin for plugin in discover() if plugin.name == "merger-choosy"]
    assert (found.status, found.broken) == ("waiting", False)
    assert str(found) == (
        "m2rl-merger-choosy 1.2 is waiting: it needs no-such-package (pip install 'm2rl-merger-choosy[cuda]')"
        " or pluggy (pip install 'm2rl-merger-choosy[cpu]')"
    )
    with pytest.raises(ComponentError, match=r"m2rl-merger-choosy 1\.2 is waiting: it needs no-such-package"):
        load_plugins(strict=True).lookup("merger", "choosy")


def test_one_of_the_packages_is_enough(install: Install) -> None:
    install("merger-choosy", merger("choosy"), requires=CHOICE.format(version="1"))
    assert load_plugins().lookup("merger", "choosy")


def test_plugins_can_be_disabled(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("merger-a", merger("a"))
    install("merger-b", merger("b"))
    install("merger-c", merger("c"))
    monkeypatch.setenv("M2RL_DISABLE_PLUGINS", "merger-a, M2RL_Merger.B")
    registry = load_plugins()
    assert [row(registry, f"merger-{x}").status for x in "abc"] == ["disabled", "disabled", "loaded"]
    with pytest.raises(ComponentError, match=r"m2rl-merger-a 1\.2 is disabled: named in M2RL_DISABLE_PLUGINS"):
        registry.lookup("merger", "a")


def test_strict_refuses_broken_plugins(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("merger-raises", "1 / 0")
    monkeypatch.setenv("M2RL_STRICT_PLUGINS", "1")
    with pytest.raises(ComponentError, match=r"m2rl-merger-raises 1\.2 is installed but failed: ZeroDivisionError"):
        load_plugins()
    assert row(load_plugins(strict=False), "merger-raises").broken


# ── local plugins ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_local_file_and_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "math.py").write_text(merger("file"))
    package = tmp_path / "random"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import *\nfrom .inner import m2rl_mergers")
    (package / "inner.py").write_text(merger("folder"))
    registry = load_plugins([tmp_path / "math.py", str(package)])
    assert {"file", "folder"} <= set(registry.names("merger"))
    assert row(registry, "math").distribution == str(tmp_path / "math.py")
    import math

    assert math.pi > 3, "a local file must not shadow a module of the same name"
    again = load_plugins([tmp_path / "math.py"])
    assert again.lookup("merger", "file").cls is registry.lookup("merger", "file").cls


@pytest.mark.parametrize(
    ("name", "code", "cause"),
    [
        ("bad.py", "import no_such_thing", r"ModuleNotFoundError: No module named 'no_such_thing' \(.*/bad\.py:1\)"),
        ("bad.py", "def (", "SyntaxError"),
        ("bad.txt", "", "is no Python file"),
        ("absent.py", None, "there is no .*absent.py"),
    ],
)
def test_a_local_plugin_is_asked_for_so_it_must_load(tmp_path: Path, name: str, code: str | None, cause: str) -> None:
    if code is not None:
        (tmp_path / name).write_text(code)
    with pytest.raises(ComponentError, match=f"plugins: .*{name} did not load: .*{cause}"):
        load_plugins([tmp_path / name])


# ── the registry ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Advantage:
    name: ClassVar[str] = "group"
    reference: ClassVar[str] = "a test"

    class Config(ComponentConfig):
        class Clip(ComponentConfig):
            low: float = 0.2

        std: bool = True
        level: Literal["token", "sequence"] = "token"
        clip: Clip = Clip()
        sizes: list[int] = []

    def __init__(self, config: Config) -> None:
        if config.sizes == [13]:
            raise ZeroDivisionError("thirteen")
        self.config = config


def plugin(*classes: type, **more: object) -> SimpleNamespace:
    """An object with hooks."""
    return SimpleNamespace(m2rl_advantages=hookimpl(lambda: classes), **more)


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.register(plugin(Advantage), distribution="tests")
    return made


def test_a_new_registry_is_empty() -> None:
    registry = Registry()
    assert registry.names("engine") == []
    with pytest.raises(ComponentError, match=r"^engine 'x' is not available\. Engines available: none\. Next: "):
        registry.lookup("engine", "x")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stdd": False}, "stdd: unknown key. Did you mean 'std'?"),
        ({"zzz": 1}, "zzz: unknown key. Allowed: std, level, clip, sizes."),
        ({"clip": {"lo": 1}}, "clip.lo: unknown key. Did you mean 'low'?"),
        ({"level": "tokn"}, "level: should be 'token' or 'sequence', found 'tokn'. Did you mean 'token'?"),
        ({"sizes": [1, None]}, "sizes[1]: should be a valid integer, found None."),
    ],
)
def test_a_refused_configuration_says_where_and_what(registry: Registry, config: dict[str, Any], message: str) -> None:
    owner = "stages.math.algorithm.advantage"
    with pytest.raises(ConfigError) as caught:
        registry.create("advantage", {"use": "group", **config}, owner)
    assert str(caught.value) == f"{owner}.{message}"


def test_several_problems_are_several_lines(registry: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.configure("advantage", {"use": "group", "stdd": 1, "level": 3}, "a")
    assert len(str(caught.value).splitlines()) == 2


def test_a_constructor_that_fails_is_attributed(registry: Registry) -> None:
    with pytest.raises(StageError, match=r"a\.b: advantage 'group' of tests failed .*ZeroDivisionError: thirteen"):
        registry.create("advantage", {"use": "group", "sizes": [13]}, "a.b")


class Plain:
    """A merger with presets."""

    name: ClassVar[str] = "plain"
    reference: ClassVar[str] = "a test"
    presets: ClassVar[Mapping[str, Preset]] = {
        "loud": Preset({"density": 0.8, "scale": 2.0}, "more of everything"),
        "quiet": Preset({"scale": 0.1}, "less"),
    }

    class Config(ComponentConfig):
        density: float = 0.2
        scale: float = 1.0

    def __init__(self, config: Config) -> None:
        self.config = config


class Around:
    """A merger with a part."""

    name: ClassVar[str] = "around"
    reference: ClassVar[str] = "a test"
    presets: ClassVar[Mapping[str, Preset]] = {"loud": Preset({}, "its part decides"), "own": Preset({}, "only here")}
    parts: ClassVar[Mapping[str, str]] = {"then": "merger", "besides": "merger"}

    class Config(ComponentConfig):
        then: str | dict[str, Any] = "plain"
        besides: str | dict[str, Any] | None = None

    def __init__(self, config: Config, then: Plain) -> None:
        self.config, self.then = config, then


def mergers() -> Registry:
    made = Registry()
    made.register(SimpleNamespace(m2rl_mergers=hookimpl(lambda: [Plain, Around])), distribution="tests")
    return made


@pytest.mark.parametrize(
    ("use", "density", "scale"),
    [
        ({"preset": "loud"}, 0.8, 2.0),
        ({"preset": "loud", "scale": 3}, 0.8, 3.0),
        ({"preset": "quiet"}, 0.2, 0.1),
        ({}, 0.2, 1.0),
    ],
)
def test_a_preset_stands_for_settings_over_which_own_keys_prevail(
    use: Mapping[str, Any], density: float, scale: float
) -> None:
    found = mergers().configure("merger", {"use": "plain", **use}, "m")
    assert found == Plain.Config(density=density, scale=scale)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            {"use": "plain", "preset": "lout"},
            "a.b.preset: merger 'plain' has no such preset. Did you mean 'loud'? Found: 'lout'. Allowed: loud, quiet.",
        ),
        (
            {"use": "plain", "preset": ["loud"]},
            "a.b.preset: merger 'plain' has no such preset. Did you mean 'loud'? Found: ['lo",
        ),
        ({"use": "plain", "prset": "loud"}, "a.b.prset: unknown key. Did you mean 'preset'?"),
        (
            {"use": "around", "then": {"use": "plain", "preset": "own"}},
            "a.b.then.preset: merger 'plain' has no such preset. Found: 'own'. Allowed: loud, quiet.",
        ),
        ({"use": "around", "then": {"use": "plain", "densty": 1}}, "a.b.then.densty: unknown key. Did you mean 'dens"),
        ({"use": "around", "then": {"use": "around", "then": {}}}, "a.b.then.then: needs a component's name, as in '{"),
    ],
)
def test_a_wrong_preset_or_part_is_named_with_its_path(use: Mapping[str, Any], message: str) -> None:
    for ask in (mergers().configure, mergers().create):
        with pytest.raises(ConfigError) as caught:
            ask("merger", use, "a.b")
        assert str(caught.value).startswith(message)


def test_components_that_know_no_presets_take_the_key_for_their_own(registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"a\.preset: unknown key"):
        registry.configure("advantage", {"use": "group", "preset": "loud"}, "a")


def test_a_missing_part_is_named_with_its_path() -> None:
    with pytest.raises(ComponentError, match=r"^a\.b\.then: merger 'plan' is not available\. Did you mean 'plain'\?"):
        mergers().configure("merger", {"use": "around", "then": "plan"}, "a.b")


def test_parts_are_built_and_all_their_settings_recorded() -> None:
    use = {"use": "around", "then": {"use": "plain", "scale": 3}}
    built = vars(mergers().create("merger", use, "m"))
    assert built["then"].config == Plain.Config(scale=3.0)
    recorded = built["config"].model_dump(mode="json")
    assert recorded == {"then": {"use": "plain", "density": 0.2, "scale": 3.0}, "besides": None}
    again = vars(mergers().create("merger", {"use": "around", **recorded}, "m"))
    assert again["config"] == built["config"]


@pytest.mark.parametrize(
    ("use", "scale"),
    [
        ({"preset": "loud"}, 2.0),
        ({"preset": "loud", "then": {"use": "plain", "scale": 3}}, 3.0),
        ({"preset": "loud", "then": {"use": "plain", "preset": "quiet"}}, 0.1),
        ({"preset": "own"}, 1.0),
        ({"preset": "loud", "then": {"use": "around", "then": "plain"}}, 2.0),
    ],
)
def test_a_part_takes_its_owners_preset_where_it_has_one_of_that_name(use: Mapping[str, Any], scale: float) -> None:
    then = mergers().configure("merger", {"use": "around", **use}, "m").model_dump()["then"]
    assert then.get("then", then)["scale"] == scale


def test_an_unknown_name_gets_the_nearest(registry: Registry) -> None:
    with pytest.raises(ComponentError, match=r"a: advantage 'grup' is not available\. Did you mean 'group'\?"):
        registry.create("advantage", "grup", "a")


@pytest.mark.parametrize("use", [{}, {"usse": "group"}, {"use": 3}])
def test_a_use_names_a_component(use: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"a\.b: needs a component's name, as in '{use: NAME}'\. Found: "):
        use_of(use, "a.b")


def test_a_use_is_read() -> None:
    assert use_of("x") == ("x", {})
    given = {"use": "x", "a": 1}
    assert use_of(given) == ("x", {"a": 1})
    assert given == {"use": "x", "a": 1}, "and left as it was"


def test_observers_get_what_they_ask_for() -> None:
    seen: list[object] = []

    def m2rl_step_end(metrics: Mapping[str, Any], step: int) -> None:
        seen.append((step, metrics))
        if step == 2:
            raise OSError("no network")

    registry = Registry()
    registry.register(plugin(Advantage, m2rl_step_end=hookimpl(m2rl_step_end)), distribution="watcher")
    [observer] = registry.observers
    observer("math", 1, {"reward": 0.5})
    assert seen == [(1, {"reward": 0.5})]
    with pytest.raises(StageError, match="watcher: m2rl_step_end failed while observing step 2 of math: OSError"):
        observer("math", 2, {})


def test_a_registry_refuses_a_name_within_one_plugin_too() -> None:
    registry = Registry()
    with pytest.raises(ComponentError, match="advantage 'group' of tests is refused"):
        registry.register(plugin(Advantage, type("Other", (Advantage,), {})), distribution="tests")
    assert registry.names("advantage") == []
    registry.register(plugin(Advantage), distribution="tests")


def test_a_plugin_that_fails_half_way_can_be_registered_again() -> None:
    registry, fails = Registry(), [True]

    def m2rl_advantages() -> Iterable[type]:
        if fails:
            raise OSError
        return [Advantage]

    module = SimpleNamespace(m2rl_advantages=hookimpl(m2rl_advantages))
    with pytest.raises(OSError):
        registry.register(module, distribution="tests")
    fails.clear()
    registry.register(module, distribution="tests")
    assert registry.names("advantage") == ["group"]


# ── content hashes ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_content_hash_follows_the_plugins_files_only(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text(merger("packed"))
    (package / "data" / "words.txt").write_text("a")
    registry = load_plugins([package])

    def now() -> str:
        return registry.content_hash("merger", "packed")

    first = now()
    assert re.fullmatch("[0-9a-f]{64}", first)
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "x.pyc").write_text("x")
    (package / ".hidden").write_text("x")
    (tmp_path / "beside.txt").write_text("x")
    assert now() == first
    (package / "data" / "words.txt").write_text("b")
    second = now()
    (package / "data" / "words.txt").rename(package / "data" / "nouns.txt")
    assert len({first, second, now()}) == 3


def test_a_content_hash_does_not_depend_on_where_the_plugin_lies(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mine.py").write_text(merger("mine"))
    first, second = (load_plugins([tmp_path / x / "mine.py"]).content_hash("merger", "mine") for x in "ab")
    assert first == second


def test_the_cores_own_components_are_imported_late() -> None:
    code = """
import sys
from m2rl_core.plugins import load_plugins
registry = load_plugins()
assert {"embedded"} <= set(registry.names("engine")), registry.names("engine")
assert {"fixed"} <= set(registry.names("mixture"))
print(len(registry.content_hash("engine", "embedded")))
assert "m2rl_core.engine.embedded" not in sys.modules
assert "torch" not in sys.modules, "loading plugins must not import torch"
"""
    environment = os.environ | {"M2RL_STRICT_PLUGINS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "64"), done.stderr


def test_a_late_entry_resolves_its_class() -> None:
    registry = Registry()
    registry.add(Entry("advantage", "late", "here", "", f"{__name__}:Advantage"))
    sys.modules.setdefault(__name__, sys.modules[Advantage.__module__])
    assert registry.lookup("advantage", "late").cls is Advantage
