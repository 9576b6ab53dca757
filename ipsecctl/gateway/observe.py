"""All that is on a gateway and could concern a plan."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ipsecctl.desired import GUARD_UNIT
from ipsecctl.errors import ApplyFailed, GatewayUnreachable, ViciError, ViciRefused
from ipsecctl.gateway import _network_script, kernel_sas, restart
from ipsecctl.gateway._capability_parser import parse_charon
from ipsecctl.gateway.capabilities import LIBIPSEC_PLUGIN, Charon
from ipsecctl.gateway.handle import Completed, Handle
from ipsecctl.gateway.kernel_sas import KernelView, NotInKernel, confirmed, parse_kernel
from ipsecctl.gateway.names import NFT_TABLE, RECORD_PATH, ROUTE_PROTOCOL, ROUTE_TABLE, VICI_SOCKETS
from ipsecctl.gateway.record import Record
from ipsecctl.gateway.restart import how_to_restart, restart_command
from ipsecctl.gateway.traps import Traps, list_traps
from ipsecctl.gateway.undo import LOOK, Pending, parse_pending
from ipsecctl.gateway.way_out import WayOut, parse_way_out
from ipsecctl.gateway.ways import WaysSeen, parse_ways
from ipsecctl.patience import PATIENCE
from ipsecctl.topology import DataPath
from ipsecctl.vici import Client, Listing, Message

__all__ = [
    "Facts",
    "FileSeen",
    "Observed",
    "charon_if_it_runs",
    "digest_of_lines",
    "ike_sas",
    "list_connections",
    "names_of_sas",
    "observe",
    "parse_facts",
    "shell_lines",
]


_LOOKS = 10
_LOOK_AGAIN_S = 0.05 * PATIENCE


@dataclass(frozen=True, slots=True)
class FileSeen:
    """A regular file on a gateway: the SHA-256 of its content in hexadecimal, and its permission bits."""

    sha256: str
    mode: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What one round trip to a gateway's shell tells.

    ``files`` has those where ours could be, by path. ``firewall`` is the SHA-256 of our table as nft lists
    it, "" when it is not there. ``sysctls`` has the running value of each setting in our file. ``ways`` are
    the interfaces, routes that are ours or lead to prefixes that were asked for, and rules. ``if_ids`` are
    those that IPsec policies use (looked up only where prefixes were asked for), ``legacy_rules`` the rules
    of iptables-legacy, as in ``ip filter -A FORWARD -j DROP``, ``legacy_unread`` a table of each family whose
    rules could not be read (``ip filter``).

    ``ipv6_off`` names the interfaces that drop IPv6 (``default`` stands for those to come); only where there
    is one, ``outside`` has the interface of each IPv4 address, and of the ``default`` route.

    ``kernel`` tells one start of the kernel from the next, "" where it says nothing of it. ``charon`` does so
    for charon: inode and time of its VICI socket, "" when there is none. ``unit`` is what systemd says of our
    unit (``systemctl is-enabled`` and ``is-active``), ``None`` where no systemd runs. ``record_sha256`` is
    the record's as it lies there, that of nothing without one. ``restart`` says how charon is restarted.
    ``restart_command`` does so, and is empty where that is not known.
    ``in_kernel`` is what the kernel has of charon's SAs, by its own account. ``undo`` is the apply that waits
    there for its confirmation. ``way_out`` is what is missing on its way to its peers, of those asked for.
    ``told`` is the SHA-256 of all that the shell told but the record.
    """

    files: Mapping[str, FileSeen] = field(default_factory=dict)
    record: Record | None = None
    firewall: str = ""
    sysctls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ways: WaysSeen = field(default_factory=WaysSeen)
    if_ids: frozenset[int] = frozenset()
    legacy_rules: tuple[str, ...] = ()
    legacy_unread: tuple[str, ...] = ()
    ipv6_off: frozenset[str] = frozenset()
    outside: Mapping[str, str] = field(default_factory=dict)
    kernel: str = ""
    charon: str = ""
    unit: tuple[str, str] | None = None
    record_sha256: str = hashlib.sha256(b"").hexdigest()
    restart: str = ""
    restart_command: tuple[str, ...] = ()
    in_kernel: KernelView = field(default_factory=KernelView)
    undo: Pending | None = None
    way_out: WayOut = field(default_factory=WayOut)
    told: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is on a gateway and could concern a plan.

    ``charon`` is what charon says of itself. ``connections`` is by name as ``list-conns`` reports them;
    ``shared`` are the ids of shared keys, ``keys`` those of private keys; ``certificates`` the SHA-256 of the
    DER of X.509 certificates, in hexadecimal digits.

    ``charon_down`` is set where charon does not run: then all that it would tell is empty, and ``data_path``
    is the one of the last apply. ``ike_sas`` is how many IKE_SAs charon has, ``None`` where it does not say.
    ``not_in_kernel`` are CHILD_SAs that charon believes in alone. ``sas`` are its IKE_SAs as ``list-sas``
    sends them, without those that it was busy with for longer than half a second. ``sa_names`` are the
    connections that have one, those left out that are being deleted. ``traps`` are the children for which it
    waits for a packet, ``None`` where that was not asked.
    """

    gateway: str
    version: str
    data_path: DataPath
    connections: Mapping[str, Message]
    shared: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    facts: Facts = field(default_factory=Facts)
    charon: Charon = field(default_factory=lambda: Charon(""))
    charon_down: GatewayUnreachable | None = None
    ike_sas: int | None = None
    not_in_kernel: tuple[NotInKernel, ...] = ()
    sas: tuple[Message, ...] = ()
    sa_names: frozenset[str] = frozenset()
    traps: Traps | None = None


async def observe(
    handle: Handle,
    prefixes: Iterable[str] = (),
    *,
    own: Iterable[str] = (),
    outer: Iterable[str] = (),
    timeout_s: float = 20.0 * PATIENCE,
) -> Observed:
    """Return all that a plan needs to know of a gateway, in two round trips side by side.

    ``prefixes`` are those that a plan may want to lead into tunnels: others' routes to them are told too.
    ``own`` are the networks of the gateway's site: how it reaches each of them is told. ``outer`` are the
    questions for its way to its peers (``way_out_questions``).

    Where only charon does not run, the rest is returned; but not where nothing tells what data path it has.

    Raises ``GatewayUnreachable`` (``charon_down`` when it is only charon that is missing) or ``ApplyFailed``
    when it can be reached and not be read, as without root's rights.
    """
    try:
        async with asyncio.TaskGroup() as group:
            facts = group.create_task(_facts(handle, prefixes, own, outer, timeout_s))
            charon = group.create_task(charon_if_it_runs(handle, timeout_s))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # both say the same when it is the gateway that is gone
    found, told = facts.result(), charon.result()
    if not isinstance(told, GatewayUnreachable):
        _look_through(handle.name, told["connections"], found.record)
        sas: tuple[Message, ...] = told["sas"]
        path: DataPath = told["data_path"]
        missing = await confirmed(handle, sas, found.in_kernel, path, timeout_s=0.4 * timeout_s)
        names = names_of_sas(sas)
        return Observed(gateway=handle.name, facts=found, not_in_kernel=missing or (), sa_names=names, **told)
    known = found.record.means.get(handle.name) if found.record else None
    if known is None:
        raise told
    return Observed(handle.name, "", known.data_path, {}, facts=found, charon_down=told)


def _look_through(gateway: str, listed: Listing, record: Record | None) -> None:
    """See to it that what charon listed is in order, unless it is to the byte what it was before.

    Raises ``GatewayUnreachable`` when something came garbled.
    """
    if record is None or not record.lists(listed):
        try:
            listed.decode_all()
        except ViciError as exc:
            raise GatewayUnreachable(gateway, exc.summary, exc.hint) from exc


async def charon_if_it_runs(handle: Handle, timeout_s: float) -> dict[str, Any] | GatewayUnreachable:
    """Return what charon tells, by the names of ``Observed``, or why it does not where it does not run."""
    try:
        return await _charon(handle, timeout_s)
    except GatewayUnreachable as error:
        if not error.charon_down:
            raise
        return error


async def _charon(handle: Handle, timeout_s: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(timeout_s), handle.vici(timeout_s=0.4 * timeout_s) as client:
            stats = await client.command("stats")
            charon = parse_charon(
                await client.command("version"), stats, await client.command("get-algorithms")
            )
            libipsec = LIBIPSEC_PLUGIN in charon.plugins
            return {
                "charon": charon,
                "ike_sas": ike_sas(stats),
                "version": charon.version,
                "data_path": DataPath.LIBIPSEC if libipsec else DataPath.KERNEL,
                "connections": await list_connections(client),
                "sas": await _whole_list(client),
                "traps": await list_traps(client),
                "shared": frozenset((await client.command("get-shared")).get("keys", [])),
                "keys": frozenset((await client.command("get-keys")).get("keys", [])),
                "certificates": await _certificates(client),
            }
    except TimeoutError:
        raise GatewayUnreachable(
            handle.name, f"charon took longer than {timeout_s:.3g} s to tell all"
        ) from None
    except (ViciError, ViciRefused) as exc:
        raise GatewayUnreachable(handle.name, exc.summary, exc.hint) from exc


async def _whole_list(client: Client) -> tuple[Message, ...]:
    """Return charon's IKE_SAs, looked at again for a moment as long as it has more of them than it lists.

    It leaves out those that a thread of its works on, as in every rekey. Waiting for them inside charon could
    take as long as it takes to resolve a name.
    """
    for _ in range(_LOOKS):
        sas = await client.stream("list-sas", "list-sa", {"noblock": "yes"})
        there = ike_sas(await client.command("stats"))
        if there is None or there <= len(sas):
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
    return tuple(sas)


def ike_sas(stats: Mapping[str, Any]) -> int | None:
    """Return how many IKE_SAs charon has by its answer to ``stats``, those that it is busy with included."""
    counts = stats.get("ikesas")
    total = counts.get("total", "") if isinstance(counts, Mapping) else ""
    return int(total) if isinstance(total, str) and total.isdecimal() else None


def names_of_sas(sas: Iterable[Message]) -> frozenset[str]:
    """Return the connections of charon's IKE_SAs (as ``list-sas`` sends them) that are not being deleted."""
    return frozenset(
        name
        for message in sas
        for name, sa in message.items()
        if isinstance(sa, Mapping) and sa.get("state") not in ("DELETING", "DESTROYING")
    )


