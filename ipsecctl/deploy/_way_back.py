"""What a gateway is to be sent and to remember so that it can go back: worked out before the first change.

charon does not tell its secrets, nor all of a connection. So the connections come from the record, which
holds them as they were sent, and keys and certificates from the gateway's own files, which only root can
read there. They go back to where they came from, into a file of the same rights.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ipsecctl.deploy.keys import NEXT, parse_shared
from ipsecctl.deploy.prepare import Prepared
from ipsecctl.desired import SYSCTL_FILE
from ipsecctl.errors import ApplyFailed
from ipsecctl.gateway import STATE_DIR, Armament, Handle, Observed, Record, Request
from ipsecctl.plan import GatewayPlan, Kind, Part, Wanted, sysctls
from ipsecctl.render import STRONGSWAN_FILE, SWANCTL_SECRETS_FILE

__all__ = ["armament_for"]

_ROUTER_FILE = f"{STATE_DIR}/router"
"""What the guard remembers of a host that it made a router."""

_SWANCTL = "/etc/swanctl/"
_SET = (Kind.CREATE, Kind.CHANGE)

_READ = r"""
while read -r path; do
    [ ! -f "$path" ] || printf '%s %s\n' "$path" "$(base64 -w0 <"$path")"
done
"""


async def armament_for(
    prepared: Prepared, name: str, token: str, owner: str, members: tuple[str, ...], within_s: int
) -> Armament:
    """Return what a gateway needs to go back from its plan.

    Raises ``ApplyFailed`` when a key that is about to be replaced cannot be read from its files, and
    ``GatewayUnreachable``.
    """
    plan = next(plan for plan in prepared.plans if plan.gateway == name)
    wanted, observed = prepared.wanted[name], prepared.observed[name]
    record = observed.facts.record or Record.fresh()
    files = await _files(prepared.handles[name], record)
    shared = parse_shared(files.get(SWANCTL_SECRETS_FILE, b"").decode("utf-8", "replace"))
    lost = {c.name for c in plan.of(Part.SHARED, Kind.CHANGE)} & observed.shared & record.shared.keys()
    if lost := lost - shared.keys():
        raise ApplyFailed(
            f"{name}: {', '.join(sorted(lost))}: the present key is not in its {SWANCTL_SECRETS_FILE}, "
            "so it could not be brought back",
            "Apply without --confirm; its file is then right again.",
        )
    settings = sysctls(wanted.files[SYSCTL_FILE].content) if SYSCTL_FILE in wanted.files else {}
    return Armament(
        token=token,
        owner=owner,
        members=members,
        within_s=within_s,
        paths=tuple(sorted({*record.files, *wanted.files, _ROUTER_FILE})),
        settings=tuple(settings),
        tunnels=tuple(
            (change.name, child)
            for change in plan.of(Part.CONNECTION)
            for child in record.messages.get(change.name, {}).get("children", {})
        ),
        load=tuple(_load(plan, record, files, shared)),
        drop=tuple(_drop(plan, record, wanted, observed)),
        begun=_begun(record, plan).to_json() if observed.facts.record else None,
    )


async def _files(handle: Handle, record: Record) -> dict[str, bytes]:
    """Return the files of a gateway that charon would be given again: keys and certificates, by path."""
    if not record.files:
        return {}
    targets = [f"{_SWANCTL}{target}" for target in (*record.certificates, *record.keys)]
    asked = "".join(f"{path}\n" for path in (SWANCTL_SECRETS_FILE, *targets)).encode()
    completed = await handle.run(("sh", "-c", _READ, "read"), asked)
    if completed.status != 0:
        raise ApplyFailed(f"{handle.name}: its keys cannot be read: {completed.error}")
    pairs = (line.rpartition(" ") for line in completed.stdout.decode("utf-8", "replace").splitlines())
    return {path: base64.b64decode(content) for path, _, content in pairs}


def _load(
    plan: GatewayPlan,
    record: Record,
    files: Mapping[str, bytes],
    shared: Mapping[str, Mapping[str, Any]],
) -> Iterator[Request]:
    """Yield what brings charon back to what it has now, in the order of an apply.

    All of it, and not only what the plan changes: charon may have been restarted meanwhile and have read the
    new files. What it has already, it keeps as it is.
    """
    if any(change.name == STRONGSWAN_FILE for change in plan.of(Part.FILE)):
        yield Request("reload-settings", {})
    for target in record.certificates:
        if content := files.get(f"{_SWANCTL}{target}"):
            flag = "CA" if target.startswith("x509ca/") else "NONE"
            yield Request("load-cert", {"type": "X509", "flag": flag, "data": content})
    for target in record.keys:
        if content := files.get(f"{_SWANCTL}{target}"):
            yield Request("load-key", {"type": "any", "data": content})
    for name, message in shared.items():
        if name in record.shared:
            yield Request("load-shared", message)
    for name, message in record.messages.items():
        yield Request("load-conn", {name: revived(message)})


def _drop(plan: GatewayPlan, record: Record, wanted: Wanted, observed: Observed) -> Iterator[Request]:
    """Yield what takes from charon what is new, and ends the SAs that may have the new configuration."""
    new = wanted.connections.keys() - record.messages.keys() - observed.connections.keys()
    for name in sorted(new):
        yield Request("unload-conn", {"name": name})
    for name in sorted(wanted.shared.keys() - record.shared.keys() - observed.shared):
        yield Request("unload-shared", {"id": name})
    for change in plan.of(Part.SHARED, Kind.CHANGE):
        yield Request("unload-shared", {"id": f"{change.name}{NEXT}"})
    for change in plan.of(Part.CONNECTION):
        yield Request("terminate", {"ike": change.name, "force": "yes", "timeout": "-1"})


def revived(value: Any) -> Any:
    """Return a message as it was sent from what the record's JSON has of it."""
    if isinstance(value, Mapping):
        if value.keys() == {"bytes"}:
            return bytes.fromhex(value["bytes"])
        return {name: revived(each) for name, each in value.items()}
    return [revived(each) for each in value] if isinstance(value, list) else value


def _begun(record: Record, plan: GatewayPlan) -> Record:
    """Return the record that stands while a gateway goes back: what the plan changes has no digest in it."""

    def begun(part: Part, digests: Mapping[str, str]) -> dict[str, str]:
        return {**digests, **{change.name: "" for change in plan.of(part, *_SET)}}

    return replace(
        record,
        files=begun(Part.FILE, record.files),
        connections=begun(Part.CONNECTION, record.connections),
        shared=begun(Part.SHARED, record.shared),
        certificates=begun(Part.CERTIFICATE, record.certificates),
        interfaces=begun(Part.INTERFACE, record.interfaces),
        seen=replace(record.seen, firewall="" if plan.of(Part.FIREWALL) else record.seen.firewall),
    )
