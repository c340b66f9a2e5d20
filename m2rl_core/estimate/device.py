"""What devices can do: every assumption about them, and how ``--device h200x8`` names them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from m2rl_core.errors import ConfigError, nearest

__all__ = ["Device", "Machine", "machine"]


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator, or one CPU process with one thread."""

    name: str
    bf16: float
    """Peak of dense bfloat16 products [FLOP/s]."""
    fp32: float
    """Peak of float32 products [FLOP/s]; torch does not use TF32 unless told to."""
    memory: float
    """[bytes]. A data sheet's "80 GB" is 85.9e9 on the chip: the difference is left to the CUDA context, to
    communication buffers and to fragmentation."""
    bandwidth: float
    """Of its memory [bytes/s]."""
    reading: float
    """Stored weights from the host's page cache into the device's tensors, by each process for itself [bytes/s]."""
    link: float
    """Between its memory and the host's [bytes/s], in one direction at a time."""
    mfu: float
    """Share of the peak that training, scoring and prefill achieve, recomputed products included."""
    mbu: float
    """Share of the bandwidth that decoding achieves."""
    eager: float
    """What one layer adds to one decoding step of an engine without graphs: Python and launches [s]."""

    def flops(self, dtype: str) -> float:
        """What products in ``dtype`` achieve [FLOP/s]."""
        return self.mfu * (self.fp32 if dtype == "float32" else self.bf16)

    @property
    def dense(self) -> bool:
        """True where packed attention has no kernel for sequences of different lengths."""
        return self.name == "cpu"


def presets() -> dict[str, Device]:
    """By name. Data sheets for the GPUs; their achieved shares are goals, and nobody has measured them with this code.

    The CPU is this machine's memory, with what one thread of an AMD EPYC (AVX512_BF16) measured on the miniature's
    model: training reaches 51 GFLOP/s in float32, half of what bare products do, and 85 in bfloat16, where bare
    products reach 420 but attention and elementwise work stay in float32; decoding steps of 4, 64 and 256 rows take
    0.4 ms per layer beside products at 51 GFLOP/s; it reads weights at 0.8 GB/s as float32 and 0.4 as bfloat16.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpu = {"reading": 2e9, "link": 25e9, "mfu": 0.4, "mbu": 0.7, "eager": 0.8e-3}
    found = [
        Device("h100", bf16=989e12, fp32=67e12, memory=80e9, bandwidth=3.35e12, **gpu),
        Device("h200", bf16=989e12, fp32=67e12, memory=141e9, bandwidth=4.8e12, **gpu),
        Device("cpu", 170e9, 103e9, memory, bandwidth=20e9, reading=0.6e9, link=20e9, mfu=0.5, mbu=0.7, eager=0.4e-3),
    ]
    return {device.name: device for device in found}


@dataclass(frozen=True, slots=True)
class Machine:
    """The devices of one training stage; they share its weights, gradients and optimizer."""

    device: Device
    count: int = 1

    def __str__(self) -> str:
        return f"{self.device.name}x{self.count}"


def machine(
    text: str | None = None,
    gpus: Path = Path("/proc/driver/nvidia/gpus"),
    *,
    nproc: int | None = None,
    nnodes: int = 1,
) -> Machine:
    """``h200x8`` as eight H200; ``None``: the known GPUs that this machine has, or else one thread of its CPU.

    Args:
        nproc: processes on each machine, a device for each, in the place of a number in ``text``.
        nnodes: machines; without ``nproc``, each with the devices of this one.

    Raises:
        ConfigError: no such device, or no number of them, or two.
    """
    device, number = _here(gpus) if text is None else _named(text)
    if text and number and (nproc or nnodes > 1):
        raise ConfigError(
            "--device: how many devices there are is said twice",
            found=f"{text}, --nproc {nproc or 1}, --nnodes {nnodes}",
            then=f"say --device {device.name}",
        )
    each = nproc or number or 1
    if device.dense:  # processes of one machine share its memory
        device = replace(device, memory=device.memory / each)
    return Machine(device, each * nnodes)


def _here(gpus: Path) -> tuple[Device, int | None]:
    """The known GPUs of this machine and their number, or its CPU."""
    known = presets()
    found = [path.read_text().lower().partition("model:")[2] for path in sorted(gpus.glob("*/information"))]
    own = [name for model in found for name in known if name in model.partition("\n")[0]]
    return (known[own[0]], len(own)) if own else (known["cpu"], None)


def _named(text: str) -> tuple[Device, int | None]:
    """``h200x8``: the device and the number; ``h200``: no number."""
    known = presets()
    name, several, count = text.lower().partition("x")
    if name not in known or (several and not re.fullmatch("[1-9][0-9]*", count)):
        raise ConfigError(
            f"--device: no devices are known as '{text}'.{nearest(name, known)}",
            allowed=f"{', '.join(known)}, and several as in h200x8",
        )
    return known[name], int(count) if several else None
