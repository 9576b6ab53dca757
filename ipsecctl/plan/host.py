"""The host's part of a gateway, desired against observed: files, firewall, settings, the unit of the boot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from ipsecctl.desired import GUARD_UNIT, GUARD_UNIT_FILE
from ipsecctl.gateway import NFT_TABLE, Facts, NewFile, Record
from ipsecctl.plan.change import Change, Kind, Part, fields
from ipsecctl.plan.reasons import (
    ALTERED,
    BY_HAND,
    CUT_OFF,
    DECLARED,
    NO_LONGER,
    NOT_THERE,
    Cause,
    Drift,
    cause_of,
)
from ipsecctl.plan.wanted import Wanted, sysctls
from ipsecctl.render import FIREWALL_FILE, STRONGSWAN_FILE, SYSCTL_FILE

__all__ = ["HostComparison", "file_entry"]

_TABLE_LOST = Drift("the table was applied and is no longer loaded")
_TABLE_FILE = Drift("its file is not as it was applied: it is loaded anew from the right one")
_THERE = "a table of that name is there already"
_OTHER_VALUE = "the running value is another one"
_VALUE_BY_HAND = Drift("the running value is not the one that was applied")
_NOT_ENABLED = Drift("it is not enabled: the firewall would not be loaded after a reboot")
_NOT_ACTIVE = Drift("it is not active: the firewall would not come back after nftables.service was restarted")
_FAILED = Drift("it failed: the firewall, a route or a setting could not be brought into force")


def file_entry(sha256: str, mode: int) -> dict[str, str]:
    """Return what a record's digest of a file is made of."""
    return {"sha256": sha256, "mode": f"{mode:o}"}


