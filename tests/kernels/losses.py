"""Every loss's gradients once more, on the Triton kernels; tests/test_kernels.py runs this in its own process."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from m2rl_core.ops import products, triton_rows

_spec = importlib.util.spec_from_file_location("test_losses", Path(__file__).parents[1] / "test_losses.py")
assert _spec is not None
assert _spec.loader is not None
_losses = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_losses)
test_gradients_are_those_of_naive_autograd = _losses.test_gradients_are_those_of_naive_autograd


@pytest.fixture(autouse=True)
def _on_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_row_functions", lambda device: triton_rows)
