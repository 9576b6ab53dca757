"""What is on a gateway: all of it for a plan, or what lives there for a status."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_network
from typing import Any

from ipsecctl.desired import FIREWALL_FILE, GUARD_UNIT, SYSCTL_FILE
from ipsecctl.errors import ApplyFailed, GatewayUnreachable, ViciError, ViciRefused
from ipsecctl.gateway.handle import Completed, Handle
from ipsecctl.gateway.names import NFT_TABLE, RECORD_PATH, ROUTE_PROTOCOL, VICI_SOCKETS
from ipsecctl.gateway.record import Record
from ipsecctl.topology import DataPath
from ipsecctl.vici import Client, Message

__all__ = [
    "Facts",
    "FileSeen",
    "Guard",
    "LiveView",
    "Observed",
    "list_connections",
    "look",
    "look_at_guard",
    "observe",
    "parse_facts",
]


@dataclass(frozen=True, slots=True)
class FileSeen:
    """A regular file on a gateway: the SHA-256 of its content in hexadecimal, and its permission bits."""

    sha256: str
    mode: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What one round trip to a gateway's shell tells.

    ``files`` has those where ours could be, by path. ``firewall`` is the SHA-256 of our table as nft lists
    it, "" when it is not there. ``sysctls`` has the running value of each setting in our file, ``routes`` the
    lines of the routes that lead nowhere. ``charon`` tells one start of charon from the next: inode and
    time of its VICI socket, "" when there is none. ``unit`` is what systemd says of our unit (``systemctl
    is-enabled`` and ``is-active``), ``None`` where no systemd runs. ``record_sha256`` is the record's as it
    lies there, that of nothing without one.
    """

    files: Mapping[str, FileSeen] = field(default_factory=dict)
    record: Record | None = None
    firewall: str = ""
    sysctls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    routes: frozenset[str] = frozenset()
    charon: str = ""
    unit: tuple[str, str] | None = None
    record_sha256: str = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is on a gateway and could concern a plan.

    ``connections`` is by name as ``list-conns`` reports them; ``shared`` are the ids of shared keys, ``keys``
    those of private keys; ``certificates`` the SHA-256 of the DER of X.509 certificates, in hexadecimal
    digits.
    """

    gateway: str
    version: str
    data_path: DataPath
    connections: Mapping[str, Message]
    shared: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    facts: Facts = field(default_factory=Facts)


class Guard(StrEnum):
    """Whether our firewall table is in force on a gateway, as it was when it was last applied."""

    LOADED = "loaded"
    ALTERED = "altered"
    MISSING = "missing"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class LiveView:
    """What lives on a gateway at one moment.

    ``sas`` are charon's IKE_SAs as ``list-sas`` sends them, in its order; ``connections`` the names of those
    that are loaded. ``forwarding`` says whether the kernel forwards packets of each family that our settings
    name, ``None`` where that is not known.
    """

    gateway: str
    version: str
    sas: tuple[Message, ...]
    connections: frozenset[str] = frozenset()
    guard: Guard = Guard.UNKNOWN
    forwarding: bool | None = None


async def observe(handle: Handle, *, timeout_s: float = 20.0) -> Observed:
    """Return all that a plan needs to know of a gateway, in two round trips side by side.

    Raises ``GatewayUnreachable`` (``charon_down`` when it is only charon that is missing) or ``ApplyFailed``
    when it can be reached and not be read, as without root's rights.
    """
    try:
        async with asyncio.TaskGroup() as group:
            facts = group.create_task(_facts(handle, timeout_s))
            charon = group.create_task(_charon(handle, timeout_s))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # both say the same when it is the gateway that is gone
    return Observed(gateway=handle.name, facts=facts.result(), **charon.result())


async def look(handle: Handle, *, timeout_s: float = 4.0) -> LiveView:
    """Return what lives on a gateway; it never waits for an IKE_SA that is busy.

    Raises ``GatewayUnreachable`` when there is no answer of charon's within ``timeout_s`` seconds in all. The
    firewall and what is forwarded are looked at side by side with it, and are "not known" when that fails.
    """
    try:
        async with asyncio.TaskGroup() as group:
            guard = group.create_task(look_at_guard(handle, timeout_s=timeout_s))
            charon = group.create_task(_live(handle, timeout_s))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    version, sas, connections = charon.result()
    return LiveView(handle.name, version, sas, connections, *guard.result())


async def _live(handle: Handle, timeout_s: float) -> tuple[str, tuple[Message, ...], frozenset[str]]:
    """Return charon's version, its IKE_SAs, and the names of its connections."""
    try:
        # The limit of a single answer is the shorter one: it knows better what did not come.
        async with asyncio.timeout(timeout_s), handle.vici(timeout_s=0.9 * timeout_s) as client:
            version = await client.command("version")
            sas = await client.stream("list-sas", "list-sa", {"noblock": "yes"})
            connections = await client.stream("list-conns", "list-conn")
    except TimeoutError:
        raise GatewayUnreachable(handle.name, f"no answer within {timeout_s:g} s") from None
    except (ViciError, ViciRefused) as exc:
        raise GatewayUnreachable(handle.name, exc.summary, exc.hint) from exc
    names = frozenset(name for message in connections for name in message)
    return version.get("version", ""), tuple(sas), names


