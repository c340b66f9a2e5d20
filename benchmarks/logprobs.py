"""From hidden states to log-probs and back: the ops beside naive torch and the peers, and on a GPU beside its ceilings.

::

    OMP_NUM_THREADS=1 python benchmarks/logprobs.py                    # CPU: 2,048 tokens, hidden size 256
    OMP_NUM_THREADS=1 python benchmarks/logprobs.py --vocab 32768 --dtype float32 --runs 5
    python benchmarks/logprobs.py --device cuda                        # 8k, 16k, 32k tokens, 2,560, 151,936, bfloat16

Forward and backward of −Σ log-prob; for KL and JS of Σ divergence from a teacher of the same size. Contestants run
alternately; medians. *Memory* is the most that a call needs beside its inputs, gradients included. On a CPU each run is
a process of its own: one call whose memory is read (the peak of the resident set, reset before the call), then one that
is timed in CPU seconds, which are seconds of an otherwise idle machine. On a GPU times are those of CUDA events.
With 151,936 tokens ``linear`` takes minutes. Liger-Kernel and Cut Cross-Entropy take part on a GPU, where installed:
their kernels run nowhere else.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from m2rl_core.ops import Lecture, Scores, fused_loss, token_logps
from m2rl_core.ops.products import row_functions
from m2rl_core.types import Divergence

TOKENS, HIDDEN, VOCABS = 2048, 256, (8192, 32768, 151936)
GPU_TOKENS, GPU_HIDDEN, GPU_VOCAB, GPU_ROWS = (8192, 16384, 32768), 2560, 151936, 4096
REVERSE, MIXED = Divergence("reverse"), Divergence("js")


class Case(NamedTuple):
    hidden: Tensor
    head: Tensor
    ids: Tensor


def make(tokens: int, hidden: int, vocab: int, dtype: torch.dtype, device: str) -> Case:
    torch.manual_seed(0)
    states, head = (torch.randn(size, hidden, dtype=dtype, device=device).mul_(0.5) for size in (tokens, vocab))
    return Case(states.requires_grad_(), head.requires_grad_(), torch.randint(vocab, (tokens,), device=device))


# ── the contestants ──────────────────────────────────────────────────────────────────────────────────────────────────


def naive(case: Case) -> Tensor:
    logps = (case.hidden @ case.head.T).float().log_softmax(-1).gather(1, case.ids[:, None])
    return -logps.sum()


def mode_a(case: Case) -> Tensor:
    return fused_loss(*case, _minus_logps)[0]


def mode_b(case: Case) -> Tensor:
    return -token_logps(*case)[0].sum()


def divergence(case: Case, kind: Divergence) -> Tensor:
    teacher = Lecture(case.hidden.detach().flip(0), case.head.detach())
    return fused_loss(*case, _divergence, lecture=teacher, divergence=kind)[0]


def linear(case: Case) -> Tensor:
    """torch's own, in chunks."""
    chunked = torch.nn.LinearCrossEntropyOptions()  # type: ignore[attr-defined, unused-ignore]
    loss: Tensor = functional.linear_cross_entropy(*case, reduction="sum", options=chunked)  # type: ignore[attr-defined, unused-ignore]
    return loss


def liger(case: Case) -> Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # type: ignore[import-not-found, unused-ignore]

    loss: Tensor = LigerFusedLinearCrossEntropyLoss(reduction="sum")(case.head, case.hidden, case.ids)
    return loss


def liger_divergence(case: Case, beta: float) -> Tensor:
    """Liger's mean over tokens; beta 1 is the reverse KL."""
    from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD  # type: ignore[import-not-found, unused-ignore]

    teacher = case.hidden.detach().flip(0), case.head.detach()
    loss: Tensor = LigerFusedLinearJSD(jsd_beta=beta)(case.hidden, case.head, *teacher, None)
    return loss


