"""The documentation: it builds without a warning, leaves no hook out, and every snippet is one that m2rl would take.

What the snippets do when they are run is the business of test_docs_run.py.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

import m2rl_core.hookspecs
from m2rl_core import api
from m2rl_core.cli import app
from m2rl_core.config import Section, Study, check_components, grounded, load_study
from m2rl_core.describe import settings
from m2rl_core.errors import DataError
from m2rl_core.plugins import Registry, load_plugins
from m2rl_docs.commands import walk
from m2rl_docs.components import plugin_pages
from m2rl_docs.python_api import FUNCTIONS, signature
from m2rl_docs.snippets import Block, blocks, commands
from m2rl_docs.study_file import SAID, SECTIONS, STAGES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
READMES = sorted(set(ROOT.glob("plugins/*/*/README.md")) - set(ROOT.glob("plugins/domains/verifiers/README.md")))
"""Of plugins: they are part of the plugins' pages. Studies of environments need the packages that hold these."""
BLOCKS = [block for page in PAGES for block in blocks(page)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PLAIN = {
    *("cd", "curl", "export", "git", "hf", "make", "mkdir", "pip", "pytest", "python", "python3", "sbatch", "source"),
    *("srun", "tensorboard"),
}
"""Commands that a page may show beside m2rl's."""


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def page(block: Block) -> str:
    return str(block)


# ── the site ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_builds_without_a_warning_and_asks_nobody(site: Path) -> None:
    start = (site / "index.html").read_text()
    assert "fonts.googleapis" not in start
    assert "<h1" in start


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_its_search_finds_a_page_without_a_server(site: Path) -> None:
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page, complaints = browser.new_page(), list[str]()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.locator("input.md-search__input").press_sequentially("ties density", timeout=120_000)
        found = page.locator(".md-search-result__link[href*='merger-ties']").first
        found.wait_for(state="attached", timeout=120_000)
        assert complaints == []


def test_every_plugin_has_a_page_with_all_its_settings(site: Path) -> None:
    for folder in ROOT.glob("plugins/*/*/pyproject.toml"):
        kind, name = folder.parent.parent.name.removesuffix("s"), folder.parent.name.replace("_", "-")
        assert (site / "plugins" / f"{kind}-{name}.html").is_file(), f"{kind}-{name} has no page: make docs"
    text = (site / "plugins" / "merger-ties.html").read_text()
    for setting in registry(()).lookup("merger", "ties").cls.Config.model_fields:  # type: ignore[attr-defined]
        assert f"<code>{setting}</code>" in text


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text()
    for name, command in walk(typer.main.get_command(app)):
        if name == "m2rl" or command.hidden:
            continue
        assert f'<h2 id="{name.replace(" ", "-")}">{name}<' in text, f"{name} is missing: make docs"
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.opts[0] in text
    assert r"\|" not in text


def test_every_function_of_the_python_api_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text()
    functions = [getattr(api, name) for name in api.__all__ if inspect.isfunction(getattr(api, name))]
    assert set(functions) == set(FUNCTIONS)
    for function in functions:
        exact = ast.unparse(ast.parse(signature(function)))
        source = ast.unparse(ast.parse(inspect.getsource(function)).body[0]).splitlines()[0]
        assert exact.replace(":\n    ...", ":") == source
        assert f'<h2 id="{function.__name__}">' in text
        for name in inspect.signature(function).parameters:
            assert f"<code>{name}</code>" in text


def test_every_key_of_a_study_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "study-file.html").read_text()
    for name in (*Study.model_fields, "keep_every", "optim.beta2", "base"):
        assert f"<code>{name}</code>" in text or f"<code>{name}." in text


@pytest.mark.parametrize("section", [Study, *STAGES, *SECTIONS.values()], ids=lambda section: section.__name__)
def test_every_key_of_a_study_says_what_it_means(section: type[Section]) -> None:
    assert not [each.name for each in settings(section) if not each.text and each.name not in SAID]


