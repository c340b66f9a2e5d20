"""Every row kernel compiled ahead of time, without a GPU, for Ampere, Hopper and Blackwell, at Qwen3's vocabulary.

What the interpreter cannot show: that loads and stores are vectors, nothing spills, and loops hold no barrier.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
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
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        listing = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    [line] = re.findall(r"REG:.*", listing)
    return {key: int(value) for key, value in re.findall(r"(\w+)(?:\[\d+\])?:(\d+)", line)}


def loops(ptx: str) -> list[str]:
    """The text from each label to the branch that goes back to it."""
    return [
        body
        for _, body in re.findall(r"^(\$L\w+):[^\n]*\n(.*?)bra(?:\.uni)?\s+\1;", ptx, flags=re.DOTALL | re.MULTILINE)
    ]


@of_kernel
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize(
    "capability", [90, pytest.param(80, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)]
)
def test_no_spills(name: str, kind: str, dtype: str, capability: int) -> None:
    found = compiled(name, kind, dtype, capability)
    assert found.usage["LOCAL"] == found.usage["STACK"] == 0
    assert found.usage["REG"] <= MOST_REGISTERS
    assert found.shared <= MOST_SHARED


@of_kernel
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_all_logits_move_as_vectors(name: str, kind: str, dtype: str) -> None:
    """The traffic that triton_rows states: so many reads and writes of 16 bytes, and single numbers for statistics."""
    ptx = compiled(name, kind, dtype, 90).ptx
    vectors = (triton_rows.LANES_OF_TWO if kind else triton_rows.LANES) // (triton_rows.WARPS * 32)
    reads = vectors * (2 if kind else 1) * (2 if kind == "js" else 1)
    writes = vectors if "gradient" in name else 0
    assert len(re.findall(r"ld\.global\.v4\.b32", ptx)) == reads
    assert len(re.findall(r"st\.global\.v4\.b32", ptx)) == writes
    single = re.findall(r"(?:ld|st)\.global(?!\.v4)", ptx)
    assert len(single) <= 8


@of_kernel
def test_loops_hold_no_barrier_and_no_exchange(name: str, kind: str) -> None:
    bodies = loops(compiled(name, kind, "bf16", 90).ptx)
    assert len(bodies) == (2 if kind == "js" else 1)
    for body in bodies:
        assert "ex2.approx" in body
        assert not re.search(r"bar\.|barrier|shfl|\.shared", body)


@of_kernel
def test_a_ragged_vocabulary_compiles(name: str, kind: str) -> None:
    """Logit by logit and with more registers; two that spill are no loss there."""
    found = compiled(name, kind, "bf16", 90, RAGGED)
    assert found.usage["LOCAL"] == 0
    assert found.usage["STACK"] <= 16
