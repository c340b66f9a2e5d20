"""Fixtures that several of the core's test files share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

Install = Callable[..., Path]
Brief = Callable[[Path, Iterable[str], int], None]


@pytest.fixture(scope="session")
def write_brief() -> Brief:
    """``write_brief(folder, corpus, seed)``: a Hugging Face folder with a two-layer Qwen3, which is brief.

    It knows nothing and ends its turn after some ten tokens, so that studies run with the lengths that they allow: all
    embeddings share a direction, which the residual stream keeps, and that of the end of a turn has more of it.
    """
    import torch

    from m2rl_core.config import InitStage
    from m2rl_core.init import fresh_model, fresh_tokenizer

    stage = InitStage(
        kind="init", domains=[], vocab=512, hidden=32, layers=2, heads=4, kv_heads=2, ffn=64, context=40960
    )

    def write(folder: Path, corpus: Iterable[str], seed: int) -> None:
        tokenizer = fresh_tokenizer(iter(corpus), stage.vocab, stage.context)
        model = fresh_model(stage, tokenizer, seed=seed)
        with torch.no_grad():
            embeddings = model.get_input_embeddings().weight.add_(0.5)
            embeddings[tokenizer.eos_token_id] = 0.75
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return write


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``install(name, code, requires=...)`` puts a throwaway plugin distribution on the path, as pip would.

    Its entry point is called ``name``, its distribution ``m2rl-NAME`` 1.2, its module ``m2rl_NAME``. The folder is also
    in ``PYTHONPATH``, for subprocesses.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    modules = []

    def install(name: str, code: str, requires: str = "m2rl-core>=0.1,<0.2") -> Path:
        module = f"m2rl_{name.replace('-', '_')}"
        modules.append(module)
        (site / f"{module}.py").write_text(code)
        info = site / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: m2rl-{name}\nVersion: 1.2\nRequires-Dist: {requires}\n"
        )
        (info / "entry_points.txt").write_text(f"[m2rl]\n{name} = {module}\n")
        return site / f"{module}.py"

    yield install
    for module in modules:
        sys.modules.pop(module, None)
