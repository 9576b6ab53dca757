"""Carry a plan out on one gateway.

In this order: the record of what is begun and the files; interfaces, routes, firewall and sysctls; charon's
restart where the plan has one; credentials; connections; then what is no longer wanted, the other way round;
last the record of what was done. Cut off anywhere, the record names all that is ours, and the next apply goes
on from there.

Where SAs are to be moved (deploy/move.py) there is a break in it, for all gateways to come as far: ``begin``
widens (it loads what accepts the old and the new, keys included), the SAs move, and ``finish`` narrows. A
connection that calls waits for ``finish``, too, where the far end has still to load what it answers with.

Where charon does not run, the host's part is done alone: files, interfaces, routes, firewall, sysctls, unit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from ipsecctl.deploy._way_back import revived
from ipsecctl.deploy.activate import activate, in_the_way, retire
from ipsecctl.deploy.keys import NEXT, old_keys
from ipsecctl.errors import ApplyFailed, ViciRefused
from ipsecctl.gateway import (
    RECORD_PATH,
    Handle,
    NewFile,
    Observed,
    Record,
    Seen,
    StartUp,
    ike_sas,
    list_connections,
    list_traps,
    restart_charon,
    write_files,
)
from ipsecctl.patience import PATIENCE
from ipsecctl.plan import (
    GONE,
    SHARED_PREFIX,
    Disruption,
    GatewayPlan,
    Kind,
    Part,
    Wanted,
    device_gone,
    file_entry,
    interface_text,
    may_restart,
    restart_for,
    start_up,
    traps_of,
    undeclared_sas,
    unrouted,
)
from ipsecctl.render import STRONGSWAN_FILE
from ipsecctl.vici import Client, Listing

__all__ = ["Carrier", "remember"]

_NOTHING_HELD: Mapping[str, Mapping[str, Any] | None] = MappingProxyType({})
_NO_WHY: Mapping[str, str] = MappingProxyType({})
_SET = (Kind.CREATE, Kind.CHANGE)
_GONE_WITHIN_MS = "1000"


async def remember(handle: Handle, wanted: Wanted, observed: Observed) -> None:
    """Write down what was found out about a gateway on which there is nothing else to do.

    So the next plan need not ask again. Raises as ``Carrier.begin`` does.
    """
    record = observed.facts.record
    if observed.charon_down is not None:
        return  # what it can do was not asked
    if record is not None and (record.means != wanted.means or record.trials != wanted.trials):
        known = replace(record, means=wanted.means, trials=wanted.trials)
        await write_files(handle, [NewFile(RECORD_PATH, known.to_json(), 0o600)])


class Carrier:
    """Carries a plan out on one gateway, in two halves where SAs are to be moved between them.

    ``held`` are the connections that must wait for that, with what charon has until then: one that accepts
    the old and the new, or ``None`` for what it has. ``later`` are those that call, and wait until the far
    end has its own: their SAs are made anew after that.
    """

    def __init__(
        self,
        handle: Handle,
        plan: GatewayPlan,
        wanted: Wanted,
        observed: Observed,
        held: Mapping[str, Mapping[str, Any] | None] = _NOTHING_HELD,
        later: Collection[str] = (),
    ) -> None:
        self.handle = handle
        self.plan = plan
        self.wanted = wanted
        self.observed = observed
        self.held = held
        self.later = frozenset(later)
        self.record = observed.facts.record or Record.fresh()
        if observed.charon_down is not None:
            self.record = _foreseeing(self.record, wanted)
        self.start_up = start_up(wanted, observed)
        self.restarted = False
        self.firewall: str | None = None
        self.old_keys: Mapping[str, Mapping[str, Any]] = {}
        self.key_ids: dict[str, str] = {}
        self.refused: dict[tuple[Part, str], str] = {}
        self.released: set[str] = set()
        """Connections that were held back and not moved: their SAs are ended and made anew."""

    async def begin(self) -> Record | None:
        """Do all that may be done before SAs are moved; return the record if that was all, else ``None``.

        Raises ``ApplyFailed`` with all that charon refused (the rest is done and recorded), or with the first
        other thing that failed; ``GatewayUnreachable`` and ``ViciError`` when the gateway or its charon went
        away.
        """
        if self._held_keys():
            self.old_keys = await old_keys(self.handle, self.wanted.shared, self.record)
        await self._write_files()
        links = self.observed.facts.ways.links
        first = in_the_way(self.plan, self.wanted.interfaces, links)
        self.firewall = await activate(self.handle, self.plan, first)
        if self.observed.charon_down is not None:
            return await self._finish_host(self.firewall)
        if self.plan.of(Part.CHARON):
            await self._restart()
        async with self.handle.vici(timeout_s=30.0 * PATIENCE) as client:
            await self._load(client)
            if (self.held or self.later) and not self.refused:
                return None
            return await self.finish(client, frozenset())

    async def prefer_new_keys(self, client: Client, tunnels: Collection[str]) -> None:
        """Have charon authenticate itself with the new keys of ``tunnels``; it still accepts the old ones.

        It takes the first of several that fit, and what was loaded last stands first (``mem_cred_t``).
        """
        for name in self._held_keys():
            if name.removeprefix(SHARED_PREFIX) in tunnels:
                await self._load_next_key(client, name)

    async def release(self, client: Client, tunnels: Collection[str]) -> None:
        """Load connections that were held back, as they are to be."""
        later = self.later & {*tunnels}
        names = (self.held.keys() & {*tunnels}) | later
        self.released |= names
        await self._let_go_of_routes(client, names)
        for name in sorted(names):
            await self.load(client, name)
        await self._settle_traps(client, names)
        self.held, self.later = {**self.held, **dict.fromkeys(later)}, self.later - later

    @property
    def waiting(self) -> frozenset[str]:
        """The connections that are held back."""
        return self.later | self.held.keys()

    async def back(self, client: Client, tunnels: Collection[str]) -> None:
        """Have charon again what it had for ``tunnels`` that were held back: their far ends have gone back.

        What accepts the old and the new goes on accepting both, and the old key is preferred again.
        """
        for name in sorted(self.held.keys() & {*tunnels}):
            wide, old = self.held[name], self.record.messages.get(name)
            if wide is not None or old is not None:
                message = wide if wide is not None else revived(old)
                await self._command(client, Part.CONNECTION, name, "load-conn", {name: message})
            key = f"{SHARED_PREFIX}{name}"
            if key in self._held_keys():
                await self._widen_key(client, key)

    async def load(self, client: Client, name: str) -> str:
        """Load a connection as it is to be; return what charon said against it, "" for nothing."""
        if name in self.wanted.connections:
            await self._end_undeclared(client, (name,))
            message = {name: self.wanted.connections[name]}
            await self._command(client, Part.CONNECTION, name, "load-conn", message)
        return self.refused.get((Part.CONNECTION, name), "")

    async def finish(
        self, client: Client, moved: Collection[str], why: Mapping[str, str] = _NO_WHY
    ) -> Record:
        """Withdraw what is no longer wanted and write down what was done; ``moved`` are the connections whose
        SAs have the new configuration, or may be made anew with it. The others that were held back stay as
        they are, and begun; ``why`` says of what reason, where that is known.

        Raises as ``begin`` does.
        """
        await self._let_go_of_routes(client, self.later & {*moved})
        for name in sorted((self.held.keys() | self.later) & {*moved}):
            await self.load(client, name)
        await self._narrow_keys(client, moved)
        if not self.restarted:  # a fresh one has nothing that is no longer in our files
            await self._unload(client)
        left_as_they_are = (self.held.keys() | self.later) - {*moved}
        ours = self.wanted.connections.keys() | self.record.connections.keys()
        await self._settle_traps(client, ours - left_as_they_are)
        connections = await list_connections(client)
        left = await retire(self.handle, self.plan)
        firewall = self.firewall if left is None else left
        loaded = self.observed.facts.firewall if firewall is None else firewall
        record = await self._finish(loaded, connections, moved, why)
        if self.refused:
            raise ApplyFailed(f"{self.handle.name}: " + "; ".join(self.refused.values()))
        return record

    # -------------------------------------------------------------------------------------------------- files

    async def _write_files(self) -> None:
        names = [change.name for change in self.plan.of(Part.FILE, *_SET)]
        files = [NewFile(RECORD_PATH, self._begun().to_json(), 0o600)]
        files += [self.wanted.files[name] for name in names]
        await write_files(self.handle, files, [c.name for c in self.plan.of(Part.FILE, Kind.REMOVE)])

    def _begun(self) -> Record:
        """Return the record to stand while we are at work: what is about to change has no digest."""

        def begun(part: Part, digests: Mapping[str, str]) -> dict[str, str]:
            return {**digests, **{change.name: "" for change in self.plan.of(part, *_SET)}}

        # Were we cut off before nft has read the new file, nothing but this would tell that it must.
        firewall = "" if self.plan.of(Part.FIREWALL) else self.record.seen.firewall
        return replace(
            self.record,
            topology=self.wanted.topology,
            files=begun(Part.FILE, self.record.files),
            connections=begun(Part.CONNECTION, self.record.connections),
            shared=begun(Part.SHARED, self.record.shared) | {f"{n}{NEXT}": "" for n in self._held_keys()},
            certificates=begun(Part.CERTIFICATE, self.record.certificates),
            interfaces=begun(Part.INTERFACE, self.record.interfaces),
            seen=replace(self.record.seen, firewall=firewall),
            start_up=self.start_up,
            renew=self._renew(),
            kept={},
        )

    def _renew(self) -> tuple[str, ...]:
        """Return the connections whose SAs have an earlier configuration; ``apply`` strikes out what was
        made anew."""
        disturbed = {n for n, grade in self.plan.disturbed.items() if grade >= Disruption.REKEY}
        return tuple(sorted(({*self.record.renew} | disturbed) & self.wanted.connections.keys()))

    async def _restart(self) -> None:
        """Restart charon, unless somebody uses it by now: then the need for it is left pending."""
        async with self.handle.vici(timeout_s=10.0 * PATIENCE) as client:
            total = ike_sas(await client.command("stats"))
            loaded = await list_connections(client)
        now = replace(self.observed, ike_sas=total, connections=loaded)
        gone = device_gone(self.wanted, self.observed)
        if not may_restart(now, cut_off=gone):
            return
        for_what = ", ".join((*restart_for(self.start_up), *((GONE,) if gone else ())))
        charon = await restart_charon(self.handle, self.observed.facts.restart_command, for_what)
        self.start_up = StartUp(charon, self.start_up.written, self.start_up.written)
        self.restarted = True
        self.held, self.later = {}, frozenset()  # it has no SA, and nothing old

    # --------------------------------------------------------------------------------------------------- VICI

    async def _load(self, client: Client) -> None:
        if any(change.name == STRONGSWAN_FILE for change in self.plan.of(Part.FILE)):
            await client.command("reload-settings")
        for name in self._names(Part.CERTIFICATE):
            await self._command(client, Part.CERTIFICATE, name, "load-cert", self.wanted.certificates[name])
        for name in self._names(Part.KEY):
            answer = await self._command(client, Part.KEY, name, "load-key", self.wanted.keys[name])
            self.key_ids[name] = answer.get("id", "")
        held, names = self._held_keys(), self._names(Part.SHARED)
        for name in held:
            await self._widen_key(client, name)
        keys = {name: self.wanted.shared[name] for name in names if name not in held}
        await self._commands(client, Part.SHARED, "load-shared", keys)
        names = [name for name in self._names(Part.CONNECTION) if name not in self.later]
        await self._let_go_of_routes(client, {*names} - self.waiting)
        await self._end_undeclared(client, {*names} - self.waiting)
        now = {name: self.held.get(name, self.wanted.connections.get(name)) for name in names}
        connections = {name: {name: message} for name, message in now.items() if message is not None}
        await self._commands(client, Part.CONNECTION, "load-conn", connections)

    def _held_keys(self) -> tuple[str, ...]:
        """Return the shared keys that take the place of others, of connections that are held back."""
        changed = {change.name for change in self.plan.of(Part.SHARED, Kind.CHANGE)}
        return tuple(sorted(changed & {f"{SHARED_PREFIX}{name}" for name in self.held}))

    async def _widen_key(self, client: Client, name: str) -> None:
        """Have charon accept a new key, and go on authenticating itself with the old one where it is known.

        The far end may not have the new one yet. Of keys that fit, what was loaded last comes first.
        """
        await self._load_next_key(client, name)
        if name in self.old_keys:
            await self._command(client, Part.SHARED, name, "load-shared", self.old_keys[name])

    async def _load_next_key(self, client: Client, name: str) -> None:
        key = {**self.wanted.shared[name], "id": f"{name}{NEXT}"}
        await self._command(client, Part.SHARED, name, "load-shared", key)

    async def _narrow_keys(self, client: Client, moved: Collection[str]) -> None:
        """Let new keys take the place of old ones; one whose SAs could not be moved stays beside it."""
        for name in self._held_keys():
            if name.removeprefix(SHARED_PREFIX) in moved:
                await self._command(client, Part.SHARED, name, "load-shared", self.wanted.shared[name])
                with suppress(ViciRefused):  # somebody cleared it, which is what is wanted
                    await client.command("unload-shared", {"id": f"{name}{NEXT}"})

    async def _let_go_of_routes(self, client: Client, names: Collection[str]) -> None:
        """Make kernel-libipsec forget policies whose routes are gone: it sets a route with its policy only.

        The policy goes with its last user: the trap of the connection, and its CHILD_SAs. Loading the
        connection again brings the trap back, and the route with it.
        """
        if self.restarted or not names:
            return  # a fresh one has neither
        for name in sorted(unrouted(self.wanted, self.observed) & {*names}):
            with suppress(ViciRefused):  # gone meanwhile, which is what is wanted
                await client.command("unload-conn", {"name": name})
            with suppress(ViciRefused):
                # Awaited, unlike elsewhere: the SAs must be gone before the trap is back.
                await client.command("terminate", {"ike": name, "force": "yes", "timeout": _GONE_WITHIN_MS})

    async def _end_undeclared(self, client: Client, names: Collection[str]) -> None:
        """End the CHILD_SAs that stand in the way of declared ones, and their traps (``undeclared_sas``)."""
        for name in () if self.restarted else sorted(names):
            strays = undeclared_sas(self.wanted, self.observed, name)
            await self._uninstall(client, name, sorted({child for child, _ in strays}))
            for _, unique_id in strays:
                message = {"child-id": unique_id, "force": "yes", "timeout": _GONE_WITHIN_MS}
                with suppress(ViciRefused):  # gone meanwhile, which is what is wanted
                    await client.command("terminate", message)

    async def _settle_traps(self, client: Client, names: Collection[str]) -> None:
        """Have charon wait for packets of the children that are declared, and of no others, of ``names``.

        Loading does not see to that where a child has another name and is the same otherwise
        (gateway/traps.py). A new trap comes first, so that the policies, and routes, that it shares with the
        old one are there all the time.
        """
        if not names:
            return
        there = await list_traps(client)
        for name in sorted(names):
            if (Part.CONNECTION, name) in self.refused:
                continue
            traps = traps_of(self.wanted, self.observed, name, there.get(name, frozenset()))
            for child in traps.missing:
                with suppress(ViciRefused):  # the next plan finds it missing
                    await client.command("install", {"child": child, "ike": name})
            await self._uninstall(client, name, traps.stray)

    async def _uninstall(self, client: Client, name: str, children: Iterable[str]) -> None:
        for child in children:
            with suppress(ViciRefused):  # it has none, which is what is wanted
                await client.command("uninstall", {"child": child, "ike": name})

    async def _unload(self, client: Client) -> None:
        for change in self.plan.of(Part.CONNECTION, Kind.REMOVE):
            beside_it = self.observed.sa_names | (self.observed.traps or {}).keys()
            left = change.name in beside_it - self.observed.connections.keys()
            if not left:
                await self._command(
                    client, Part.CONNECTION, change.name, "unload-conn", {"name": change.name}
                )
            with suppress(ViciRefused):  # it has no SA
                await client.command("terminate", {"ike": change.name, "timeout": "-1"})
        beside = {f"{name}{NEXT}" for name in self._held_keys()}
        for change in self.plan.of(Part.SHARED, Kind.REMOVE):
            if change.name in beside:
                continue
            await self._command(client, Part.SHARED, change.name, "unload-shared", {"id": change.name})

    def _names(self, part: Part) -> list[str]:
        """Return what is to be loaded: what the plan says, or everything where charon is a fresh one."""
        if self.restarted:
            wanted: dict[Part, Mapping[str, Any]] = {
                Part.CERTIFICATE: self.wanted.certificates,
                Part.KEY: self.wanted.keys,
                Part.SHARED: self.wanted.shared,
                Part.CONNECTION: self.wanted.connections,
            }
            return sorted(wanted[part])
        return [change.name for change in self.plan.of(part, *_SET)]

    async def _command(
        self, client: Client, part: Part, name: str, command: str, message: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Send a command; what charon refuses is remembered and does not stop the rest."""
        try:
            return await client.command(command, message)
        except ViciRefused as exc:
            self._refused(part, name, exc)
            return {}

    async def _commands(
        self, client: Client, part: Part, command: str, messages: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Send a command for each of many objects, some ahead of their answers."""
        answers = await client.commands(command, tuple(messages.values()))
        for name, answer in zip(messages, answers, strict=True):
            if isinstance(answer, ViciRefused):
                self._refused(part, name, answer)

    def _refused(self, part: Part, name: str, exc: ViciRefused) -> None:
        self.refused[part, name] = f"{part} '{name}': {exc.summary}"

    # ------------------------------------------------------------------------------------------------- record

    async def _finish(
        self,
        firewall: str,
        connections: Mapping[str, Any],
        moved: Collection[str],
        why: Mapping[str, str],
    ) -> Record:
        """Write down what was done; what charon refused, and what was not moved, stays "begun", so that the
        next apply tries again."""
        key, wanted, waiting = self.record, self.wanted, (self.held.keys() | self.later) - {*moved}
        beside = [name for name in self._held_keys() if name.removeprefix(SHARED_PREFIX) in waiting]
        loaded = [name for name in wanted.connections if name in connections]

        def digests(part: Part, objects: Mapping[str, Any]) -> dict[str, str]:
            done = {name: key.digest(str(part), value) for name, value in objects.items()}
            return done | {name: "" for refused, name in self.refused if refused is part}

        keys = digests(Part.KEY, wanted.keys)
        record = replace(
            self.record,
            topology=wanted.topology,
            files=self._file_digests(),
            connections=digests(Part.CONNECTION, wanted.connections) | dict.fromkeys(waiting, ""),
            shared=digests(Part.SHARED, wanted.shared)
            | {key: "" for name in beside for key in (name, f"{name}{NEXT}")},
            certificates=digests(Part.CERTIFICATE, wanted.certificates),
            keys={name: (self._key_id(name), keys[name]) for name in wanted.keys},
            messages=self._sent(waiting),
            interfaces=self._interfaces(),
            means=wanted.means,
            trials=wanted.trials,
            seen=Seen(
                version=self.observed.version,
                connections=self._seen(connections, loaded),
                firewall=firewall,
            ),
            start_up=self.start_up,
            renew=tuple(n for n in self._renew() if n not in self.held or n in {*waiting, *self.released}),
            kept={name: why.get(name, "") for name in sorted(waiting)},
            listed=key.digest_listed(connections, loaded) if isinstance(connections, Listing) else "",
        )
        await write_files(self.handle, [NewFile(RECORD_PATH, record.to_json(), 0o600)])
        return record

    async def _finish_host(self, firewall: str | None) -> Record:
        """Write down what was done to the host; all of charon's part stays as it was recorded."""
        record = replace(
            self._begun(),
            files={**self.record.files, **self._file_digests()},
            interfaces={**self.record.interfaces, **self._interfaces()},
            seen=replace(
                self.record.seen, firewall=self.record.seen.firewall if firewall is None else firewall
            ),
        )
        await write_files(self.handle, [NewFile(RECORD_PATH, record.to_json(), 0o600)])
        return record

    def _seen(self, connections: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
        """Return the digests of what charon reports of connections: of what is as it was, as they were."""
        record, before, known = self.record, self.observed.connections, {}
        if isinstance(connections, Listing) and isinstance(before, Listing) and record.lists(before):
            known = {n: d for n, d in record.seen.connections.items() if connections.same(n, before)}
        return {name: known.get(name) or record.digest("seen", connections[name]) for name in names}

    def _file_digests(self) -> dict[str, str]:
        return {
            path: self.record.digest("file", file_entry(sha256(file.content).hexdigest(), file.mode))
            for path, file in self.wanted.files.items()
        }

    def _interfaces(self) -> dict[str, str]:
        return {name: interface_text(interface) for name, interface in self.wanted.interfaces.items()}

    def _sent(self, waiting: Collection[str]) -> dict[str, Mapping[str, Any]]:
        """Return the connections as their SAs have them: of one that charon refused, or whose SAs could not
        be moved, what it was before."""
        old = self.record.messages
        before = {name for part, name in self.refused if part is Part.CONNECTION} | {*waiting}
        return {n: m for n, m in self.wanted.connections.items() if n not in before} | {
            name: old[name] for name in before if name in old
        }

    def _key_id(self, name: str) -> str:
        return self.key_ids.get(name) or self.record.keys.get(name, ("", ""))[0]


def _foreseeing(record: Record, wanted: Wanted) -> Record:
    """Return a record for a charon that will load our files when it starts: what it then has is ours.

    What it does not have yet as wanted has no digest, so that the next apply loads it.
    """

    def begun(kind: Part, recorded: Mapping[str, str], objects: Mapping[str, Any]) -> dict[str, str]:
        changed = {n for n, value in objects.items() if recorded.get(n) != record.digest(str(kind), value)}
        return {**recorded, **dict.fromkeys(sorted(changed), "")}

    return replace(
        record,
        connections=begun(Part.CONNECTION, record.connections, wanted.connections),
        shared=begun(Part.SHARED, record.shared, wanted.shared),
    )
