"""Cores, memory, disks and devices, as this process may use them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from m2rl_core.types import Diagnosis
from m2rl_core.verify import cores

__all__ = ["cores_and_memory", "devices", "disks"]

MEMORY = 4e9
"""Bytes below which the miniature study is tight: two workers with torch, a model and an optimizer."""
DISK = 2e9
"""Bytes that the miniature study leaves behind, rounded up."""
WRITTEN = 32 << 20
"""Bytes written to measure a disk."""
NVIDIA = Path("/proc/driver/nvidia/gpus")


def cores_and_memory(
    proc: Path = Path("/proc/meminfo"), limits: Path = Path("/sys/fs/cgroup/memory.max")
) -> Iterator[Diagnosis]:
    """What the process may use: its cores, and the smaller of the machine's memory and the container's limit."""
    yield Diagnosis("cores", "ok", f"{cores()} of {os.cpu_count()}")
    memory = {}
    if proc.is_file():
        for line in proc.read_text().splitlines():
            name, _, value = line.partition(":")
            memory[name] = 1024 * int(value.split()[0]) if value.split()[1:] == ["kB"] else 0
    total = memory.get("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = limits.read_text().strip() if limits.is_file() else "max"
    allowed = min(total, int(limit)) if limit.isdigit() else total
    found = f"{allowed / 1e9:.1f} GB" + (f" of the machine's {total / 1e9:.1f}" if allowed < total else "")
    if "MemAvailable" in memory:
        found += f", {memory['MemAvailable'] / 1e9:.1f} free"
    little = min(allowed, memory.get("MemAvailable", allowed)) < MEMORY
    then = "run stages one at a time (--only), with a smaller tokens_per_device" if little else ""
    yield Diagnosis("memory", "note" if little else "ok", found, then)


def disks(runs: Path) -> Iterator[Diagnosis]:
    """The disk of runs, where a study must write, and that of temporary files."""
    yield _disk("disk of runs", runs, needed=DISK)
    yield _disk("disk of temporary files", Path(tempfile.gettempdir()), needed=WRITTEN * 2)


def _disk(what: str, folder: Path, needed: float) -> Diagnosis:
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        found = f"{place}: {free / 1e9:.1f} GB free, and a small study needs {needed / 1e9:.1f}"
        return Diagnosis(what, "broken", found, "make room, or choose another disk")
    try:
        rate = _written(place) / 1e6
    except OSError as error:
        return Diagnosis(what, "broken", f"{place} cannot be written: {error}", "choose another folder")
    return Diagnosis(what, "ok", f"{place}: {free / 1e9:,.1f} GB free, written at {rate:,.0f} MB/s")


def _written(folder: Path) -> float:
    """Bytes per second of one file, until the disk has it."""
    chunk = os.urandom(1 << 20)  # a file system may compress anything else
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        for _ in range(WRITTEN >> 20):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        return WRITTEN / (time.perf_counter() - started)


def devices(gpus: Path = NVIDIA) -> Iterator[Diagnosis]:
    """The CPU and every CUDA device, each with a product that was computed on it."""
    try:
        import torch
    except Exception as error:  # a library that is not there is an OSError
        yield Diagnosis("torch", "broken", f"{type(error).__name__}: {error}", "reinstall torch: https://pytorch.org")
        return
    yield _device("cpu", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    there = len(list(gpus.iterdir())) if gpus.is_dir() else 0
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            name, free, total = torch.cuda.get_device_name(index), *torch.cuda.mem_get_info(index)
            capability = ".".join(map(str, torch.cuda.get_device_capability(index)))
            text = f"{name}, {total / 1e9:.0f} GB ({free / 1e9:.0f} free), compute capability {capability}"
            yield _device(f"cuda:{index}", text)
    elif there:
        reason = "this torch is built without CUDA" if torch.version.cuda is None else "torch cannot reach them"
        then = "install a CUDA build of torch (https://pytorch.org), and a driver that is not older"
        yield Diagnosis("cuda", "broken", f"the machine has {there} NVIDIA GPUs, but {reason}", then)
    else:
        yield Diagnosis("cuda", "note", "no GPU: training and drawing run on the CPU, for small models")


def _device(name: str, text: str) -> Diagnosis:
    import torch

    try:
        ones = torch.ones(64, 64, dtype=torch.bfloat16, device=name)
        if (total := (ones @ ones).float().sum().item()) != 64**3:
            return Diagnosis(name, "broken", f"{text}; a product came out as {total:g} instead of {64**3}")
    except RuntimeError as error:
        return Diagnosis(name, "broken", f"{text}; a product failed: {str(error).splitlines()[0]}")
    return Diagnosis(name, "ok", text)
