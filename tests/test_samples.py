"""The sample browser, in a real browser: it shows what models wrote, and runs none of it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from tokenizers import Tokenizer

from m2rl_core.config import Study
from m2rl_core.errors import DataError
from m2rl_core.files import append_jsonl
from m2rl_core.findings import plain, write_findings
from m2rl_core.report import write_report
from m2rl_core.report.evidence import Evidence, node_cost
from m2rl_core.report.samples import LONGEST_TEXT, LONGEST_TOKENS, browsed, embedded, spread
from m2rl_core.run import NodeView
from m2rl_core.types import Claim, Figure, Findings, Table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = [
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 2</script>",
    "<img src=x onerror='window.pwned = 3'>",
    "<!--<script>",
    "javascript:window.pwned=4",
    "\u2028window.pwned = 5;//",
    '"};window.pwned=6;//',
]
KINDS: tuple[Literal["lines", "bars", "heatmap", "scatter"], ...] = ("lines", "bars", "heatmap", "scatter")
EXPERT = {"kind": "rl", "init": "base", "algorithm": "grpo", "steps": 2, "prompts": 4, "group": 2}


def record(index: int, text: str, verdict: str = "right") -> dict[str, Any]:
    reward = {"right": 1.0, "wrong": 0.0, "failed": None}[verdict]
    return {
        "step": index,
        "domain": text if verdict == "right" else "math",
        "prompt": f"train/{index}{text}",
        "sample": 0,
        "reward": reward,
        "verdict": verdict,
        "reason": text,
        "finish": text,
        "question": [{"role": "user", "content": f"Question {index} {text}"}],
        "ground_truth": text,
        "messages": [
            {"role": "assistant", "content": text, "tool_calls": [{"name": text, "arguments": {text: text}}]},
            {"role": text, "content": text},
            {"role": "tool", "content": text},
        ],
        "ids": [5, 6, 7],
        "sampled": [0, 1, 1],
        "logps": [0.0, -0.5, -2.0],
        "versions": [-1, 0, 0],
    }


def nodes(folder: Path) -> list[NodeView]:
    """An expert's rollouts, one sample for each hostile text and a wrong one, and an evaluation."""
    rl, evaluation = folder / "math", folder / "evals" / "math" / "math-heldout"
    rl.mkdir(parents=True)
    evaluation.mkdir(parents=True)
    rows = [record(i, text) for i, text in enumerate(HOSTILE)] + [
        record(9, "plain", "wrong"),
        record(10, "-", "failed"),
    ]
    append_jsonl(rl / "rollouts.jsonl", rows)
    fields = {"suite": "math-heldout", "weight": 1.0, "tokens": 3}
    row = {**record(0, HOSTILE[1]), **fields}
    append_jsonl(evaluation / "samples.jsonl", [{**row, "messages": row["question"], "response": row["messages"]}])
    scores = {"model": "math", "suite": "math-heldout", "domain": HOSTILE[2], "k": 1, "prompts": 1, "failed": 0}
    (evaluation / "scores.json").write_text(json.dumps(scores))
    (evaluation / "DONE").touch()
    write_findings(plain(hostile()), folder / "shift")
    (folder / "shift" / "DONE").touch()
    return [
        NodeView("math", "math", "rl", rl, 17, (), ""),
        NodeView("evals", "evals", "eval", evaluation, 17, (), ""),
        NodeView("shift", "shift", "analyze", folder / "shift", 17, (), ""),
    ]


def hostile() -> Findings:
    """Of an analyzer, in every place that takes a text."""
    tables = {f"t{i}": Table(text, [text, "n"], [[text, 1.0]], text) for i, text in enumerate(HOSTILE)}
    figures = {
        f"f{i}": Figure(text, kind, [text, "b"], {text: [1.0, 2.0], "b": [1.0, None]}, text, text, text)
        for i, (text, kind) in enumerate(zip(HOSTILE, itertools.cycle(KINDS), strict=False))
    }
    return Findings(tables, figures, [Claim(text, text, 1.0, None, "holds", text) for text in HOSTILE])


@pytest.fixture(scope="module")
def study() -> Study:
    shift = {"kind": "analyze", "analyzer": {"use": "weight-shift", HOSTILE[0]: HOSTILE[1]}}
    stages = {
        "math": {**EXPERT, "domains": ["math"]},
        "evals": {"kind": "eval"},
        "shift": shift,
        "report": {"kind": "report"},
    }
    rest = {"model": {"base": "/nowhere"}, "domains": {"math": {"use": "math"}}, "stages": stages}
    return Study.model_validate({"name": "small", **rest})


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_records_are_spread_from_first_to_last(tmp_path: Path) -> None:
    append_jsonl(tmp_path / "rows", [{"n": n, "fill": "x" * (n % 7)} for n in range(1000)])
    found = [row["n"] for row in spread(tmp_path / "rows", 10)]
    assert found[0] == 0
    assert len(found) == 10
    assert all(60 < later - earlier < 140 for earlier, later in itertools.pairwise(found))


def test_a_short_file_gives_each_record_once_and_an_unfinished_line_is_left_out(tmp_path: Path) -> None:
    append_jsonl(tmp_path / "rows", [{"n": n} for n in range(3)])
    with (tmp_path / "rows").open("a") as file:
        file.write('{"n": 3')
    assert [row["n"] for row in spread(tmp_path / "rows", 50)] == [0, 1, 2]


