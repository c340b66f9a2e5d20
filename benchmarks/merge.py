"""How fast and how lean merging is, beside mergekit 0.1.5, a whole-model merge in plain torch, and the disk itself.

::

    python benchmarks/merge.py --naive              # 42M parameters, a base and five experts, seconds
    python benchmarks/merge.py --size 0.4b --runs 3 --folder /fast/disk --mergekit /tmp/venv-mergekit
    python benchmarks/merge.py --memory --folder /fast/disk     # peaks at 0.4b and 1.6b, 25 GB of disk

mergekit has an environment of its own, since nothing of m2rl depends on it::

    python -m venv /tmp/venv-mergekit
    /tmp/venv-mergekit/bin/pip install --constraint constraints.txt mergekit==0.1.5

All sides read bfloat16, compute in float32 and write bfloat16 (mergekit as ``dtype: float32, out_dtype: bfloat16``).
They run alternately, each in a process of its own, on files that were dropped from the page cache; medians are shown.
Seconds are those of the merge until its output is on the disk, without imports; GB/s are of the weights read once. Of
mergekit's peak, mapped pages of its inputs are a part that the system may take back; ``anon`` leaves them out. Outputs
are compared element by element: those of linear and task arithmetic must be equal.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from merge_sides import METHODS, SIZES

Row = dict[str, float]
PEAK_MB, GROWTH = 600, 1.10
"""Bars: most resident memory, and how much more of it four times the weights may need."""


def main() -> None:
    options = _options()
    if options.memory:
        _memory(options)
        return
    with _models(options) as folder:
        print(f"a base and 5 experts of {options.size}; {options.threads} threads; disk {_disk_rate(folder):.2f} GB/s")
        for method in options.methods:
            _compete(options, folder, method)


@contextmanager
def _models(options: argparse.Namespace) -> Iterator[Path]:
    """A folder with the models: those of an earlier run, or new ones, which go with it unless they are to be kept."""
    if options.models is not None:
        if not options.models.exists():
            _child("make", options.models, options.size)
        yield options.models
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="merge-") as scratch:
        _child("make", Path(scratch), options.size)
        yield Path(scratch)


def _compete(options: argparse.Namespace, folder: Path, method: str) -> None:
    """Run all sides in turn and print medians, ratios, and where outputs differ."""
    sides = ["ours"] + ["mergekit"] * bool(options.mergekit) + ["naive"] * (options.naive and METHODS[method].naive)
    runs: dict[str, list[Row]] = {side: [] for side in sides}
    for index in range(options.runs):
        for side in sides:
            _evict(folder)
            runs[side].append(_side(options, side, folder, method))
        if options.mergekit and index == 0:
            _compare(folder, method)
        for side in sides:
            shutil.rmtree(folder / f"out-{side}")
    found = {side: {key: statistics.median(r[key] for r in rows) for key in rows[0]} for side, rows in runs.items()}
    models = folder.glob("*/model.safetensors")
    read = sum(file.stat().st_size for file in models if method != "linear" or file.parent.name != "base")
    for side, row in found.items():
        rate = read / 1e9 / row["seconds"]
        print(
            f"{method:16} {side:9} {row['seconds']:7.2f} s {row['cpu']:7.2f} CPU s {rate:6.2f} GB/s "
            f"{row['peak']:6.0f} MB, anon {row['anonymous']:6.0f} MB"
        )
    for side in sides[1:]:
        faster, cheaper, leaner = (found[side][key] / found["ours"][key] for key in ("seconds", "cpu", "peak"))
        print(f"{method:16} vs {side}: {faster:.1f}x faster, {cheaper:.1f}x less CPU, {leaner:.1f}x leaner", flush=True)


def _compare(folder: Path, method: str) -> None:
    found = _child("compare", folder)
    print(f"{method:16} {found['different']:,.0f} of {found['total']:,.0f} elements differ from mergekit's")
    if METHODS[method].exact and found["different"]:
        raise SystemExit(f"{method}: outputs should be equal")


def _memory(options: argparse.Namespace) -> None:
    """Peaks of ours at two sizes, against the bars."""
    peaks: dict[str, list[float]] = {method: [] for method in options.methods}
    for size in ("0.4b", "1.6b"):
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="merge-") as scratch:
            _child("make", Path(scratch), size)
            for method in options.methods:
                peaks[method].append(_side(options, "ours", Path(scratch), method)["peak"])
                shutil.rmtree(Path(scratch) / "out-ours")
    for method, (small, large) in peaks.items():
        verdict = "met" if large <= PEAK_MB and large <= GROWTH * small else "MISSED"
        print(f"{method:16} {small:4.0f} MB at 0.4b, {large:4.0f} MB at 1.6b ({large / small:.2f}x): {verdict}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="42m")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", help="where to put the models; default: the system's temporary folder")
    parser.add_argument("--models", type=Path, help="keep the models here, for the next run to find")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--mergekit", type=Path, help="the environment that mergekit is installed in")
    parser.add_argument("--mergekit-dtype", default="float32", help="of its arithmetic")
    parser.add_argument("--naive", action="store_true", help="run plain torch too; its memory is 12 times the weights'")
    parser.add_argument("--memory", action="store_true", help="measure the memory of ours at two sizes instead")
    return parser.parse_args()


# ── the inputs on the disk ───────────────────────────────────────────────────────────────────────────────────────────


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


# ── the sides, in processes of their own ─────────────────────────────────────────────────────────────────────────────


def _side(options: argparse.Namespace, side: str, folder: Path, method: str) -> Row:
    if side == "mergekit":
        python = options.mergekit / "bin" / "python"
        return _child(side, folder, method, options.mergekit_dtype, python=python, threads=os.cpu_count() or 1)
    return _child(side, folder, method, str(options.threads))


def _child(*arguments: str | Path, python: str | Path = sys.executable, threads: int = 1) -> Row:
    """What a side prints last; its other words are shown only where it fails."""
    environment: Mapping[str, str] = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if python != sys.executable:
        environment = {key: value for key, value in environment.items() if key != "PYTHONPATH"}
    command: Sequence[str] = [str(python), str(Path(__file__).with_name("merge_sides.py")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: Row = json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else {}
    return found


if __name__ == "__main__":
    main()
