"""How fast the analyzer weight-shift reads six bfloat16 models, beside plain reading of the same files.

    python benchmarks/weight_shift.py [--weights 8000000] [--rounds 3]

CPU-seconds of one thread, so that what else the machine does counts little; files come from the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from m2rl_analyzer_weight_shift.models import opened
from m2rl_analyzer_weight_shift.stream import survey

CHUNK = 1 << 20


def written(folder: Path, models: int, weights: int) -> list[Path]:
    """A base, and models with some 30% of their weights changed."""
    noise = torch.Generator().manual_seed(17)
    rows = weights // (4 * 1024)
    names = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(4)]
    base = {name: torch.randn(rows, 1024, generator=noise) for name in names}
    folders = []
    for i in range(models + 1):
        folders.append(folder / str(i))
        folders[-1].mkdir()
        moved = {n: w + (torch.rand(w.shape, generator=noise) < 0.3) * 0.02 * i for n, w in base.items()}
        save_file({name: tensor.bfloat16() for name, tensor in moved.items()}, folders[-1] / "model.safetensors")
    return folders


def read(folders: Sequence[Path]) -> None:
    buffer = bytearray(CHUNK)
    for folder in folders:
        with (folder / "model.safetensors").open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def analyse(folders: Sequence[Path]) -> None:
    base, *others = folders
    with opened(base, {folder.name: folder for folder in others}) as models:
        survey(models, eta=1e-3, seed=17, threads=1)


def rate(work: Callable[[Sequence[Path]], None], folders: Sequence[Path], rounds: int) -> float:
    """Gigabytes per CPU-second, the median."""
    size = sum((folder / "model.safetensors").stat().st_size for folder in folders)
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work(folders)
        found.append(size / 1e9 / (time.process_time() - start))
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=int, default=8_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folders = written(Path(folder), 5, asked.weights)
        plain, shift = rate(read, folders, asked.rounds), rate(analyse, folders, asked.rounds)
    print(f"plain {plain:.2f} GB per CPU-second, weight-shift {shift:.2f}, ratio {shift / plain:.3f}")


if __name__ == "__main__":
    main()
