"""How fast weight shifts are measured, beside the disk itself.

::

    python plugins/analyzers/weight_shift/benchmarks/stream.py                  # 42M parameters, seconds
    python plugins/analyzers/weight_shift/benchmarks/stream.py --size 0.4b --runs 3 --folder /fast/disk

A base and five experts in bfloat16, dropped from the page cache before every run; plain reading and measuring alternate
and medians are shown. GB/s are of the weights read; memory is what the process's peak grows by while measuring.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from m2rl_analyzer_weight_shift.models import opened
from m2rl_analyzer_weight_shift.stream import survey
from m2rl_core.testing.family import family

SIZES: Mapping[str, Mapping[str, int]] = {
    "42m": {"vocab_size": 32768, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8}
    | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64},
    "0.4b": {"vocab_size": 65536, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 20}
    | {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="shift-") as scratch:
        folders = family(Path(scratch), 5, **SIZES[options.size])
        before = _peak()
        measure(folders, options.threads)  # first-time costs
        plain, ours = [], []
        for _ in range(options.runs):
            plain.append(_timed(read, folders))
            ours.append(_timed(lambda: measure(folders, options.threads), folders))
        _show("reading", plain, folders)
        _show("measuring", ours, folders)
        ratio = statistics.median(p / o for (p, _), (o, _) in zip(plain, ours, strict=True))
        print(f"{100 * ratio:.0f}% of the disk's rate (median over pairs); {_peak() - before:.0f} MB")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="42m")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", help="where to put the models; default: the system's temporary folder")
    return parser.parse_args()


def measure(folders: Mapping[str, Path], threads: int) -> None:
    others = {name: path for name, path in folders.items() if name != "base"}
    with opened(folders["base"], others) as models:
        survey(models, eta=1e-3, seed=0, threads=threads)


def read(folders: Mapping[str, Path]) -> None:
    """All weights in order, 8 MB at a time."""
    buffer = bytearray(8 << 20)
    for path in folders.values():
        with (path / "model.safetensors").open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _timed(work: Callable[..., None], folders: Mapping[str, Path]) -> tuple[float, float]:
    """Wall and CPU seconds of a cold run."""
    for path in folders.values():
        handle = os.open(path / "model.safetensors", os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    wall, cpu = time.perf_counter(), time.process_time()
    work(folders) if work is read else work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _show(label: str, runs: list[tuple[float, float]], folders: Mapping[str, Path]) -> None:
    size = sum((path / "model.safetensors").stat().st_size for path in folders.values()) / 1e9
    wall, cpu = (statistics.median(run[i] for run in runs) for i in (0, 1))
    rates = f"{size / wall:5.2f} GB/s  {size / cpu:5.2f} GB/CPU s"
    print(f"{label:10} {size:.2f} GB  {wall:6.2f} s  {cpu:6.2f} CPU s  {rates}")


def _peak() -> float:
    """MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
