"""Every error that m2rl raises on purpose.

::

    M2rlError
    ├── UserError            exit code 2: the user can mend it
    │   ├── ConfigError      a study file: unknown key, wrong value, impossible combination
    │   ├── ComponentError   a component that is not there, or whose plugin is broken
    │   ├── DataError        a row, a data set, a checkpoint that was handed in
    │   └── RunError         a run directory: of another study, in use, not writable, full
    └── StageError           exit code 1: a stage stopped itself
        ├── VerifierError    too many verifiers failed
        ├── DivergedError    non-finite losses or gradients, several in a row
        └── ShortageError    out of memory

Plugins raise plain exceptions; :func:`boundary` says whose they are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from m2rl_core.redaction import redacted

__all__ = [
    "ComponentError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "M2rlError",
    "RunError",
    "ShortageError",
    "StageError",
    "UserError",
    "VerifierError",
    "boundary",
    "joined",
    "nearest",
]


class M2rlError(Exception):
    """Base of all. The message names the culprit, the value found, what is allowed and the next command; no secret."""

    exit_code = 1

    def __init__(self, what: str, *, found: object = None, allowed: Iterable[str] | str = "", then: str = "") -> None:
        parts = [what if what.endswith((".", "!", "?")) else what + "."]
        if found is not None:
            parts.append(f"Found: {found}.")
        if listed := allowed if isinstance(allowed, str) else ", ".join(allowed):
            parts.append(f"Allowed: {listed}.")
        if then:
            parts.append(f"Next: {then}")
        super().__init__(redacted(" ".join(parts)))

    @property
    def kind(self) -> str:
        """Name of the class of this module that the error is of, by which another process makes it again."""
        return next(each.__name__ for each in type(self).__mro__ if each.__module__ == __name__)


class UserError(M2rlError):
    """The user's mistake."""

    exit_code = 2


class ConfigError(UserError):
    """A study file that cannot be run as it stands."""


class ComponentError(UserError):
    """A component that no plugin offers, or whose plugin did not load."""


class DataError(UserError):
    """Data that cannot be used: the message names the row."""


class RunError(UserError):
    """A run directory that cannot be used."""


class StageError(M2rlError):
    """A stage that stopped itself; running the same command again resumes it."""


class VerifierError(StageError):
    """More verifiers failed than the study allows."""


class DivergedError(StageError):
    """Several updates in a row had a non-finite loss or gradient."""


class ShortageError(StageError):
    """A stage asked for more memory than there is."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the known name closest to ``word``, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def joined(failures: Sequence[M2rlError], mistake: type[UserError] = UserError) -> M2rlError:
    """Several failures as one, a line each: a ``mistake`` of the user where all of them are the user's."""
    if len(failures) == 1:
        return failures[0]
    kind = mistake if all(isinstance(failure, UserError) for failure in failures) else StageError
    return kind("\n".join(map(str, failures)))


@contextmanager
def boundary(component: str, doing: str) -> Iterator[None]:
    """Attribute whatever a component's own code raises to that component.

    Raises:
        StageError: from the original exception, naming the component and what it was asked to do.
    """
    try:
        yield
    except M2rlError:
        raise
    except Exception as error:
        raise StageError(f"{component} failed while {doing}: {type(error).__name__}: {error}") from error
