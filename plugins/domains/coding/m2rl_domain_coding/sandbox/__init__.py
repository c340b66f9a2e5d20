"""Runs programs that a model wrote, apart from everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from m2rl_domain_coding.sandbox.backend import Backend, Limits, Outcome, Program, SandboxError, Status
from m2rl_domain_coding.sandbox.namespace import Namespace
from m2rl_domain_coding.sandbox.selftest import examine
from m2rl_domain_coding.sandbox.spawned import Bwrap, Rlimit

__all__ = [
    "HELP",
    "Backend",
    "Limits",
    "Name",
    "Outcome",
    "Program",
    "SandboxError",
    "Status",
    "faults",
    "open_backend",
]

Name = Literal["auto", "namespace", "bwrap", "rlimit"]

_ISOLATED: dict[str, Callable[[], Backend]] = {"namespace": Namespace, "bwrap": Bwrap}
HELP = (
    "allow user namespaces (sysctl user.max_user_namespaces=10000; on Ubuntu also "
    "kernel.apparmor_restrict_unprivileged_userns=0; in a container --privileged, or --cap-add SYS_ADMIN with "
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined), or use a SandboxFusion server; "
    "for code that you trust, allow_weak_isolation: true."
)


def open_backend(name: Name, *, allow_weak_isolation: bool) -> Backend:
    """A sandbox that has passed its self-test.

    Args:
        name: ``auto`` takes the first of ``namespace`` and ``bwrap`` that works here.
        allow_weak_isolation: ``rlimit``, and so ``auto`` in need, may run programs that see the host.

    Raises:
        SandboxError: none works; the message says what each is missing and what to do.
    """
    if name == "rlimit" and not allow_weak_isolation:
        raise SandboxError(
            "the rlimit sandbox shows the host's files, processes and network to every program. "
            "Allowed: namespace, bwrap. Next: for code that you trust, allow_weak_isolation: true."
        )
    candidates = {key: maker for key, maker in _ISOLATED.items() if name in (key, "auto")}
    if allow_weak_isolation and name in ("rlimit", "auto"):
        candidates["rlimit"] = Rlimit
    faults = []
    for key, maker in candidates.items():
        try:
            return _tested(maker, isolated=key in _ISOLATED)
        except (SandboxError, OSError) as error:
            faults.append(f"{key}: {error}.")
    raise SandboxError(f"no sandbox works on this machine. {' '.join(faults)} Next: {HELP}")


def faults() -> dict[str, str]:
    """What keeps each backend from working here; nothing for one that has passed its self-test."""
    found = {}
    for name, maker in {**_ISOLATED, "rlimit": Rlimit}.items():
        try:
            _tested(maker, isolated=name in _ISOLATED).close()
            found[name] = ""
        except (SandboxError, OSError) as error:
            found[name] = str(error)
    return found


def _tested(maker: Callable[[], Backend], isolated: bool) -> Backend:
    backend = maker()
    try:
        examine(backend, isolated)
    except BaseException:
        backend.close()
        raise
    return backend