async def list_connections(client: Client) -> Listing:
    """Return all loaded connections by name, as ``list-conns`` reports them."""
    return Listing(await client.stream_undecoded("list-conns", "list-conn"))


async def _certificates(client: Client) -> frozenset[str]:
    listed = await client.stream("list-certs", "list-cert", {"type": "X509"}, raw=True)
    return frozenset(hashlib.sha256(c["data"]).hexdigest() for c in listed if "data" in c)


_FACTS = (
    r"""
LC_ALL=C; export LC_ALL
protocol=$4 table=$6 said=$(cat)
[ "$(id -u)" = 0 ] || { echo "root's rights are needed" >&2; exit 1; }
known=$7
if [ -f "$1" ] && [ "$known" ] && [ "$(sha256sum <"$1")" = "$known  -" ]; then
    # A tunnel called "key" has its digests on such lines, too: then there are several.
    tr , '\n' <"$1" | grep '^ "key": "[0-9a-f]*"$' | sed 's/.*"\([0-9a-f]*\)"$/record-key \1/'
elif [ -f "$1" ]; then
    printf 'record %s\n' "$(base64 -w0 <"$1")"
fi
ours() {
    find /etc/swanctl /etc/strongswan.d /etc/ipsecctl /etc/sysctl.d /etc/systemd/system /etc/systemd/network \
        /etc/systemd/networkd.conf.d /etc/NetworkManager/conf.d \
        -type f \( -name 'ipsecctl*' -o -name '*-ipsecctl.conf' -o -name '*-ipsecctl.network' \
        -o -path '/etc/ipsecctl/*' \) "$@" 2>/dev/null
}
ours -printf 'mode %m %p\n'
ours -exec sha256sum {} + | sed 's/^/sha256 /'
if listed=$(nft -s list table "$2" "$3" 2>/dev/null); then
    digest=$(printf '%s' "$listed" | sha256sum)
    printf 'firewall %s\n' "${digest%% *}"
fi
# One process for all settings. The shell's own `read` cannot be used: it reads byte by byte, and the kernel
# gives a setting to the first read only.
for file in /etc/sysctl.d/*-ipsecctl.conf; do
    [ ! -f "$file" ] || sed -n 's/^\([a-z][^ =]*\) *=.*/\1/p' "$file"
done | while read -r key; do
    set -f; IFS=.; set -- $key; IFS=/; places="/proc/sys/$*"; unset IFS; set +f
    for place in $places; do [ ! -f "$place" ] || printf '%s %s\n' "$key" "$place"; done
done | awk '{
    if ((getline value <$2) > 0) { gsub(/[ \t]+/, " ", value); print "sysctl " $1 " " value }
    close($2)
}'
if [ -d /run/systemd/system ]; then
    enabled=$(systemctl is-enabled "$5" 2>/dev/null) active=$(systemctl is-active "$5" 2>/dev/null)
    printf 'unit %s %s\n' "${enabled:-unknown}" "${active:-unknown}"
fi
shift 7
for socket; do
    [ ! -S "$socket" ] || { stat -c 'charon %i-%Y' "$socket"; break; }
done
{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || boot=
printf 'kernel %s\n' "$boot"
for family in ip ip6; do
    # Its modules are there only where somebody uses it; only asking would load them.
    { read -r used <"/proc/net/${family}_tables_names"; } 2>/dev/null || continue
    command -v "${family}tables-legacy-save" >/dev/null 2>&1 ||
        { printf 'legacy_unread %s %s\n' "$family" "$used"; continue; }
    "${family}tables-legacy-save" 2>/dev/null | awk -v family="$family" '
        /^\*/ { table = substr($1, 2) }
        /^:/ && $2 != "-" { print "legacy " family " " table " -P " substr($1, 2) " " $2 }
        /^-A/ { print "legacy " family " " table " " $0 }'
done
if off=$(grep -ls '^1' /proc/sys/net/ipv6/conf/*/disable_ipv6); then
    printf '%s\n' "$off" | sed 's|^.*/conf/\(.*\)/disable_ipv6$|ipv6_off \1|'
    ip -o -4 route show default 2>/dev/null | sed -n 's/^.* dev \([^ ]*\).*/outside \1 default/p'
    ip -o -4 address show 2>/dev/null | sed -n 's|^[0-9]*: *\([^ ]*\) .*inet \([0-9.]*\).*|outside \1 \2|p'
fi
"""
    + LOOK
    + restart.SCRIPT
    + kernel_sas.SCRIPT
    + _network_script.SCRIPT
    + "exit 0\n"
)