def cut(case: Case) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy  # type: ignore[import-not-found, unused-ignore]

    loss: Tensor = linear_cross_entropy(*case, reduction="sum")
    return loss


def _minus_logps(_: slice, scores: Scores) -> Tensor:
    return -scores.logps_N


def _divergence(_: slice, scores: Scores) -> Tensor:
    assert scores.divergence_N is not None
    return scores.divergence_N


def contestants(device: str) -> dict[str, Callable[[Case], Tensor]]:
    found: dict[str, Callable[[Case], Tensor]] = {"naive": naive, "mode A": mode_a, "mode B": mode_b}
    found |= {"reverse KL": partial(divergence, kind=REVERSE), "JS": partial(divergence, kind=MIXED)}
    if hasattr(functional, "linear_cross_entropy"):
        found["linear"] = linear
    if device == "cuda" and importlib.util.find_spec("liger_kernel"):
        found |= {"Liger": liger, "Liger KL": partial(liger_divergence, beta=1.0)}
        found["Liger JS"] = partial(liger_divergence, beta=0.5)
    if device == "cuda" and importlib.util.find_spec("cut_cross_entropy"):
        found["Cut CE"] = cut
    return found


def once(loss: Callable[[Case], Tensor], case: Case) -> None:
    torch.autograd.backward(loss(case))
    case.hidden.grad = case.head.grad = None


# ── CPU: a process per run ───────────────────────────────────────────────────────────────────────────────────────────


def on_cpu(options: argparse.Namespace) -> None:
    names = [name for name in contestants("cpu") if name in (options.only or contestants("cpu"))]
    print(f"{'vocab':>7} {'dtype':9} {'':10} {'CPU s':>8} {'MB':>6} {'speed':>6} {'memory':>6}   (of naive)")
    for vocab, dtype in [(vocab, dtype) for vocab in options.vocab for dtype in options.dtype]:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for name in names * options.runs:
            command = [sys.executable, __file__, "--child", name, str(vocab), dtype]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
            runs[name].append(json.loads(done.stdout))
        found = {n: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for n, rows in runs.items()}
        base = found.get("naive", next(iter(found.values())))
        for name, row in found.items():
            speed, memory = base["seconds"] / row["seconds"], row["peak"] / base["peak"]
            print(
                f"{vocab:7} {dtype:9} {name:10} {row['seconds']:8.3f} {row['peak']:6.0f} {speed:6.2f} {memory:6.2f}",
                flush=True,
            )


def child(name: str, vocab: str, dtype: str) -> None:
    case, loss = make(TOKENS, HIDDEN, int(vocab), getattr(torch, dtype), "cpu"), contestants("cpu")[name]
    once(loss, make(16, HIDDEN, 1024, getattr(torch, dtype), "cpu"))  # libraries load, pools fill
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    once(loss, case)
    peak = _status("VmHWM") - before
    seconds = time.process_time()
    once(loss, case)
    print(json.dumps({"seconds": time.process_time() - seconds, "peak": peak}))


