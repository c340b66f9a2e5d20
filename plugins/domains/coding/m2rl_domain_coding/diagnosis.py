"""What ``m2rl doctor`` says of the sandboxes.

Apart from :mod:`m2rl_domain_coding.sandbox`, which needs nothing but Python: it also runs as another user, who may have
no more than that.
"""

from __future__ import annotations

from collections.abc import Iterator

from m2rl_core.types import Diagnosis
from m2rl_domain_coding.sandbox import HELP, faults

__all__ = ["diagnose"]


def diagnose() -> Iterator[Diagnosis]:
    """Every backend, with its self-test run; one that isolates must work, or a SandboxFusion server is needed."""
    found = faults()
    for name, fault in found.items():
        weak = "; it isolates nothing, so it needs allow_weak_isolation: true" if name == "rlimit" else ""
        yield Diagnosis(f"sandbox {name}", "note" if fault else "ok", fault or f"passed its self-test{weak}")
    if all(fault for name, fault in found.items() if name != "rlimit"):
        yield Diagnosis("sandbox", "broken", "none that isolates programs works on this machine", HELP)