def test_embedded_json_cannot_end_its_element() -> None:
    text = embedded([{"text": each} for each in HOSTILE])
    assert "<" not in text
    assert "\u2028" not in text
    assert [row["text"] for row in json.loads(text)] == HOSTILE


def test_long_texts_are_cut_and_say_so(study: Study, tmp_path: Path) -> None:
    (tmp_path / "math").mkdir()
    row = record(0, "y" * (LONGEST_TEXT + 12))
    del row["messages"][0]["tool_calls"]
    many = LONGEST_TOKENS + 5
    row |= {"ids": [1] * many, "sampled": [1] * many, "logps": [0.0] * many, "versions": [0] * many}
    append_jsonl(tmp_path / "math" / "rollouts.jsonl", [row])
    [found] = browsed(Evidence(study, [NodeView("math", "math", "rl", tmp_path / "math", 17, (), "")], tmp_path))
    assert found["response"][0][1].endswith("… (12 more characters)")
    assert len(found["tokens"]) == LONGEST_TOKENS


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"domain": 1}'])
def test_a_line_that_is_no_sample_is_said(study: Study, tmp_path: Path, line: str) -> None:
    [first, *_] = places = nodes(tmp_path)
    (first.folder / "rollouts.jsonl").write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"rollouts\.jsonl holds no samples\. Found: .* Next: remove .*math and run"):
        browsed(Evidence(study, places, tmp_path))


@pytest.mark.parametrize("line", ['{"step": 1}', '{"step": "a", "seconds": {}}', '{"step": 1, "seconds": {}}'])
def test_a_line_that_holds_no_times_is_said(tmp_path: Path, line: str) -> None:
    (tmp_path / "times.jsonl").write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"times\.jsonl holds no times\. Found: .*Error.* Next: remove"):
        node_cost(NodeView("math", "math", "rl", tmp_path, 17, (), ""), until=2)


def test_tokens_are_shown_as_text_once_the_stage_has_a_tokenizer(
    study: Study, tmp_path: Path, tiny_model: Path
) -> None:
    places = nodes(tmp_path)
    assert browsed(Evidence(study, places, tmp_path))[0]["tokens"][1] == ["⟨6⟩", -0.5, 0]
    (places[0].folder / "checkpoint").mkdir()
    shutil.copy(tiny_model / "tokenizer.json", places[0].folder / "checkpoint")
    (places[0].folder / "DONE").touch()
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    shown = browsed(Evidence(study, places, tmp_path))[0]["tokens"]
    assert shown[0][0] == tokenizer.decode([5], skip_special_tokens=False)
    assert [token[1] for token in shown] == [None, -0.5, -2.0]


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    sync = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run in which everything that a model, a verifier or an analyzer wrote is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    write_report(study, nodes(folder / "run"), folder / "out")
    return folder / "out" / "index.html"


@pytest.fixture
def page(chromium: Browser, report: Path) -> Iterator[Page]:
    """The report at phone width; anything that the browser complains of fails the test."""
    context = chromium.new_context(viewport={"width": 390, "height": 800})
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: complaints.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(report.as_uri())
    yield page
    assert complaints == []
    context.close()


@pytest.mark.slow
def test_nothing_that_a_model_wrote_is_executed(page: Page) -> None:
    buttons = page.locator("#browser .items button")
    assert buttons.count() == len(HOSTILE) + 3
    for index in range(buttons.count()):
        buttons.nth(index).click()
    assert page.evaluate("window.pwned") is None
    assert page.locator("img, #browser script, #browser a, [onerror], [href^=javascript]").count() == 0
    assert page.locator("script").count() == 2
    buttons.nth(0).click()
    said = page.locator("#browser .message.assistant pre").inner_text()
    assert HOSTILE[0] in said
    assert '"arguments"' in said
    assert HOSTILE[0] in page.locator("#browser .message.tool pre").inner_text()


@pytest.mark.slow
def test_filters_and_search_narrow_the_list(page: Page) -> None:
    shown = page.locator("#browser .items button")
    page.select_option("select[name=verdict]", "=wrong")
    assert shown.count() == 1
    assert "reward 0" in page.locator("#browser .detail > .verdict").inner_text()
    page.select_option("select[name=verdict]", "")
    page.select_option("select[name=reward]", "=none")
    assert shown.count() == 1
    page.select_option("select[name=reward]", "")
    page.select_option("select[name=source]", "=math · math-heldout")
    assert shown.count() == 1
    page.select_option("select[name=source]", "")
    page.fill("input[name=text]", "QUESTION 9")
    assert shown.count() == 1
    page.fill("input[name=text]", "nowhere to be found")
    assert shown.count() == 0


@pytest.mark.slow
def test_tokens_show_what_was_given_and_what_was_sampled(page: Page) -> None:
    assert page.locator("#browser .tokens .given").count() == 1
    sampled = page.locator("#browser .tokens .sampled")
    assert sampled.nth(1).get_attribute("title") == "log-prob -2, probability 0.135, policy version 0"
    sampled.nth(1).click()
    assert page.locator("#browser .told").inner_text().endswith(": log-prob -2, probability 0.135, policy version 0")
    page.locator("#browser .tokens .given").click()
    assert page.locator("#browser .told").inner_text().endswith(": given, not trained on")


@pytest.mark.slow
def test_a_phone_shows_the_whole_width(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