def _status(field: str) -> float:
    """A field of this process's status, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


# ── GPU: ceilings and contestants in one process ─────────────────────────────────────────────────────────────────────


def on_gpu(options: argparse.Namespace) -> None:
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {row_functions(torch.device('cuda')).__name__}")
    row_kernels(options.runs)
    for tokens in GPU_TOKENS:
        case = make(tokens, GPU_HIDDEN, GPU_VOCAB, torch.bfloat16, "cuda")
        times, memory = timed({name: partial(once, loss, case) for name, loss in contestants("cuda").items()}, options)
        bare = products(case, options)
        print(f"\n{tokens} tokens: three bare products {3 * bare:.2f} ms, four {4 * bare:.2f} ms")
        goals = {"mode A": (3, 1.2), "mode B": (4, 1.15), "reverse KL": (4, 1.25), "JS": (4, 1.25)}
        for name, median in times.items():
            count, goal = goals.get(name, (3, None))
            ratio = f"{median / (count * bare):5.2f} of {count} products" + (f" (goal {goal})" if goal else "")
            print(f"{name:11} {median:8.2f} ms {memory[name] / 1e9:6.2f} GB (goal 3 at 16k) {ratio}")
        for ours, peer in (("reverse KL", "Liger KL"), ("JS", "Liger JS")):
            if peer in times and ours in times:
                print(f"{ours}: {times[peer] / times[ours]:.2f}x faster than {peer} (goal 2)")


def timed(work: dict[str, Callable[[], None]], options: argparse.Namespace) -> tuple[dict[str, float], dict[str, int]]:
    """(median milliseconds, peak bytes above what is held) of each that fits in memory."""
    taken: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    for name in list(work):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        try:
            work[name]()
        except torch.OutOfMemoryError:
            print(f"{name}: out of memory")
            del work[name]
            continue
        memory[name] = torch.cuda.max_memory_allocated() - held
    for name in list(work) * options.runs:
        taken.setdefault(name, []).append(milliseconds(work[name]))
    return {name: statistics.median(values) for name, values in taken.items()}, memory


def milliseconds(call: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def products(case: Case, options: argparse.Namespace) -> float:
    """Mean milliseconds of the three bare products: logits, and the gradients of both factors, GPU_ROWS at a time."""
    hidden, head = case.hidden.detach(), case.head.detach()
    logits = torch.empty(GPU_ROWS, GPU_VOCAB, dtype=hidden.dtype, device="cuda")
    to_head, to_hidden = torch.empty_like(head), torch.empty_like(hidden)

    def three() -> None:
        for start in range(0, len(hidden), GPU_ROWS):
            part = slice(start, start + GPU_ROWS)
            torch.mm(hidden[part], head.T, out=logits)
            torch.mm(logits, head, out=to_hidden[part])
            torch.mm(logits.T, hidden[part], out=to_head)

    return timed({"three": three}, options)[0]["three"] / 3


def row_kernels(runs: int) -> None:
    """Bytes per second of the row functions, beside those of a copy."""
    rows, size = row_functions(torch.device("cuda")), GPU_ROWS * GPU_VOCAB * 2
    student, teacher = (torch.randn(GPU_ROWS, GPU_VOCAB, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    ids = torch.randint(GPU_VOCAB, (GPU_ROWS,), device="cuda")
    found = rows.compare(student, teacher, ids, 1.0, REVERSE)
    ones = torch.ones(GPU_ROWS, device="cuda")
    own = (student, ids, 0, found.lse, found.entropy, ones, ones, 1.0)
    work: dict[str, tuple[int, Callable[[], Any]]] = {
        "copy": (2, partial(teacher.copy_, student)),
        "summarise": (1, partial(rows.summarise, student, ids, 0, 1.0)),
        "gradient_": (2, partial(rows.gradient_, *own)),
    }
    for kind in (REVERSE, Divergence("forward"), MIXED):
        both = (student, teacher, ids)
        work[f"compare {kind.kind}"] = (2, partial(rows.compare, *both, 1.0, kind))
        gradient = partial(rows.compare_gradient_, *both, found, ones, ones, ones, 1.0, kind)
        work[f"compare_gradient_ {kind.kind}"] = (3, gradient)
    ceiling = 0.0
    for name, (passes, call) in work.items():
        student.normal_()
        call()
        rate = passes * size / statistics.median(milliseconds(call) for _ in range(runs)) / 1e6
        ceiling = ceiling or rate
        print(f"{name:28} {rate:6.0f} GB/s, {rate / ceiling:.2f} of a copy (goal 0.8)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--vocab", type=int, nargs="+", default=VOCABS)
    parser.add_argument("--dtype", nargs="+", default=("float32", "bfloat16"))
    parser.add_argument("--only", nargs="+", help="contestants, e.g. naive 'mode A'; CPU only")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    on_gpu(options) if options.device == "cuda" else on_cpu(options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