def test_a_page_and_the_command_line_say_the_same_of_a_component() -> None:
    done = CliRunner().invoke(app, ["plugins", "show", "worst-task", "--json"])
    (shown,) = json.loads(done.stdout)
    text = re.sub(r"<(https://[^>]+)>", r"\1", plugin_pages()["plugins/core.md"])
    assert (
        f'{shown["text"]}\n\nDefined by: {shown["reference"]}.\n\n<div class="settings" markdown>\n\n| setting |'
        in text
    )
    assert len(shown["settings"]) > 1
    for each in shown["settings"]:
        cells = [f"`{each['name']}`", each["type"], f"`{each['default']}`", " ".join(each["text"].split())]
        assert f"| {' | '.join(cells)} |" in text


def test_links_and_places_of_the_readme_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    places = [
        *re.findall(r"\]\((?!http)([^)#]+)\)", text),
        *(each for each in re.findall(r"`([\w/.-]+)`", text) if "/" in each),
    ]
    assert len(places) > 20
    made = ("runs/",)
    assert not [place for place in places if not (ROOT / place).exists() and not place.startswith(made)]


# ── the hooks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def signatures() -> dict[str, str]:
    """Hook → its definition as the source has it, without its body."""
    tree = ast.parse(Path(m2rl_core.hookspecs.__file__).read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {
        f.name: f"def {f.name}({ast.unparse(f.args)}) -> {ast.unparse(f.returns)}: ..."
        for f in functions
        if f.returns is not None
    }


@pytest.mark.parametrize("hook", signatures())
def test_every_hook_has_a_page_with_its_exact_signature(hook: str) -> None:
    text = (DOCS / "hooks" / f"{hook.removeprefix('m2rl_')}.md").read_text()
    assert f"```python\n{signatures()[hook]}\n```" in text


def test_every_hook_is_listed() -> None:
    assert set(signatures()) == {name for name in m2rl_core.hookspecs.__all__ if name.startswith("m2rl_")}
    text = (DOCS / "hooks" / "index.md").read_text()
    assert all(f"[`{hook}`]" in text for hook in signatures())


# ── the snippets ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("block", of("python"), ids=page)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec", flags=__future__.annotations.compiler_flag)


@pytest.mark.parametrize("block", of("bash"), ids=page)
def test_commands_are_ones_that_there_are(block: Block) -> None:
    known = dict(walk(typer.main.get_command(app)))
    for words in commands(block.text):
        while "=" in words[0]:  # a variable before the command
            words = words[1:]
        if words[0] == "m2rl":
            name = max((n for n in known if words[: n.count(" ") + 1] == n.split()), key=len)
            if (arguments := words[name.count(" ") + 1 :]) != ["--help"]:
                known[name].make_context(name, arguments).close()
        elif words[0] == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), words
        else:
            assert words[0] in PLAIN or words[0].startswith(".venv/bin/"), f"{block}: what is {words[0]}?"