# "absent" is said only when nft works and has no such table.
_GUARD = r"""
LC_ALL=C; export LC_ALL
[ ! -r "$1" ] || printf 'record %s\n' "$(base64 -w0 <"$1")"
if table=$(nft -s list table "$2" "$3" 2>/dev/null); then
    printf 'firewall %s\n' "$(printf '%s' "$table" | sha256sum | cut -d' ' -f1)"
elif nft list tables >/dev/null 2>&1; then
    echo absent
fi
printf 'forwarding %s\n' "$(cat /proc/sys/net/ipv4/ip_forward)"
if grep -q '^net\.ipv6\.conf\.all\.forwarding *= *1' "$4" 2>/dev/null; then
    printf 'forwarding %s\n' "$(cat /proc/sys/net/ipv6/conf/all/forwarding)"
fi
exit 0
"""


async def look_at_guard(handle: Handle, *, timeout_s: float = 4.0) -> tuple[Guard, bool | None]:
    """Return what became of the firewall that was applied, and whether packets are forwarded.

    It needs no charon. What cannot be seen, also of a gateway that cannot be reached, is not known.
    """
    argv = ("sh", "-c", _GUARD, "guard", RECORD_PATH, *NFT_TABLE, SYSCTL_FILE)
    try:
        async with asyncio.timeout(timeout_s):
            completed = await handle.run(argv, timeout_s=0.9 * timeout_s)
        return parse_guard(completed.stdout.decode("utf-8", "replace").splitlines())
    except (GatewayUnreachable, TimeoutError, ValueError):
        return Guard.UNKNOWN, None


def parse_guard(lines: Iterable[str]) -> tuple[Guard, bool | None]:
    """Return what the script's answer means. Raises ``ValueError`` when the record in it is not ours."""
    found: dict[str, list[str]] = {}
    for line in lines:
        kind, _, rest = line.partition(" ")
        found.setdefault(kind, []).append(rest)
    values = found.get("forwarding", [])
    forwarding = all(value == "1" for value in values) if values and all(values) else None
    record = Record.from_json(base64.b64decode(found["record"][0])) if "record" in found else None
    if record is None or FIREWALL_FILE not in record.files:
        return Guard.UNKNOWN, forwarding
    if "absent" in found:
        return Guard.MISSING, forwarding
    if "firewall" not in found:
        return Guard.UNKNOWN, forwarding
    as_applied = found["firewall"][0] == record.seen.firewall
    return Guard.LOADED if as_applied else Guard.ALTERED, forwarding