async def _facts(
    handle: Handle,
    prefixes: Iterable[str],
    own: Iterable[str],
    outer: Iterable[str],
    timeout_s: float,
) -> Facts:
    lines = await shell_lines(handle, prefixes, own, outer, timeout_s)
    try:
        return parse_facts(lines, handle)
    except ValueError as exc:
        raise ApplyFailed(
            f"{handle.name}: {RECORD_PATH} is damaged: {exc}",
            "Move it away; what ipsecctl loaded there then counts as somebody else's until it is unloaded.",
        ) from exc


async def shell_lines(
    handle: Handle,
    prefixes: Iterable[str],
    own: Iterable[str],
    outer: Iterable[str],
    timeout_s: float,
    record: str = "",
) -> list[str]:
    """Return the lines that the shell tells; of a record with the digest ``record`` only its key."""
    marks = (RECORD_PATH, *NFT_TABLE, ROUTE_PROTOCOL, GUARD_UNIT, ROUTE_TABLE, record)
    argv = ("sh", "-c", _FACTS, "observe", *marks, *VICI_SOCKETS)
    lines = [*sorted(prefixes), *(f"own {prefix}" for prefix in sorted(own)), *outer]
    asked = "".join(f"{line}\n" for line in lines).encode()
    completed: Completed = await handle.run(argv, asked, timeout_s=timeout_s)
    if completed.status != 0:
        raise ApplyFailed(f"{handle.name}: its files cannot be read: {completed.error}")
    return completed.stdout.decode("utf-8", "surrogateescape").splitlines()


