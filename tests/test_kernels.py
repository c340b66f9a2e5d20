"""The Triton row kernels, alone and under every loss, in a process of their own: interpreted, or on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FILES = sorted((Path(__file__).parent / "kernels").glob("*.py"))


@pytest.mark.slow
def test_row_kernels_agree_with_float64() -> None:
    """Whether Triton interprets is settled when it is imported, hence the process."""
    pytest.importorskip("triton", reason="no Triton on this machine: the row kernels are not tested")
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, FILES)]
    done = subprocess.run(
        command, env=os.environ | interpreted, cwd=FILES[0].parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