async def _charon(handle: Handle, timeout_s: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(timeout_s), handle.vici(timeout_s=0.4 * timeout_s) as client:
            version = await client.command("version")
            stats = await client.command("stats")
            libipsec = "kernel-libipsec" in stats.get("plugins", [])
            return {
                "version": version.get("version", ""),
                "data_path": DataPath.LIBIPSEC if libipsec else DataPath.KERNEL,
                "connections": await list_connections(client),
                "shared": frozenset((await client.command("get-shared")).get("keys", [])),
                "keys": frozenset((await client.command("get-keys")).get("keys", [])),
                "certificates": await _certificates(client),
            }
    except TimeoutError:
        raise GatewayUnreachable(
            handle.name, f"charon took longer than {timeout_s:g} s to tell all"
        ) from None
    except (ViciError, ViciRefused) as exc:
        raise GatewayUnreachable(handle.name, exc.summary, exc.hint) from exc


async def list_connections(client: Client) -> dict[str, Message]:
    """Return all loaded connections by name, as ``list-conns`` reports them."""
    return {
        name: connection
        for message in await client.stream("list-conns", "list-conn")
        for name, connection in message.items()
    }


async def _certificates(client: Client) -> frozenset[str]:
    listed = await client.stream("list-certs", "list-cert", {"type": "X509"}, raw=True)
    return frozenset(hashlib.sha256(c["data"]).hexdigest() for c in listed if "data" in c)


_FACTS = r"""
LC_ALL=C; export LC_ALL
[ "$(id -u)" = 0 ] || { echo "root's rights are needed" >&2; exit 1; }
[ ! -f "$1" ] || printf 'record %s\n' "$(base64 -w0 <"$1")"
ours() {
    find /etc/swanctl /etc/strongswan.d /etc/ipsecctl /etc/sysctl.d /etc/systemd/system -type f \
        \( -name 'ipsecctl*' -o -name '*-ipsecctl.conf' -o -path '/etc/ipsecctl/*' \) "$@" 2>/dev/null
}
ours -printf 'mode %m %p\n'
ours -exec sha256sum {} + | sed 's/^/sha256 /'
if table=$(nft -s list table "$2" "$3" 2>/dev/null); then
    printf 'firewall %s\n' "$(printf '%s' "$table" | sha256sum | cut -d' ' -f1)"
fi
for file in /etc/sysctl.d/*-ipsecctl.conf; do
    [ -f "$file" ] || continue
    sed -n 's/^\([a-z][^ =]*\) *=.*/\1/p' "$file" | while read -r key; do
        for value in /proc/sys/$(printf '%s' "$key" | tr . /); do
            [ ! -f "$value" ] || printf 'sysctl %s %s\n' "$key" "$(tr -s '[:blank:]' ' ' <"$value")"
        done
    done
done
for family in -4 -6; do
    ip $family route show table all proto "$4" 2>/dev/null | sed -n 's/^unreachable \([^ ]*\).*/route \1/p'
done
if [ -d /run/systemd/system ]; then
    enabled=$(systemctl is-enabled "$5" 2>/dev/null) active=$(systemctl is-active "$5" 2>/dev/null)
    printf 'unit %s %s\n' "${enabled:-unknown}" "${active:-unknown}"
fi
shift 5
for socket; do
    [ ! -S "$socket" ] || { stat -c 'charon %i-%Y' "$socket"; break; }
done
exit 0
"""


async def _facts(handle: Handle, timeout_s: float) -> Facts:
    argv = ("sh", "-c", _FACTS, "observe", RECORD_PATH, *NFT_TABLE, ROUTE_PROTOCOL, GUARD_UNIT, *VICI_SOCKETS)
    completed: Completed = await handle.run(argv, timeout_s=timeout_s)
    if completed.status != 0:
        raise ApplyFailed(f"{handle.name}: its files cannot be read: {completed.error}")
    try:
        return parse_facts(completed.stdout.decode("utf-8", "surrogateescape").splitlines())
    except ValueError as exc:
        raise ApplyFailed(
            f"{handle.name}: {RECORD_PATH} is damaged: {exc}",
            "Move it away; what ipsecctl loaded there then counts as somebody else's until it is unloaded.",
        ) from exc


def parse_facts(lines: Iterable[str]) -> Facts:
    """Return the facts in the script's answer. Raises ``ValueError`` when the record in it is not ours."""
    found: dict[str, list[str]] = {}
    for line in lines:
        kind, _, rest = line.partition(" ")
        found.setdefault(kind, []).append(rest)
    modes = {path: int(mode, 8) for mode, path in _pairs(found.get("mode", []), " ")}
    files = {
        path: FileSeen(digest, modes[path])
        for digest, path in _pairs(found.get("sha256", []), "  ")
        if path in modes
    }
    sysctls: dict[str, set[str]] = {}
    for key, value in _pairs(found.get("sysctl", []), " "):
        sysctls.setdefault(key, set()).add(value)
    record = base64.b64decode(found.get("record", [""])[0])
    enabled, _, active = found.get("unit", [""])[0].partition(" ")
    return Facts(
        files=files,
        record=Record.from_json(record) if "record" in found else None,
        firewall=found.get("firewall", [""])[0],
        sysctls={key: tuple(sorted(values)) for key, values in sysctls.items()},
        routes=frozenset(str(ip_network(prefix)) for prefix in found.get("route", [])),
        charon=found.get("charon", [""])[0],
        unit=(enabled, active) if enabled else None,
        record_sha256=hashlib.sha256(record).hexdigest(),
    )


def _pairs(lines: Iterable[str], separator: str) -> Iterable[tuple[str, str]]:
    for line in lines:
        first, _, rest = line.partition(separator)
        yield first, rest
