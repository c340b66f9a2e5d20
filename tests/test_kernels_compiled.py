"""Every row kernel compiled ahead of time, without a GPU, for Ampere, Hopper and Blackwell, at Qwen3's vocabulary.

What the interpreter cannot show: that loads and stores are vectors, that nothing spills, that the loops hold no barrier.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

triton = pytest.importorskip("triton", reason="no Triton on this machine: the row kernels are not compiled")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from m2rl_core.ops import triton_kernels, triton_rows  # noqa: E402

VOCABULARY = 151_936
RAGGED = 50_257
KINDS = ("reverse", "forward", "js")
KERNELS = [("summarise", ""), ("gradient", ""), *product(("compare", "compare_gradient"), KINDS)]
MOST_SHARED = 227 * 1024
MOST_REGISTERS = 65_536 // (2 * 8 * 32)
"""Two programs of 8 warps at once: fewer do not hide the memory's latency."""

of_kernel = pytest.mark.parametrize(("name", "kind"), KERNELS, ids=lambda part: part or "row")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


class Compiled(NamedTuple):
    ptx: str
    shared: int
    usage: dict[str, int]
    """REG, STACK, LOCAL and more, of ``cuobjdump -res-usage``."""


def of_argument(argument: str, dtype: str) -> str:
    """Its type, in Triton's letters."""
    if argument in {"logits", "student", "teacher"}:
        return f"*{dtype}"
    if argument in {"scale", "beta"}:
        return "fp32"
    if argument.endswith("stride") or argument == "offset":
        return "i32"
    return "*i64" if argument == "ids" else "*fp32"


@cache
def compiled(name: str, kind: str, dtype: str, capability: int, vocab: int = VOCABULARY) -> Compiled:
    """As the launcher compiles it for rows that start at multiples of 16 bytes."""
    kernel: Any = getattr(triton_kernels, name)
    lanes = triton_rows.LANES_OF_TWO if kind else triton_rows.LANES
    constants: dict[str, Any] = {"V": vocab, "LANES": lanes, "VECTOR": 8 if dtype == "bf16" else 4}
    constants |= {"KIND": kind} if kind else {}
    signature = {a: "constexpr" if a in constants else of_argument(a, dtype) for a in kernel.arg_names}
    whole = vocab % 16 == 0
    aligned = [i for i, (a, kind) in enumerate(signature.items()) if kind[0] == "*" or (whole and "stride" in a)]
    source = ASTSource(kernel, signature, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
    options = {"num_warps": triton_rows.WARPS, "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return Compiled(made.asm["ptx"], made.metadata.shared, usage(made.asm["cubin"]))


def usage(cubin: bytes) -> dict[str, int]:
    [tool] = Path(triton.__file__).parent.glob("backends/nvidia/bin/cuobjdump")
    file = Path(triton.knobs.cache.dir) / "kernel.cubin"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cubin)
    listing = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    [line] = re.findall(r"REG:.*", listing)
    return {key: int(value) for key, value in re.findall(r"(\w+)(?:\[\d+\])?:(\d+)", line)}


def accesses(ptx: str) -> list[str]:
    """Reads and writes of global memory within the loops: all but those of one number."""
    found = re.findall(r"(?:ld|st)\.global\S*", ptx)
    return [f for f in found if ".v" in f]


@of_kernel
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("capability", [90, pytest.param(80, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)])
def test_no_spills(name: str, kind: str, dtype: str, capability: int) -> None:
    found = compiled(name, kind, dtype, capability)
    assert found.usage["LOCAL"] == found.usage["STACK"] == 0
    assert found.usage["REG"] <= MOST_REGISTERS
    assert found.shared <= MOST_SHARED
