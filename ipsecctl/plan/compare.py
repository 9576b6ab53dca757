"""Desired against observed, for one gateway: a sorted list of changes with reasons.

The record that the last apply left says what is ours and what it was like when we sent it; what charon, the
firewall and the files report says what it is like now. Both must be right before nothing is to be done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ipsecctl.desired import GUARD_UNIT, GUARD_UNIT_FILE
from ipsecctl.gateway import NFT_TABLE, RECORD_PATH, NewFile, Observed, Record
from ipsecctl.plan.change import Change, Conflict, Disruption, GatewayPlan, Kind, Note, Part, fields
from ipsecctl.plan.connections import (
    differing,
    flatten,
    network_pairs,
    not_held_any_more,
)
from ipsecctl.plan.kernel import kernel_reasons
from ipsecctl.plan.obstacles import ipv6_notes, legacy_conflicts, legacy_notes
from ipsecctl.plan.stages import Way, disruption, way
from ipsecctl.plan.start_up import may_restart, restart_for, start_up
from ipsecctl.plan.wanted import SHARED_PREFIX, Wanted, certificate_digest, sysctls
from ipsecctl.plan.ways import interface_changes, route_changes, rule_changes, way_conflicts
from ipsecctl.render import FIREWALL_FILE, STRONGSWAN_FILE, SWANCTL_SECRETS_FILE, SYSCTL_FILE

__all__ = ["file_entry", "plan_gateway"]

_DECLARED = "declared in the topology"
_NO_LONGER = "no longer in the topology"
_ALTERED = "the topology or what it refers to has changed"
_CUT_OFF = "an earlier apply was cut off here"
_LOST = "it was applied and charon no longer has it: restarted, or unloaded by hand"
_BY_HAND = "altered on the gateway by hand since the last apply"
_NOT_RENEWED = "its SAs were not made anew after an earlier change"
_NEW_KEY = "its pre-shared key is another one: its IKE_SAs are authenticated anew"
_SWITCH = (
    "of what this end sends, some milliseconds' worth may be lost: it uses a new SA before the far end has it"
)
_KEPT = "charon keeps it in memory until it restarts"
_THERE = "a table of that name is there already"
_NOT_ENABLED = "it is not enabled: the firewall would not be loaded after a reboot"
_NOT_ACTIVE = "it is not active: the firewall would not come back after nftables.service was restarted"
_FAILED = "it failed: the firewall, a route or a setting could not be brought into force"
_FILE_BY_HAND = "its file was altered by hand, and charon does not tell what it has loaded from it"


def plan_gateway(
    wanted: Wanted,
    observed: Observed,
    *,
    take_over: bool = False,
    lacking: Iterable[Conflict] = (),
    notes: Iterable[Note] = (),
) -> GatewayPlan:
    """Return what must change on a gateway for it to be as wanted.

    ``lacking`` is what it cannot do, to stand among the conflicts; ``notes`` are others' beside those that
    come of what was observed. ``take_over`` says that the topology takes
    the place of another one that was applied there. Nothing of a secret is in the plan.
    """
    comparison = _Comparison(wanted, observed)
    return GatewayPlan(
        gateway=wanted.gateway,
        changes=tuple(sorted([*comparison.changes(), *(comparison.taken_over() if take_over else ())])),
        conflicts=tuple(sorted({*comparison.conflicts(take_over), *lacking})),
        restart_for=comparison.restart_for,
        version=observed.version,
        restart=observed.facts.restart,
        charon_down=observed.charon_down.cause if observed.charon_down else "",
        notes=tuple(sorted({*notes, *comparison.notes()})),
    )


def file_entry(sha256: str, mode: int) -> dict[str, str]:
    """Return what a record's digest of a file is made of."""
    return {"sha256": sha256, "mode": f"{mode:o}"}


