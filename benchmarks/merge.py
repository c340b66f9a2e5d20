"""How fast and how lean merging is, beside a whole-model merge in plain torch and beside the disk itself.

::

    python benchmarks/merge.py                      # 42M parameters, a base and five experts, seconds
    python benchmarks/merge.py --size 0.4b --runs 3 --folder /some/fast/disk

Both sides read bfloat16, compute in float32 and write bfloat16. They run alternately, each in a process of its own, on
files that were dropped from the page cache; the median is shown. GB/s are of the weights read; seconds are those of the
merge alone, without imports; memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

SIZES: Mapping[str, Mapping[str, int]] = {
    "42m": {"vocab_size": 32768, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8}
    | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64},
    "0.4b": {"vocab_size": 65536, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 20}
    | {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
    "1.6b": {"vocab_size": 65536, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28}
    | {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
}
METHODS = ("average", "task-arithmetic")


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="merge-") as scratch:
        folder = Path(scratch)
        _child("make", folder, options.size)
        read = sum(file.stat().st_size for file in folder.glob("*/model.safetensors"))
        print(f"base and 5 experts of {options.size}: {read / 1e9:.2f} GB; disk {_disk_rate(folder):.2f} GB/s")
        for method in METHODS:
            sides = ("ours",) if options.ours else ("ours", "naive")
            runs = {side: [] for side in sides}
            for _ in range(options.runs):
                for side in sides:
                    _evict(folder)
                    runs[side].append(_child(side, folder, method, str(options.threads)))
            found = {side: {key: _median(r[key] for r in rows) for key in rows[0]} for side, rows in runs.items()}
            for side, row in found.items():
                speed = f"{read / 1e9 / row['seconds']:5.2f} GB/s  {row['cpu']:6.2f} CPU s"
                print(f"{method:16} {side:6} {row['seconds']:7.2f} s  {speed}  {row['peak']:6.0f} MB")
            if "naive" in found:
                ratios = {key: found["naive"][key] / found["ours"][key] for key in ("seconds", "peak")}
                print(f"{method:16} ratio  {ratios['seconds']:.1f}x faster, {ratios['peak']:.1f}x leaner")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="42m")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", help="where to put the models; default: the system's temporary folder")
    parser.add_argument("--ours", action="store_true", help="leave the whole-model merge out")
    return parser.parse_args()


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _evict(folder: Path) -> None:
    """Drop the inputs from the page cache; needs no privilege."""
    for file in folder.glob("*/model.safetensors"):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def _disk_rate(folder: Path) -> float:
    """GB/s of reading all inputs in order, 8 MB at a time."""
    _evict(folder)
    start, total, buffer = time.perf_counter(), 0, bytearray(8 << 20)
    for file in folder.glob("*/model.safetensors"):
        with file.open("rb", buffering=0) as opened:
            while count := opened.readinto(buffer):
                total += count
    return total / 1e9 / (time.perf_counter() - start)


# ── the work, in processes of its own ────────────────────────────────────────────────────────────────────────────────


def _child(*arguments: str | Path) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": arguments[-1] if arguments[0] == "naive" else "1"}
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout or "{}")
    return found


def make(folder: Path, size: str) -> None:
    from m2rl_core.testing.family import family

    family(folder, 5, **SIZES[size])


def ours(folder: Path, method: str, threads: str) -> None:
    import torch  # noqa: F401  not counted

    from m2rl_core.merge import merge_models
    from m2rl_core.plugins import load_plugins

    merger = load_plugins().create("merger", method, "benchmark")
    experts = {path.name: path for path in sorted(folder.iterdir()) if path.name != "base"}
    base = folder / "base" if merger.needs_base else None
    with _measured(folder) as out:
        merge_models(merger, base=base, experts=experts, out=out, threads=int(threads))


def naive(folder: Path, method: str, threads: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    with _measured(folder) as out:
        models = {p.name: load_file(p / "model.safetensors") for p in sorted(folder.iterdir()) if p != out}
        models = {name: {key: value.float() for key, value in model.items()} for name, model in models.items()}
        base = models.pop("base")
        merged = {}
        for key, start in base.items():
            stacked = torch.stack([model[key] for model in models.values()])
            value = stacked.mean(0) if method == "average" else start + (stacked - start).sum(0)
            merged[key] = value.bfloat16()
        out.mkdir()
        save_file(merged, out / "model.safetensors")
        os.sync()


class _measured:
    """An output folder for a while; prints seconds, CPU seconds and the peak of resident memory [MB]."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"

    def __enter__(self) -> Path:
        self.start = (time.perf_counter(), time.process_time())
        return self.out

    def __exit__(self, *error: object) -> None:
        import shutil

        seconds, cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": int(peak.split()[1]) / 1024}))
        shutil.rmtree(self.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        {"make": make, "ours": ours, "naive": naive}[sys.argv[2]](Path(sys.argv[3]), *sys.argv[4:])
    else:
        main()
