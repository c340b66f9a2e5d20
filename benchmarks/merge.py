"""How fast and how lean merging is, beside a whole-model merge in plain torch and beside the disk itself.

::

    python benchmarks/merge.py                      # 42M parameters, a base and five experts, seconds
    python benchmarks/merge.py --size 0.4b --runs 3 --folder /fast/disk

Both sides read bfloat16, compute in float32 and write bfloat16. They run alternately, each in a process of its own, on
files that were dropped from the page cache; the median is shown. GB/s are of the weights read; seconds are those of the
merge alone, without imports; memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
        print(f"a base and 5 experts of {options.size}; {options.threads} threads; disk {_disk_rate(folder):.2f} GB/s")
        for method in METHODS:
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in ("ours", "naive")}
            for side in [side for _ in range(options.runs) for side in runs]:
                _evict(folder)
                runs[side].append(_child(side, folder, method, str(options.threads)))
            found = {
                side: {key: statistics.median(r[key] for r in rows) for key in rows[0]} for side, rows in runs.items()
            }
            for side, row in found.items():
                print(
                    f"{method:16} {side:6} {row['seconds']:7.2f} s {row['cpu']:7.2f} CPU s "
                    f"{row['read'] / 1e9 / row['seconds']:6.2f} GB/s {row['peak']:6.0f} MB"
                )
            faster, cheaper, leaner = (found["naive"][key] / found["ours"][key] for key in ("seconds", "cpu", "peak"))
            print(f"{method:16} ratio  {faster:.1f}x faster, {cheaper:.1f}x less CPU, {leaner:.1f}x leaner")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="42m")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--folder", help="where to put the models; default: the system's temporary folder")
    return parser.parse_args()


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

    fields: dict[str, Any] = dict(SIZES[size])
    family(folder, 5, **fields)


def ours(folder: Path, method: str, threads: str) -> None:
    from m2rl_core.merge import merge_models
    from m2rl_core.plugins import load_plugins

    merger = load_plugins().create("merger", method, "benchmark")
    experts = _models(folder)
    base = experts.pop("base")
    with _measured(folder, method) as out:
        merge_models(merger, base=base if merger.needs_base else None, experts=experts, out=out, threads=int(threads))


def naive(folder: Path, method: str, threads: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folders = _models(folder)
    with _measured(folder, method) as out:
        if method == "average":
            del folders["base"]
        stored = {name: load_file(path / "model.safetensors") for name, path in folders.items()}
        models = {name: {key: value.float() for key, value in model.items()} for name, model in stored.items()}
        base = models.pop("base", None)
        merged = {}
        for key in next(iter(models.values())):
            stacked = torch.stack([model[key] for model in models.values()])
            value = stacked.mean(0) if base is None else base[key] + (stacked - base[key]).sum(0)
            merged[key] = value.bfloat16()
        out.mkdir()
        save_file(merged, out / "model.safetensors")
        with (out / "model.safetensors").open("rb") as written:
            os.fsync(written.fileno())


def _models(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir())}


@contextmanager
def _measured(folder: Path, method: str) -> Iterator[Path]:
    """An output folder for a while; prints bytes read, seconds, CPU seconds and the peak of resident memory [MB]."""
    read = sum(f.stat().st_size for f in folder.glob("*/*.safetensors") if method != "average" or "base" not in f.parts)
    seconds, cpu = time.perf_counter(), time.process_time()
    yield folder / "out"
    seconds, cpu = time.perf_counter() - seconds, time.process_time() - cpu
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"read": read, "seconds": seconds, "cpu": cpu, "peak": int(peak.split()[1]) / 1024}))
    shutil.rmtree(folder / "out")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        work: dict[str, Callable[..., None]] = {"make": make, "ours": ours, "naive": naive}
        work[sys.argv[2]](Path(sys.argv[3]), *sys.argv[4:])
    else:
        main()