class HostComparison:
    """A gateway's host as wanted, against what its shell tells and the record of the last apply."""

    def __init__(self, wanted: Wanted, facts: Facts, record: Record) -> None:
        self.wanted = wanted
        self.facts = facts
        self.record = record

    def changes(self) -> Iterator[Change]:
        yield from self._files()
        yield from self._firewall()
        yield from self._sysctls()
        yield from self._unit()

    def _change(self, part: Part, name: str, kind: Kind, *reasons: str, **more: Any) -> Change:
        return Change(self.wanted.gateway, part, name, kind, reasons=reasons, **more)

    # -------------------------------------------------------------------------------------------------- files

    def _files(self) -> Iterator[Change]:
        for path, file in self.wanted.files.items():
            if (change := self._file(path, file)) and not self.is_anothers(path, file):
                yield change
        for path in self.record.files:
            if path not in self.wanted.files and path in self.facts.files:
                yield self._change(Part.FILE, path, Kind.REMOVE, NO_LONGER)

    def is_anothers(self, path: str, file: NewFile) -> bool:
        """Whether a file that is there is not ours; one with the right content may become ours."""
        seen = self.facts.files.get(path)
        return seen is not None and path not in self.record.files and seen.sha256 != _sha256(file)

    def _file(self, path: str, file: NewFile) -> Change | None:
        seen, recorded = self.facts.files.get(path), self.record.files.get(path)
        size = {"size": f"{len(file.content)} bytes", "mode": f"{file.mode:04o}"}
        if seen is None:
            reason = DECLARED if recorded is None else NOT_THERE
            return self._change(Part.FILE, path, Kind.CREATE, reason, after=fields(size))
        right = seen.sha256 == _sha256(file) and seen.mode == file.mode
        # Written, but perhaps not taken up: charon and systemd read theirs only when they are told to.
        if right and not (recorded == "" and path in (STRONGSWAN_FILE, GUARD_UNIT_FILE)):
            return None
        as_recorded = recorded == self.record.digest("file", file_entry(seen.sha256, seen.mode))
        before, after = _file_fields(seen.sha256, seen.mode), _file_fields(_sha256(file), file.mode)
        shown = {
            name for name in before if before[name] != after[name] and (name == "mode" or file.mode & 0o44)
        }
        return self._change(
            Part.FILE,
            path,
            Kind.CHANGE,
            *self._file_differs(path, recorded, as_recorded),
            before=fields({name: before[name] for name in shown}),
            after=fields({name: after[name] for name in shown}),
        )

    def _file_differs(self, path: str, recorded: str | None, as_recorded: bool) -> tuple[str, ...]:
        if recorded is None:
            return ("it is there already, with another mode",)
        if recorded == "" or as_recorded:
            return (CUT_OFF if recorded == "" else ALTERED,)
        return (BY_HAND,) if self._unchanged(path) else (BY_HAND, ALTERED)

    def _unchanged(self, path: str) -> bool:
        """Whether a file is wanted as it was applied, whatever has become of it since."""
        file = self.wanted.files.get(path)
        entry = file_entry(_sha256(file), file.mode) if file else {}
        return file is not None and self.record.files.get(path) == self.record.digest("file", entry)

    def file_changes(self, path: str) -> bool:
        return self.file_reason(path) is not None

    def file_reason(self, path: str) -> str | None:
        """Return why a file is to be written, ``None`` when it is not."""
        change = self._file(path, self.wanted.files[path]) if path in self.wanted.files else None
        return change.reasons[0] if change else None

    # ------------------------------------------------------------------------------ firewall, sysctls, routes

    def _firewall(self) -> Iterator[Change]:
        name = " ".join(NFT_TABLE)
        loaded = self.facts.firewall
        if FIREWALL_FILE not in self.wanted.files:
            if loaded and FIREWALL_FILE in self.record.files:
                yield self._change(Part.FIREWALL, name, Kind.REMOVE, NO_LONGER)
        elif not loaded:
            lost = self.record.files.get(FIREWALL_FILE)
            yield self._change(Part.FIREWALL, name, Kind.CREATE, _TABLE_LOST if lost else DECLARED)
        elif changed := self.file_reason(FIREWALL_FILE):
            yield self._change(Part.FIREWALL, name, Kind.CHANGE, *self._table_differs(changed, loaded))
        elif loaded != self.record.seen.firewall:
            reason = BY_HAND if self.record.seen.firewall else CUT_OFF if self.record.files else _THERE
            yield self._change(Part.FIREWALL, name, Kind.CHANGE, reason)

    def _table_differs(self, changed: str, loaded: str) -> tuple[str, ...]:
        """Return why the table is loaded anew when its file is: ``changed`` is why that is written."""
        seen = self.record.seen.firewall
        by_hand = (BY_HAND,) if seen and loaded != seen else ()
        if cause_of([changed]) is Cause.CUT_OFF:
            return (*by_hand, CUT_OFF)
        if self._unchanged(FIREWALL_FILE):
            return by_hand or (_TABLE_FILE,)
        return (*by_hand, ALTERED)

    def _sysctls(self) -> Iterator[Change]:
        file = self.wanted.files.get(SYSCTL_FILE)
        reason = _VALUE_BY_HAND if self._unchanged(SYSCTL_FILE) else _OTHER_VALUE
        for name, value in sysctls(file.content if file else b"").items():
            running = self.facts.sysctls.get(name, ())
            if any(other != value for other in running):
                yield self._change(
                    Part.SYSCTL,
                    name,
                    Kind.CHANGE,
                    reason,
                    before=fields({"value": " or ".join(running)}),
                    after=fields({"value": value}),
                )

    def _unit(self) -> Iterator[Change]:
        """Compare what systemd, where it runs, is to know of the boot."""
        if self.facts.unit is None:
            return
        enabled, active = self.facts.unit
        if GUARD_UNIT_FILE not in self.wanted.files:
            if GUARD_UNIT_FILE in self.record.files and enabled == "enabled":
                yield self._change(Part.UNIT, GUARD_UNIT, Kind.REMOVE, NO_LONGER)
        elif enabled != "enabled":
            declared = self.record.files.get(GUARD_UNIT_FILE) is None
            yield self._change(Part.UNIT, GUARD_UNIT, Kind.CREATE, DECLARED if declared else _NOT_ENABLED)
        elif active != "active":
            reason = _FAILED if active == "failed" else _NOT_ACTIVE
            yield self._change(Part.UNIT, GUARD_UNIT, Kind.CHANGE, reason)
        elif changed := self.file_reason(GUARD_UNIT_FILE):
            yield self._change(Part.UNIT, GUARD_UNIT, Kind.CHANGE, changed)


def _sha256(file: NewFile) -> str:
    return hashlib.sha256(file.content).hexdigest()


def _file_fields(sha256: str, mode: int) -> dict[str, str]:
    return {"content": f"sha256 {sha256[:16]}", "mode": f"{mode:04o}"}