def parse_facts(lines: Iterable[str], handle: Handle | None = None) -> Facts:
    """Return the facts in the script's answer. Raises ``ValueError`` when the record in it is not ours."""
    lines = tuple(lines)
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
    service = found.get("service", [""])[0]
    in_kernel = parse_kernel(found)
    return Facts(
        files=files,
        record=Record.from_json(record) if "record" in found else None,
        firewall=found.get("firewall", [""])[0],
        sysctls={key: tuple(sorted(values)) for key, values in sysctls.items()},
        ways=parse_ways(found),
        if_ids=frozenset(if_id for *_, if_id in in_kernel.policies or () if if_id),
        legacy_rules=tuple(found.get("legacy", [])),
        legacy_unread=tuple(found.get("legacy_unread", [])),
        ipv6_off=frozenset(found.get("ipv6_off", [])) - {"all"},
        outside={address: name for name, address in _pairs(found.get("outside", []), " ")},
        kernel=found.get("kernel", [""])[0],
        charon=found.get("charon", [""])[0],
        unit=(enabled, active) if enabled else None,
        record_sha256=hashlib.sha256(record).hexdigest(),
        restart=how_to_restart(handle, service) if handle else "",
        restart_command=restart_command(handle, service) if handle else (),
        in_kernel=in_kernel,
        undo=parse_pending(found.get("undo", [""])[0]),
        way_out=parse_way_out(found),
        told=digest_of_lines(lines),
    )


def digest_of_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of what the shell told, but for the record."""
    said = "\n".join(line for line in lines if not line.startswith(("record ", "record-key ")))
    return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()


def _pairs(lines: Iterable[str], separator: str) -> Iterable[tuple[str, str]]:
    for line in lines:
        first, _, rest = line.partition(separator)
        yield first, rest