class _Comparison:
    def __init__(self, wanted: Wanted, observed: Observed) -> None:
        self.wanted = wanted
        self.observed = observed
        self.facts = observed.facts
        self.lost = observed.not_in_kernel
        # Without a record nothing is ours, and no digest is looked at.
        self.record = observed.facts.record or Record(key=b"")
        self.options = restart_for(start_up(wanted, observed))
        self.restarts = bool(self.options) and may_restart(observed)
        self.restart_for = () if self.restarts else self.options
        self.kept = network_pairs(wanted.connections.values())

    def changes(self) -> Iterator[Change]:
        if self.observed.charon_down is None:
            yield from self._host()
            yield from self._charon()
            return
        # What a dead charon still uses is taken away when it has let go of it: then it can be told so.
        yield from (change for change in self._host() if change.kind is not Kind.REMOVE)

    def taken_over(self) -> Iterator[Change]:
        """Yield that the record, and with it all that is ours there, becomes another topology's."""
        before, after = self.record.topology, self.wanted.topology
        if before not in ("", after):
            yield self._change(
                Part.RECORD,
                RECORD_PATH,
                Kind.CHANGE,
                f"taken over from topology '{before}'",
                before=fields({"topology": before}),
                after=fields({"topology": after}),
            )

    def _host(self) -> Iterator[Change]:
        yield from self._files()
        yield from self._firewall()
        yield from self._sysctls()
        yield from interface_changes(self.wanted, self.facts, self.record)
        yield from route_changes(self.wanted, self.facts, self.record, changes=self._file_changes)
        yield from rule_changes(self.wanted, self.facts, self.record, changes=self._file_changes)
        yield from self._unit()

    def _charon(self) -> Iterator[Change]:
        if self.restarts:
            reason = f"it reads {', '.join(self.options)} only when it starts"
            yield self._change(
                Part.CHARON, "restart", Kind.CHANGE, "charon will be restarted: it holds no SA", reason
            )
        yield from self._certificates()
        yield from self._keys()
        yield from self._shared()
        yield from self._connections()

    def conflicts(self, take_over: bool) -> Iterator[Conflict]:
        gateway, record = self.wanted.gateway, self.record
        if record.topology not in ("", self.wanted.topology) and not take_over:
            yield Conflict(
                f"{gateway} was set up from the topology '{record.topology}', not '{self.wanted.topology}'",
                "If this one takes its place (what only the other declares is removed), say --take-over.",
            )
        for name in self.wanted.connections:
            if name in self.observed.connections and name not in record.connections:
                yield Conflict(
                    f"{gateway}: charon has a connection '{name}' that ipsecctl did not load",
                    "Rename the tunnel, or take it out of the swanctl.conf there and unload it.",
                )
        for key in self.wanted.shared:
            if key in self.observed.shared and key not in record.shared:
                yield Conflict(
                    f"{gateway}: charon has a shared key '{key}' that ipsecctl did not load",
                    "Rename the tunnel, or rename that secret in its swanctl.conf.",
                )
        for path, file in self.wanted.files.items():
            if self._is_anothers(path, file):
                yield Conflict(
                    f"{gateway}: {path} is there and ipsecctl did not write it",
                    "Move the file out of the way.",
                )
        yield from way_conflicts(self.wanted, self.facts, record, self.observed.data_path)
        yield from legacy_conflicts(self.wanted, self.facts.legacy_rules)

    def notes(self) -> Iterator[Note]:
        yield from legacy_notes(self.wanted, self.facts.legacy_rules, self.facts.legacy_unread)
        yield from ipv6_notes(self.wanted, self.facts)

    def _change(self, part: Part, name: str, kind: Kind, *reasons: str, **more: Any) -> Change:
        return Change(self.wanted.gateway, part, name, kind, reasons=reasons, **more)

    # -------------------------------------------------------------------------------------------------- files

    def _files(self) -> Iterator[Change]:
        for path, file in self.wanted.files.items():
            if (change := self._file(path, file)) and not self._is_anothers(path, file):
                yield self._with_restart(change)
        for path in self.record.files:
            if path not in self.wanted.files and path in self.facts.files:
                yield self._change(Part.FILE, path, Kind.REMOVE, _NO_LONGER)

    def _with_restart(self, change: Change) -> Change:
        if change.name == STRONGSWAN_FILE and self.restarts:
            return replace(change, reasons=(*change.reasons, "charon is restarted for it"))
        if change.name != STRONGSWAN_FILE or not self.restart_for:
            return change
        reason = f"charon must be restarted for it: {', '.join(self.restart_for)}"
        return replace(change, reasons=(*change.reasons, reason), disruption=Disruption.IKE_RESTART)

    def _is_anothers(self, path: str, file: NewFile) -> bool:
        """Whether a file that is there is not ours; one with the right content may become ours."""
        seen = self.facts.files.get(path)
        return seen is not None and path not in self.record.files and seen.sha256 != _sha256(file)

    def _file(self, path: str, file: NewFile) -> Change | None:
        seen, recorded = self.facts.files.get(path), self.record.files.get(path)
        size = {"size": f"{len(file.content)} bytes", "mode": f"{file.mode:04o}"}
        if seen is None:
            reason = _DECLARED if recorded is None else "it was applied and is no longer there"
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
            self._file_differs(recorded, as_recorded),
            before=fields({name: before[name] for name in shown}),
            after=fields({name: after[name] for name in shown}),
        )

    @staticmethod
    def _file_differs(recorded: str | None, as_recorded: bool) -> str:
        if recorded is None:
            return "it is there already, with another mode"
        return _CUT_OFF if recorded == "" else _ALTERED if as_recorded else _BY_HAND

    def _file_changes(self, path: str) -> bool:
        return self._file_reason(path) is not None

    def _file_reason(self, path: str) -> str | None:
        """Return why a file is to be written, ``None`` when it is not."""
        change = self._file(path, self.wanted.files[path]) if path in self.wanted.files else None
        return change.reasons[0] if change else None

    # ------------------------------------------------------------------------------ firewall, sysctls, routes

    def _firewall(self) -> Iterator[Change]:
        name = " ".join(NFT_TABLE)
        loaded = self.facts.firewall
        if FIREWALL_FILE not in self.wanted.files:
            if loaded and FIREWALL_FILE in self.record.files:
                yield self._change(Part.FIREWALL, name, Kind.REMOVE, _NO_LONGER)
        elif not loaded:
            lost = self.record.files.get(FIREWALL_FILE)
            reason = "the table was applied and is no longer loaded" if lost else _DECLARED
            yield self._change(Part.FIREWALL, name, Kind.CREATE, reason)
        elif self._file_changes(FIREWALL_FILE):
            yield self._change(Part.FIREWALL, name, Kind.CHANGE, _ALTERED)
        elif loaded != self.record.seen.firewall:
            reason = _BY_HAND if self.record.seen.firewall else _CUT_OFF if self.record.files else _THERE
            yield self._change(Part.FIREWALL, name, Kind.CHANGE, reason)

    def _sysctls(self) -> Iterator[Change]:
        file = self.wanted.files.get(SYSCTL_FILE)
        for name, value in sysctls(file.content if file else b"").items():
            running = self.facts.sysctls.get(name, ())
            if any(other != value for other in running):
                yield self._change(
                    Part.SYSCTL,
                    name,
                    Kind.CHANGE,
                    "the running value is another one",
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
                yield self._change(Part.UNIT, GUARD_UNIT, Kind.REMOVE, _NO_LONGER)
        elif enabled != "enabled":
            declared = self.record.files.get(GUARD_UNIT_FILE) is None
            yield self._change(Part.UNIT, GUARD_UNIT, Kind.CREATE, _DECLARED if declared else _NOT_ENABLED)
        elif active != "active":
            reason = _FAILED if active == "failed" else _NOT_ACTIVE
            yield self._change(Part.UNIT, GUARD_UNIT, Kind.CHANGE, reason)
        elif changed := self._file_reason(GUARD_UNIT_FILE):
            yield self._change(Part.UNIT, GUARD_UNIT, Kind.CHANGE, changed)

    # -------------------------------------------------------------------------------------------- credentials

    def _certificates(self) -> Iterator[Change]:
        for target, message in self.wanted.certificates.items():
            digest = certificate_digest(message["data"])
            if digest in self.observed.certificates:
                continue
            recorded = self.record.certificates.get(target)
            if recorded is None:
                yield self._change(Part.CERTIFICATE, target, Kind.CREATE, _DECLARED)
            elif recorded == self.record.digest("certificate", message):
                yield self._change(Part.CERTIFICATE, target, Kind.CREATE, _LOST)
            else:
                yield self._change(Part.CERTIFICATE, target, Kind.CHANGE, _ALTERED if recorded else _CUT_OFF)
        for target in self.record.certificates:
            if target not in self.wanted.certificates:
                reason = f"{_NO_LONGER}; {_KEPT}, which does no harm"
                yield self._change(Part.CERTIFICATE, target, Kind.REMOVE, reason)

    def _keys(self) -> Iterator[Change]:
        for target, message in self.wanted.keys.items():
            key_id, recorded = self.record.keys.get(target, ("", None))
            yield from self._credential(Part.KEY, target, message, recorded, key_id in self.observed.keys)
        for target in self.record.keys:
            if target not in self.wanted.keys:
                # charon knows a key by its content: unloading it could take it from another's connection.
                reason = f"{_NO_LONGER}; {_KEPT}, as another's connection may use the same"
                yield self._change(Part.KEY, target, Kind.REMOVE, reason)

    def _shared(self) -> Iterator[Change]:
        tampered = self._file_reason(SWANCTL_SECRETS_FILE) == _BY_HAND
        for name, message in self.wanted.shared.items():
            loaded, recorded = name in self.observed.shared, self.record.shared.get(name)
            changes = tuple(self._credential(Part.SHARED, name, message, recorded, loaded))
            yield from changes
            if tampered and not changes:
                yield self._change(Part.SHARED, name, Kind.CHANGE, _FILE_BY_HAND)
        for name in self.record.shared:
            if name not in self.wanted.shared and name in self.observed.shared:
                yield self._change(Part.SHARED, name, Kind.REMOVE, _NO_LONGER)

    def _credential(
        self, part: Part, name: str, message: Mapping[str, Any], recorded: str | None, loaded: bool
    ) -> Iterator[Change]:
        if not loaded:
            yield self._change(part, name, Kind.CREATE, _LOST if recorded else _DECLARED)
        elif recorded is not None and recorded != self.record.digest(str(part), message):
            reasons = (_CUT_OFF,) if recorded == "" else (_ALTERED, "used from the next authentication on")
            yield self._change(part, name, Kind.CHANGE, *reasons)

    # -------------------------------------------------------------------------------------------- connections

    def _connections(self) -> Iterator[Change]:
        for change in self._connection_changes():
            message = self.wanted.connections.get(change.name, {})
            moves = change.disruption is Disruption.REKEY
            yield (
                change
                if not moves or _calls(message)
                else replace(change, reasons=(*change.reasons, _SWITCH))
            )

    def _connection_changes(self) -> Iterator[Change]:
        for name, message in self.wanted.connections.items():
            if name not in self.observed.connections:
                reason = _LOST if self.record.connections.get(name) else _DECLARED
                yield self._change(
                    Part.CONNECTION,
                    name,
                    Kind.CREATE,
                    reason,
                    after=fields(flatten(message)),
                    disruption=self._grade(name, message)
                    if name in self.record.messages
                    else Disruption.NONE,
                )
            elif name in self.record.connections:
                yield from self._loaded_connection(name, message)
        for name in self.record.connections:
            if name not in self.wanted.connections and name in self.observed.connections:
                yield self._change(
                    Part.CONNECTION,
                    name,
                    Kind.REMOVE,
                    _NO_LONGER,
                    *self._exposed(name),
                    before=fields(flatten(self.record.messages.get(name, {}))),
                    disruption=Disruption.IKE_RESTART,
                )

    def _exposed(self, name: str) -> tuple[str, ...]:
        """Return as a reason what a connection held back when it was applied, and none will any more."""
        return not_held_any_more(self.record.messages.get(name, {}), self.kept)

    def _grade(self, name: str, message: Mapping[str, Any], *, unsure: bool = False) -> Disruption:
        """Return what must be done to the SAs of a connection, also for a change that was begun before.

        ``unsure``: nobody knows which configuration they hold, so they may have to be moved.
        """
        callable_ = name not in self.wanted.foreign or message.get("remote_addrs") != ["%any"]
        new_key = self._has_new_key(name)
        old = self.record.messages.get(name, {})
        if new_key and way(old, message) < Way.IKE and self._breaks_before_it_makes(message):
            callable_ = False
        new_key = new_key or unsure or name in self.record.renew
        grade = disruption(old, message, new_key=new_key, callable_=callable_)
        return max(grade, Disruption.CHILD_RESTART) if kernel_reasons(self.lost, name) else grade

    def _breaks_before_it_makes(self, message: Mapping[str, Any]) -> bool:
        """Whether this is an end that calls, with a charon that ends an IKE_SA to authenticate it anew.

        ``charon.make_before_break`` is on since 6.0.
        """
        return _calls(message) and self.observed.version.startswith(("4.", "5."))

    def _has_new_key(self, name: str) -> bool:
        """Whether a connection's pre-shared key is to take the place of another one that charon has."""
        key = f"{SHARED_PREFIX}{name}"
        recorded = self.record.shared.get(key)
        return (
            key in self.wanted.shared
            and key in self.observed.shared
            and recorded is not None
            and recorded != self.record.digest(str(Part.SHARED), self.wanted.shared[key])
        )

    def _loaded_connection(self, name: str, message: Mapping[str, Any]) -> Iterator[Change]:
        recorded = self.record.connections[name]
        grade = self._grade(name, message)
        now = fields(flatten(message))
        if recorded == "":
            yield self._change(Part.CONNECTION, name, Kind.CHANGE, _CUT_OFF, after=now, disruption=grade)
        elif recorded != self.record.digest("connection", message):
            old = self.record.messages.get(name, {})
            before, after = differing(old, message)
            yield self._change(
                Part.CONNECTION,
                name,
                Kind.CHANGE,
                _ALTERED,
                *self._exposed(name),
                before=fields(before),
                after=fields(after),
                disruption=grade,
            )
        elif self._drifted(name):
            grade = self._grade(name, message, unsure=True)
            yield self._change(Part.CONNECTION, name, Kind.CHANGE, _BY_HAND, after=now, disruption=grade)
        elif self._has_new_key(name):
            yield self._change(Part.CONNECTION, name, Kind.CHANGE, _NEW_KEY, disruption=grade)
        elif name in self.record.renew:
            yield self._change(Part.CONNECTION, name, Kind.CHANGE, _NOT_RENEWED, disruption=grade)
        elif lost := kernel_reasons(self.lost, name):
            yield self._change(Part.CONNECTION, name, Kind.CHANGE, *lost, disruption=grade)

    def _drifted(self, name: str) -> bool:
        """Whether charon reports a connection otherwise than right after we loaded it."""
        seen = self.record.seen
        if seen.version != self.observed.version or name not in seen.connections:
            return False  # another version may report the same in other words
        return seen.connections[name] != self.record.digest("seen", self.observed.connections[name])


def _calls(message: Mapping[str, Any]) -> bool:
    return any(child.get("start_action", "none") != "none" for child in message.get("children", {}).values())


def _sha256(file: NewFile) -> str:
    return hashlib.sha256(file.content).hexdigest()


def _file_fields(sha256: str, mode: int) -> dict[str, str]:
    return {"content": f"sha256 {sha256[:16]}", "mode": f"{mode:04o}"}
