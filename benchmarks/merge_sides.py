"""The sides of ``benchmarks/merge.py``: what each runs in a process of its own, and what it measures there.

Nothing of m2rl or mergekit is imported before its side runs, since each side has its own environment. Seconds, CPU
seconds and memory are those of the merge until its output is on the disk, without imports.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Method:
    """One way to merge, as each side calls it."""

    ours: Mapping[str, Any]
    mergekit: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = False
    """Both sides must write the same bits."""

    @property
    def naive(self) -> bool:
        """Whether there is a version in plain torch."""
        return self.exact


METHODS: Mapping[str, Method] = {
    "linear": Method({"use": "average"}, "linear", exact=True),
    "task_arithmetic": Method({"use": "task-arithmetic"}, "task_arithmetic", exact=True),
    "ties": Method({"use": "ties", "density": 0.2}, "ties", {"density": 0.2}),
    "dare_linear": Method({"use": "dare", "rate": 0.8, "then": "task-arithmetic"}, "dare_linear", {"density": 0.2}),
    "dare_ties": Method({"use": "dare", "rate": 0.8, "then": "ties"}, "dare_ties", {"density": 0.2}),
    "sce": Method({"use": "sce"}, "sce"),
    "sce_0.1": Method({"use": "sce", "tau": 0.1, "semantics": "mergekit"}, "sce", {"select_topk": 0.1}),
    "breadcrumbs": Method(
        {"use": "breadcrumbs", "density": 0.2, "top": 0.01}, "breadcrumbs", {"density": 0.2, "gamma": 0.01}
    ),
    "della": Method({"use": "della", "rescale": "l1"}, "della", {"density": 0.5, "epsilon": 0.15}),
    "ram": Method({"use": "ram", "relative": False, "epsilon": 1e-5}, "ram", {"epsilon": 1e-5}),
}


def make(folder: Path, size: str) -> None:
    """A base and five experts."""
    from m2rl_core.testing.family import family

    fields: dict[str, Any] = dict(SIZES[size])
    family(folder, 5, **fields)


def ours(folder: Path, method: str, threads: str) -> None:
    from m2rl_core.merge import merge_models
    from m2rl_core.plugins import load_plugins

    merger = load_plugins().create("merger", dict(METHODS[method].ours), "benchmark")
    experts = _experts(folder)
    base = folder / "base" if merger.needs_base else None
    with _measured():
        merge_models(merger, base=base, experts=experts, out=folder / "out-ours", threads=int(threads))


def mergekit(folder: Path, method: str, dtype: str) -> None:
    """mergekit's own Python API with the defaults of its command line; runs in mergekit's environment."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    spec = METHODS[method]
    recipe: dict[str, Any] = {
        "merge_method": spec.mergekit,
        "models": [{"model": str(path), "parameters": {"weight": 1.0}} for path in _experts(folder).values()],
        "parameters": dict(spec.parameters),
        "dtype": dtype,
        "out_dtype": "bfloat16",
    }
    if spec.mergekit in {"sce", "ram"}:  # they take no weights
        recipe["models"] = [{"model": each["model"]} for each in recipe["models"]]
    if spec.mergekit != "linear":
        recipe["base_model"] = str(folder / "base")
    out = folder / "out-mergekit"
    with _measured():
        run_merge(MergeConfiguration.model_validate(recipe), str(out), MergeOptions(copy_tokenizer=True, quiet=True))
        _sync(out)


def naive(folder: Path, method: str, threads: str) -> None:
    """Whole models in plain torch."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(int(threads))
    folders = _experts(folder) | ({} if method == "linear" else {"base": folder / "base"})
    out = folder / "out-naive"
    with _measured():
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
        _sync(out)


def compare(folder: Path) -> None:
    """Elements in which the outputs of ours and of mergekit differ."""
    from m2rl_core.weights import Checkpoint

    different = total = 0
    with Checkpoint.open(folder / "out-ours") as left, Checkpoint.open(folder / "out-mergekit") as right:
        for name, tensor in left.tensors.items():
            different += int((left.load(name) != right.load(name)).sum())
            total += tensor.size
    print(json.dumps({"different": different, "total": total}))


def _experts(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir()) if path.name != "base" and "out" not in path.name}


def _sync(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as written:
            os.fsync(written.fileno())


@contextmanager
def _measured() -> Iterator[None]:
    """Prints seconds, CPU seconds, the peak of resident memory, and of that part of it which maps no file [MB]."""
    done, anonymous = threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.02):
            anonymous[0] = max(anonymous[0], _status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds, cpu = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - seconds, time.process_time() - cpu
    done.set()
    watcher.join()
    memory = {"peak": _status("VmHWM") / 1024, "anonymous": anonymous[0] / 1024}
    print(json.dumps({"seconds": seconds, "cpu": cpu, **memory}))


def _status(field_name: str) -> int:
    """A field of this process's status [KiB]."""
    found = re.search(rf"{field_name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0


if __name__ == "__main__":
    work: dict[str, Callable[..., None]] = {each.__name__: each for each in (make, ours, mergekit, naive, compare)}
    work[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