@pytest.mark.parametrize("block", [b for p in (*PAGES, *READMES) for b in blocks(p) if b.language == "yaml"], ids=page)
def test_yaml_is_what_the_reader_takes(block: Block, tmp_path: Path) -> None:
    """Whole studies as they are; pieces of one put into a study that has the rest; recipes as recipes."""
    folder = tmp_path / "here"
    for name in ("models/base", "models/outside", *LOCAL.findall(block.text)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for other in blocks(block.page):
        if other.title.endswith(".py"):
            (folder / other.title).parent.mkdir(exist_ok=True)
            (folder / other.title).write_text(other.text)
    for name in TALK.findall(block.text):
        (folder / name).write_text('{"messages": []}\n')
    for tree in pieces(block.text):
        if {"experts", "merge_method"} & tree.keys():
            read_recipe(tree, folder)
        else:
            read_study(tree, folder, [str(module) for module in folder.glob("m2rl-*/m2rl_*.py")])


def pieces(text: str) -> list[dict[str, object]]:
    """The trees of a block; lines that show several values of one key are a tree each."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    keys = [line.partition(":")[0] for line in lines]
    if len(set(keys)) < len(keys) and not any(line.startswith(" ") for line in lines):
        return [yaml.safe_load(line) for line in lines]
    return [yaml.safe_load(text)]


def read_recipe(tree: dict[str, object], folder: Path) -> None:
    from m2rl_core.merge import load_recipe

    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    load_recipe(folder / "recipe.yaml")


def read_study(tree: dict[str, object], folder: Path, installed: Sequence[str]) -> None:
    """Data that is not here is all that may be wrong with it; ``installed`` are modules that the page has installed."""
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(completed(tree)))
    study = grounded(load_study(file), folder)
    data: list[DataError] = []
    check_components(study, registry((*study.plugins, *installed)), data)


@cache
def registry(local: tuple[str, ...]) -> Registry:
    found = load_plugins(local)
    if "vllm" not in found.names("engine"):  # it waits for vLLM, which has an environment to itself
        found.register(import_module("m2rl_engine_vllm"), distribution="m2rl-engine-vllm")
    return found


def completed(tree: dict[str, object]) -> dict[str, object]:
    """``tree`` with what a piece of a study leaves out."""
    if {"name", "stages"} <= tree.keys():
        return tree
    if not tree.keys() <= {*Study.model_fields, "scales", *(key for key in tree if key.startswith("x-"))}:
        if all(isinstance(value, dict) and "kind" in value for value in tree.values()):
            tree = {"stages": tree}
        else:
            tree = {"algorithm": {"use": "grpo", **tree}} if tree.keys() <= PARTS else tree
            taught = {"teachers": {"math": "multi"}} if re.search("opd|teacher", str(tree)) else {}
            tree = {"stages": {"math": {**REST["stages"]["math"], **taught, **tree}}}
    rest = {key: value for key, value in REST.items() if key not in ("domains", "stages")}
    parts = {key: {**REST[key], **(tree.get(key) or {})} for key in ("domains", "stages")}  # type: ignore[dict-item]
    return {**rest, **tree, **parts}


LOCAL = re.compile(r"(?:\.\./|\./|runs/|models/)[\w/-]+(?![\w./-])")
"""Folders that a piece names; files are data, which may be missing."""
TALK = re.compile(r"conversations: \{\w+: (\w+\.jsonl)\}")
PARTS = {"advantage", "importance", "loss"}
RL = {"kind": "rl", "init": "sft", "algorithm": "grpo", "max_tokens": 64}
DOMAINS = ("math", "coding", "science", "if", "agent")
REST = {
    "name": "rest",
    "model": {"base": "models/base"},
    "domains": {
        **{name: {"use": name} for name in DOMAINS},
        "math": {"use": "math", "aime24": "data/24.jsonl", "aime25": "data/25.jsonl"},
        "coding": {"use": "coding", "lcb_v5": "data/v5/", "lcb_v6": "data/v6.jsonl"},
    },
    "stages": {
        "sft": {"kind": "sft", "init": "base", "domains": list(DOMAINS), "conversations": 1024},
        **{name: {**RL, "domains": [name], "keep_every": 100} for name in DOMAINS},
        "outside": {"kind": "model", "path": "models/outside"},
        "multi": {**RL, "domains": list(DOMAINS), "keep_every": 100},
    },
}


# ── the paper ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_place_in_the_map_of_the_paper_is_there() -> None:
    text = (DOCS / "paper.md").read_text()
    quoted = [each for each in text.split("`")[1::2] if " " not in each]
    study = yaml.safe_load((ROOT / "studies" / "qwen3-4b.yaml").read_text())
    places = [each for each in quoted if "/" in each]
    keys = [each for each in quoted if each.partition(".")[0] in Study.model_fields]
    assert len(places) > 40
    assert len(keys) > 40
    assert not [place for place in places if not (ROOT / place).exists()]
    for key in keys:
        found = study
        for part in key.split("."):
            assert part in found, f"{key} is not in studies/qwen3-4b.yaml"
            found = found[part]


def test_every_table_and_figure_of_the_paper_is_in_the_map() -> None:
    text = (DOCS / "paper.md").read_text()
    tables, figures = text.partition("## Tables")[2].split("## Figures")
    assert all(f"\n| {number} |" in tables for number in range(1, 9))
    assert all(f"\n| {number} |" in figures for number in range(1, 10))
