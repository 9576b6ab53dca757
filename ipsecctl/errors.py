"""What went wrong, where, and how to mend it.

::

    IpsecctlError              one summary and one hint, exit status 1
    +- TopologyRefused         a topology has errors; carries all its diagnostics
    +- SecretUnavailable       a reference to a secret cannot be resolved
    +- CannotQuote             a value that must not be put into a rendered file
    +- CannotTell              the question could not be answered, exit status 3
    |  +- GatewayUnreachable   a gateway, or charon on it, cannot be reached
    |  +- ViciError            charon answered, but not as the protocol says, or too late
|  +- StoreUnusable        the store of revisions and locks cannot be reached or used
    +- ViciRefused             charon answered a command with "no" and its reason
    +- ApplyFailed             a gateway could not be brought to its desired state
|  +- GatewaysBusy         somebody else's apply holds the lock of a gateway
|  +- LockLost             our apply's lock was broken
|  +- SafetyStop           a plan removes or disturbs more than it may
|  +- PlanStale            what a saved plan was made of has changed
    +- PkiError                the CA cannot do what was asked of it
    +- LabError                a lab could not be made, found or removed
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

__all__ = [
    "ApplyFailed",
    "CannotQuote",
    "CannotTell",
    "Diagnostic",
    "GatewayUnreachable",
    "GatewaysBusy",
    "IpsecctlError",
    "LabError",
    "LockLost",
    "PkiError",
    "PlanStale",
    "SafetyStop",
    "SecretUnavailable",
    "Severity",
    "StoreUnusable",
    "TopologyRefused",
    "ViciError",
    "ViciRefused",
    "diagnostics_json",
    "worst_first",
]


class Severity(IntEnum):
    """How bad a finding is; an ``ERROR`` stops everything after ``validate``."""

    ERROR = 0
    WARNING = 1
    INFO = 2

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding about an input file.

    ``code`` is stable (``IP-...``); ``line`` and ``column`` count from 1, 0 when the finding has no place;
    ``summary`` says what is wrong, ``hint`` how to mend it.
    """

    severity: Severity
    code: str
    summary: str
    hint: str
    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.severity.label} {self.code}: {self.summary}"

    def as_json(self) -> dict[str, Any]:
        return {
            "severity": self.severity.label,
            "code": self.code,
            "summary": self.summary,
            "hint": self.hint,
            "file": self.file,
            "line": self.line,
            "column": self.column,
        }


def worst_first(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Return the findings sorted by severity, then place, without repetitions."""
    return tuple(
        sorted(set(diagnostics), key=lambda d: (d.severity, d.file, d.line, d.column, d.code, d.summary))
    )


def diagnostics_json(diagnostics: Iterable[Diagnostic]) -> dict[str, Any]:
    """Return the document ``ipsecctl/diagnostics/1``."""
    return {
        "schema": "ipsecctl/diagnostics/1",
        "diagnostics": [d.as_json() for d in worst_first(diagnostics)],
    }


class IpsecctlError(Exception):
    """Something that a user can understand and mend: a summary, and a hint that may be empty."""

    exit_status = 1

    def __init__(self, summary: str, hint: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint


class TopologyRefused(IpsecctlError):  # noqa: N818 - the domain's word
    """A topology has errors; ``diagnostics`` holds every finding, worst first."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = worst_first(diagnostics)
        errors = sum(d.severity is Severity.ERROR for d in self.diagnostics)
        super().__init__(f"the topology has {errors} error{'s' if errors != 1 else ''}")


class SecretUnavailable(IpsecctlError):  # noqa: N818
    """A reference to a secret cannot be resolved."""


class CannotQuote(IpsecctlError):  # noqa: N818
    """A value holds characters that a rendered file cannot carry safely."""


class CannotTell(IpsecctlError):  # noqa: N818
    """The question could not be answered."""

    exit_status = 3


class GatewayUnreachable(CannotTell):
    """A gateway, or charon on it, cannot be reached.

    ``charon_down`` is true when the gateway itself answered and it is charon that does not run.
    """

    def __init__(self, gateway: str, cause: str, hint: str = "", *, charon_down: bool = False) -> None:
        super().__init__(f"{gateway}: {cause}", hint)
        self.gateway = gateway
        self.cause = cause
        self.charon_down = charon_down


class ViciError(CannotTell):
    """charon did not answer as the VICI protocol says, or not in time."""


class StoreUnusable(CannotTell):
    """The store of revisions and locks cannot be reached, opened, read or written."""


class ViciRefused(IpsecctlError):  # noqa: N818
    """charon answered a command with ``success = no``; the summary has its ``errmsg``."""


class ApplyFailed(IpsecctlError):  # noqa: N818
    """A gateway could not be brought to its desired state."""


class GatewaysBusy(ApplyFailed):
    """Somebody else's apply holds the lock of a gateway; nothing was done."""


class LockLost(ApplyFailed):
    """The lock of our apply was broken, or taken when it had run out; what was under way has been stopped."""


class SafetyStop(ApplyFailed):
    """A plan removes or disturbs more tunnels than it may without being allowed to; nothing was done."""


class PlanStale(ApplyFailed):
    """What a saved plan was made of has changed since; nothing was done."""


class PkiError(IpsecctlError):
    """The CA cannot do what was asked of it: its folder, its keys, or what it was given."""


class LabError(IpsecctlError):
    """A lab could not be made, found or removed."""
