"""Desired against observed, for one gateway: a sorted list of changes with reasons.

The record that the last apply left says what is ours and what it was like when we sent it; what charon, the
firewall and the files report says what it is like now. Both must be right before nothing is to be done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from ipsecctl.gateway import RECORD_PATH, Observed, Record
from ipsecctl.plan.change import Change, Conflict, Disruption, GatewayPlan, Kind, Note, Part, fields
from ipsecctl.plan.connections import (
    NetworkPairs,
    differing,
    flatten,
    network_pairs,
    not_held_any_more,
)
from ipsecctl.plan.device import (
    GONE,
    barred,
    barred_notes,
    device_changes,
    device_gone,
    unrouted,
    unrouted_children,
)
from ipsecctl.plan.host import HostComparison
from ipsecctl.plan.kernel import kernel_reasons
from ipsecctl.plan.obstacles import ipv6_notes, legacy_conflicts, legacy_notes
from ipsecctl.plan.reasons import (
    ALTERED,
    BY_HAND,
    CUT_OFF,
    DECLARED,
    NO_LONGER,
    CutOff,
    Drift,
    NotCompleted,
)
from ipsecctl.plan.reported import departing
from ipsecctl.plan.stages import Way, disruption, loses_routes, way
from ipsecctl.plan.start_up import may_restart, restart_for, start_up
from ipsecctl.plan.undeclared import ended_reasons, trap_reasons
from ipsecctl.plan.wanted import NEXT, PPK_PREFIX, SHARED_PREFIX, Wanted, certificate_digest
from ipsecctl.plan.ways import (
    interface_changes,
    route_changes,
    rule_changes,
    way_conflicts,
    way_home_notes,
    way_out_notes,
)
from ipsecctl.render import STRONGSWAN_FILE, SWANCTL_SECRETS_FILE
from ipsecctl.topology import DataPath
from ipsecctl.vici import Listing

__all__ = ["plan_gateway"]

_LOST = Drift("it was applied and charon no longer has it: restarted, or unloaded by hand")
_UNLOADED = Drift("it was applied and unloaded by hand since: charon runs on and no longer has it")
_RESTARTED = Drift("charon was started anew since the last apply, and does not have it")
_NOT_RENEWED = Drift("its SAs keep an earlier configuration: they were not made anew after a change")
_KEEPS = "a running SA keeps another configuration"
_LEFT_SAS = "no longer in the topology, nor in charon, which still has SAs of it: these are ended"
_LEFT_TRAP = "no longer in the topology, nor in charon, which still has a trap of it: it is taken away"
_NEW_KEY = "its pre-shared key is another one: its IKE_SAs are authenticated anew"
_NEW_PPK = "its PPK is another one: its IKE_SAs are authenticated anew, and take it (RFC 8784 section 3)"
_PREFIXES = {SHARED_PREFIX: _NEW_KEY, PPK_PREFIX: _NEW_PPK}
_SWITCH = (
    "of what this end sends, some milliseconds' worth may be lost: it uses a new SA before the far end has it"
)
_ROUTES = (
    "what this end sends in some tenths of a second is lost: kernel-libipsec takes a route away with the old "
    "SA, and sets it again in a rekey of the new one"
)
_KEPT = "charon keeps it in memory until it restarts"
_NO_ROUTES = Drift(
    "charon's routes through ipsec0 are not there: the connection is loaded anew, and they with it"
)
_KEY_NOT_USED = NotCompleted("the last apply did not complete the change of this key")
_BESIDE = NotCompleted(
    "ipsecctl's own entry for the new key, beside the old one until the change is completed"
)
_BESIDE_CUT_OFF = CutOff("ipsecctl's own entry for a new key, left by an apply that was cut off here")
_FILE_BY_HAND = Drift("its file was altered by hand, and charon does not tell what it has loaded from it")


def plan_gateway(
    wanted: Wanted,
    observed: Observed,
    *,
    take_over: bool = False,
    lacking: Iterable[Conflict] = (),
    notes: Iterable[Note] = (),
    outdated: Mapping[str, tuple[str, ...]] | None = None,
) -> GatewayPlan:
    """Return what must change on a gateway for it to be as wanted.

    ``lacking`` is what it cannot do, to stand among the conflicts; ``notes`` are others' beside those that
    come of what was observed. ``outdated`` says by connection in what its running SAs keep another
    configuration than it has. ``take_over`` says that the topology takes
    the place of another one that was applied there. Nothing of a secret is in the plan.
    """
    comparison = _Comparison(wanted, observed, outdated or {})
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


class _Comparison:
    def __init__(self, wanted: Wanted, observed: Observed, outdated: Mapping[str, tuple[str, ...]]) -> None:
        self.wanted = wanted
        self.observed = observed
        self.outdated = outdated
        self.facts = observed.facts
        self.lost = observed.not_in_kernel
        # Without a record nothing is ours, and no digest is looked at.
        self.record = observed.facts.record or Record(key=b"")
        self.host = HostComparison(wanted, self.facts, self.record)
        before = self.record.start_up.charon
        known = bool(before and self.facts.charon)
        self.gone = (_UNLOADED if before == self.facts.charon else _RESTARTED) if known else _LOST
        self.options = restart_for(start_up(wanted, observed))
        self.device_gone = device_gone(wanted, observed)
        if self.device_gone:
            self.options = (*self.options, GONE)
        self.restarts = bool(self.options) and may_restart(observed, cut_off=self.device_gone)
        self.restart_for = () if self.restarts else self.options
        missing = unrouted_children(wanted, observed)
        self.unrouted = unrouted(wanted, observed, missing)
        self.barred = barred(wanted, observed, missing=missing)
        if left := self.barred.keys() - self.unrouted:
            self.lost = tuple(replace(sa, routes=()) if sa.tunnel in left else sa for sa in self.lost)

    @cached_property
    def kept(self) -> NetworkPairs:
        """Between which networks connections are to carry traffic."""
        return network_pairs(self.wanted.connections.values())

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
        for change in self.host.changes():
            yield self._with_restart(change)
        yield from interface_changes(self.wanted, self.facts, self.record)
        yield from route_changes(self.wanted, self.facts, self.record, changes=self.host.file_changes)
        yield from rule_changes(self.wanted, self.facts, self.record, changes=self.host.file_changes)

    def _with_restart(self, change: Change) -> Change:
        if change.name == STRONGSWAN_FILE and self.restarts:
            return replace(change, reasons=(*change.reasons, "charon is restarted for it"))
        if change.name != STRONGSWAN_FILE or not self.restart_for:
            return change
        reason = f"charon must be restarted for it: {', '.join(self.restart_for)}"
        return replace(change, reasons=(*change.reasons, reason), disruption=Disruption.IKE_RESTART)

    def _charon(self) -> Iterator[Change]:
        if self.restarts:
            yield self._change(Part.CHARON, "restart", Kind.CHANGE, *self._restart_reasons())
        yield from device_changes(self.wanted, self.observed)
        yield from self._certificates()
        yield from self._keys()
        yield from self._shared()
        yield from self._connections()

    def _restart_reasons(self) -> tuple[str, ...]:
        if self.device_gone:
            return (f"charon will be restarted for {GONE}: none of its SAs carries anything",)
        options = f"it reads {', '.join(self.options)} only when it starts"
        return "charon will be restarted: it holds no SA", options

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
            if self.host.is_anothers(path, file):
                yield Conflict(
                    f"{gateway}: {path} is there and ipsecctl did not write it",
                    "Move the file out of the way.",
                )
        yield from way_conflicts(self.wanted, self.facts, record, self.observed.data_path)
        yield from legacy_conflicts(self.wanted, self.facts.legacy_rules)

    def notes(self) -> Iterator[Note]:
        yield from legacy_notes(self.wanted, self.facts.legacy_rules, self.facts.legacy_unread)
        yield from ipv6_notes(self.wanted, self.facts)
        yield from way_home_notes(self.wanted, self.facts)
        yield from way_out_notes(self.wanted, self.facts, _peers(self.observed.sas))
        yield from barred_notes(self.barred)

    def _change(self, part: Part, name: str, kind: Kind, *reasons: str, **more: Any) -> Change:
        return Change(self.wanted.gateway, part, name, kind, reasons=reasons, **more)

    # -------------------------------------------------------------------------------------------- credentials

    def _certificates(self) -> Iterator[Change]:
        for target, message in self.wanted.certificates.items():
            digest = certificate_digest(message["data"])
            if digest in self.observed.certificates:
                continue
            recorded = self.record.certificates.get(target)
            if recorded is None:
                yield self._change(Part.CERTIFICATE, target, Kind.CREATE, DECLARED)
            elif recorded == self.record.digest("certificate", message):
                yield self._change(Part.CERTIFICATE, target, Kind.CREATE, self.gone)
            else:
                yield self._change(Part.CERTIFICATE, target, Kind.CHANGE, ALTERED if recorded else CUT_OFF)
        for target in self.record.certificates:
            if target not in self.wanted.certificates:
                reason = f"{NO_LONGER}; {_KEPT}, which does no harm"
                yield self._change(Part.CERTIFICATE, target, Kind.REMOVE, reason)

    def _keys(self) -> Iterator[Change]:
        for target, message in self.wanted.keys.items():
            key_id, recorded = self.record.keys.get(target, ("", None))
            yield from self._credential(Part.KEY, target, message, recorded, key_id in self.observed.keys)
        for target in self.record.keys:
            if target not in self.wanted.keys:
                # charon knows a key by its content: unloading it could take it from another's connection.
                reason = f"{NO_LONGER}; {_KEPT}, as another's connection may use the same"
                yield self._change(Part.KEY, target, Kind.REMOVE, reason)

    def _shared(self) -> Iterator[Change]:
        tampered = self.host.file_reason(SWANCTL_SECRETS_FILE) == BY_HAND
        for name, message in self.wanted.shared.items():
            loaded, recorded = name in self.observed.shared, self.record.shared.get(name)
            changes = tuple(self._credential(Part.SHARED, name, message, recorded, loaded))
            yield from changes
            if tampered and not changes:
                yield self._change(Part.SHARED, name, Kind.CHANGE, _FILE_BY_HAND)
        for name in self.record.shared:
            if name not in self.wanted.shared and name in self.observed.shared:
                yield self._change(Part.SHARED, name, Kind.REMOVE, self._why_unwanted(name))

    def _why_unwanted(self, key: str) -> str:
        """Return why a shared key goes: nobody declared the one that is beside another."""
        if key.removesuffix(NEXT) not in self.wanted.shared or not key.endswith(NEXT):
            return NO_LONGER
        return _BESIDE if self._kept(key.removesuffix(NEXT)) else _BESIDE_CUT_OFF

    def _kept(self, key: str) -> bool:
        """Whether a shared key is that of a connection whose change the last apply could not complete."""
        return key.removeprefix(SHARED_PREFIX) in self.record.kept

    def _credential(
        self, part: Part, name: str, message: Mapping[str, Any], recorded: str | None, loaded: bool
    ) -> Iterator[Change]:
        if not loaded:
            yield self._change(part, name, Kind.CREATE, self.gone if recorded else DECLARED)
        elif recorded is not None and recorded != self.record.digest(str(part), message):
            reasons: tuple[str, ...] = (ALTERED, "used from the next authentication on")
            if recorded == "":
                reasons = (_KEY_NOT_USED if part is Part.SHARED and self._kept(name) else CUT_OFF,)
            yield self._change(part, name, Kind.CHANGE, *reasons)

    # -------------------------------------------------------------------------------------------- connections

    def _connections(self) -> Iterator[Change]:
        for change in self._connection_changes():
            message = self.wanted.connections.get(change.name, {})
            moves = change.disruption is Disruption.REKEY
            costs = [_SWITCH] if moves and not _calls(message) else []
            if moves and self.wanted.data_path is DataPath.LIBIPSEC:
                before = self.record.messages.get(change.name, message)
                costs += [_ROUTES] if loses_routes(before, message) else []
            yield replace(change, reasons=(*change.reasons, *costs)) if costs else change

    def _connection_changes(self) -> Iterator[Change]:
        for name, message in self.wanted.connections.items():
            if name not in self.observed.connections:
                yield self._unloaded_connection(name, message)
            elif name in self.record.connections:
                yield from self._loaded_connection(name, message)
        # One that is unloaded may have left SAs: so it is where an apply was cut off between the two.
        there = self.observed.connections.keys() | self.observed.sa_names | (self.observed.traps or {}).keys()
        for name in self.record.connections:
            if name not in self.wanted.connections and name in there:
                left, runs = name not in self.observed.connections, name in self.observed.sa_names
                yield self._change(
                    Part.CONNECTION,
                    name,
                    Kind.REMOVE,
                    (_LEFT_SAS if runs else _LEFT_TRAP) if left else NO_LONGER,
                    *self._exposed(name),
                    before=fields(flatten(self.record.messages.get(name, {}))),
                    disruption=Disruption.IKE_RESTART if runs or not left else Disruption.NONE,
                )

    def _unloaded_connection(self, name: str, message: Mapping[str, Any]) -> Change:
        """Return the creation of a connection that charon does not have; it may have had it before."""
        recorded, old = self.record.connections.get(name), self.record.messages.get(name)
        altered = recorded != self.record.digest("connection", message)
        reasons = (self.gone, *((ALTERED,) if altered else ()))
        if not recorded:
            reasons = (DECLARED if recorded is None else self._begun(name),)
        grade = Disruption.NONE if old is None else self._grade(name, message)
        after = fields(flatten(message))
        return self._change(Part.CONNECTION, name, Kind.CREATE, *reasons, after=after, disruption=grade)

    def _exposed(self, name: str) -> tuple[str, ...]:
        """Return as a reason what a connection held back when it was applied, and none will any more."""
        return not_held_any_more(self.record.messages.get(name, {}), self.kept)

    def _grade(self, name: str, message: Mapping[str, Any], *, unsure: bool = False) -> Disruption:
        """Return what must be done to the SAs of a connection, also for a change that was begun before.

        ``unsure``: nobody knows which configuration they hold, so they may have to be moved.
        """
        callable_ = name not in self.wanted.foreign or message.get("remote_addrs") != ["%any"]
        new_key = any(self._has_new_key(f"{prefix}{name}") for prefix in _PREFIXES)
        old = self.record.messages.get(name, {})
        if new_key and way(old, message) < Way.IKE and self._breaks_before_it_makes(message):
            callable_ = False
        new_key = new_key or unsure or name in self.record.renew
        grade = disruption(old, message, new_key=new_key, callable_=callable_)
        kept = name in self.outdated and not unsure and self._as_applied(name, message)
        return max(grade, Disruption.CHILD_RESTART) if kept or self._lost(name) else grade

    def _as_applied(self, name: str, message: Mapping[str, Any]) -> bool:
        return self.record.connections.get(name) == self.record.digest("connection", message)

    def _lost(self, name: str) -> tuple[str, ...]:
        """Return as reasons what is gone that charon believes to be there for a connection."""
        return kernel_reasons(self.lost, name) or ((_NO_ROUTES,) if name in self.unrouted else ())

    def _breaks_before_it_makes(self, message: Mapping[str, Any]) -> bool:
        """Whether this is an end that calls, with a charon that ends an IKE_SA to authenticate it anew.

        ``charon.make_before_break`` is on since 6.0.
        """
        return _calls(message) and self.observed.version.startswith(("4.", "5."))

    def _has_new_key(self, key: str) -> bool:
        """Whether a pre-shared key or PPK is to take the place of another one that charon has."""
        recorded = self.record.shared.get(key)
        return (
            key in self.wanted.shared
            and key in self.observed.shared
            and recorded is not None
            and recorded != self.record.digest(str(Part.SHARED), self.wanted.shared[key])
        )

    def _loaded_connection(self, name: str, message: Mapping[str, Any]) -> Iterator[Change]:
        recorded, drifted = self.record.connections[name], self._drifted(name)
        reasons: tuple[str, ...]
        begun = recorded == ""
        if begun:
            reasons = (self._begun(name),)
        elif not self._as_applied(name, message):
            by_hand = (BY_HAND,) if drifted else ()
            beside = trap_reasons(self.wanted, self.observed, name, self.record.messages.get(name, {}))
            beside += ended_reasons(self.wanted, self.observed, name)
            reasons = (*by_hand, ALTERED, *beside, *self._exposed(name))
        else:
            new = [why for prefix, why in _PREFIXES.items() if self._has_new_key(f"{prefix}{name}")]
            reasons = (*self._drift_of(name, drifted), *new)
        if not reasons:
            return  # the rule, and there may be thousands: what follows is for those that change
        before, after = differing(self.record.messages.get(name, {}), message)
        if begun and name not in self.record.kept:
            before, after = {}, flatten(message)
        elif BY_HAND in reasons and ALTERED not in reasons:
            before, after = departing(self.observed.connections[name], message)
        yield self._change(
            Part.CONNECTION,
            name,
            Kind.CHANGE,
            *reasons,
            before=fields(before),
            after=fields(after),
            disruption=self._grade(name, message, unsure=drifted),
        )

    def _begun(self, name: str) -> str:
        """Return why a connection that an earlier apply began to change is not as it was to be."""
        why = self.record.kept.get(name)
        if why is None:
            return CUT_OFF
        told = f" ({why})" if why else ""
        keeps = name in self.record.older(self.facts.charon) and name in self.observed.sa_names
        running = "; its SAs keep the configuration of before" if keeps else ""
        return NotCompleted(f"the last apply did not complete its change{told}{running}: it is tried again")

    def _drift_of(self, name: str, drifted: bool) -> tuple[str, ...]:
        """Return why a connection that is wanted as it was applied must be looked after all the same."""
        return (
            *((BY_HAND,) if drifted else ()),
            *((_NOT_RENEWED,) if name in self.record.renew else ()),
            *self._lost(name),
            *trap_reasons(self.wanted, self.observed, name, self.wanted.connections[name]),
            *(
                Drift(f"a running SA keeps another configuration: {why}")
                for why in self.outdated.get(name, ())
            ),
        )

    @cached_property
    def as_listed(self) -> bool:
        """Whether charon lists all that was applied to the byte as it did right afterwards."""
        listed = self.observed.connections
        return isinstance(listed, Listing) and self.record.lists(listed)

    def _drifted(self, name: str) -> bool:
        """Whether charon reports a connection otherwise than right after we loaded it."""
        seen = self.record.seen
        if seen.version != self.observed.version or name not in seen.connections or self.as_listed:
            return False  # another version may report the same in other words
        return seen.connections[name] != self.record.digest("seen", self.observed.connections[name])


def _peers(sas: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the far addresses of IKE_SAs (as ``list-sas`` sends them) that are established."""
    for message in sas:
        for sa in message.values():
            if isinstance(sa, Mapping) and sa.get("state") == "ESTABLISHED":
                yield str(sa.get("remote-host", ""))


def _calls(message: Mapping[str, Any]) -> bool:
    return any(child.get("start_action", "none") != "none" for child in message.get("children", {}).values())
