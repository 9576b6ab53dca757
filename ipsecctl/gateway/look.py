"""What lives on a gateway at one moment: for a status, in one round trip to charon and one to the shell."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from netaddr import IPNetwork

from ipsecctl.desired import FIREWALL_FILE, HOLDING_METRIC, ROUTES_FILE, SYSCTL_FILE, Means
from ipsecctl.errors import GatewayUnreachable, ViciError, ViciRefused
from ipsecctl.gateway import _network_script, kernel_sas, restart
from ipsecctl.gateway.handle import Handle
from ipsecctl.gateway.kernel_sas import KernelView, NotInKernel, confirmed, parse_kernel
from ipsecctl.gateway.names import (
    NFT_TABLE,
    RECORD_PATH,
    REWRITTEN_COUNTER,
    ROUTE_PROTOCOL,
    ROUTE_TABLE,
    VICI_SOCKETS,
)
from ipsecctl.gateway.record import Record
from ipsecctl.gateway.restart import how_to_restart
from ipsecctl.gateway.traps import Traps, list_traps
from ipsecctl.gateway.undo import LOOK, Pending, parse_pending
from ipsecctl.gateway.way_out import WayOut, parse_way_out
from ipsecctl.gateway.ways import WaysSeen, parse_ways, routes_listed
from ipsecctl.patience import PATIENCE
from ipsecctl.vici import Listing, Message

__all__ = [
    "LOOK_S",
    "CharonSilent",
    "Guard",
    "LiveView",
    "ShellView",
    "look",
    "look_at_guard",
    "parse_shell",
]


LOOK_S = 3.5 * PATIENCE
"""How long gateways are waited for where nothing else was said: a whole status is then there within 5 s."""

_CHARONS_PART = 0.7
_TIMES_THE_SHELL = 3


class Guard(StrEnum):
    """Whether our firewall table is in force on a gateway, as it was when it was last applied."""

    LOADED = "loaded"
    ALTERED = "altered"
    MISSING = "missing"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class ShellView:
    """What a gateway's shell tells; without an answer of it nothing is known.

    ``forwarding`` says whether the kernel forwards packets of each family that our settings name. ``ways``
    are its interfaces, the routes to all prefixes that were applied there, the rules, and the ways home.
    ``rewritten`` counts packets that the firewall held back, since it was loaded, because something had
    changed their addresses after they were bound for a tunnel. ``means`` is what the last apply there knew of
    each gateway. ``None`` where it is not known.

    ``ours`` are the connections that were applied there, and those that are not yet known to be gone.
    ``applied`` says whether anything was ever applied there. ``unheld`` are the prefixes that have lost their
    route in the main table that holds what no tunnel carries.

    ``pending`` are the options for which charon must be restarted (``StartUp.pending``), ``restart`` says how
    that is done there. ``in_kernel`` is what the kernel has of charon's SAs, by its own account. ``undo`` is
    the apply that waits there for its confirmation. ``way_out`` is what is missing on its way to its peers,
    of those asked for. ``older`` are the connections whose SAs have an earlier configuration than the last
    apply gave, each with why, "" where that is not known.
    """

    guard: Guard = Guard.UNKNOWN
    forwarding: bool | None = None
    ways: WaysSeen | None = None
    rewritten: int | None = None
    means: Mapping[str, Means] = field(default_factory=dict)
    pending: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    restart: str = ""
    in_kernel: KernelView = field(default_factory=KernelView)
    ours: frozenset[str] = frozenset()
    applied: bool | None = None
    unheld: tuple[str, ...] | None = None
    undo: Pending | None = None
    way_out: WayOut = field(default_factory=WayOut)
    older: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveView:
    """What lives on a gateway at one moment.

    ``sas`` are charon's IKE_SAs as ``list-sas`` sends them, in its order; ``connections`` the names of those
    that are loaded. ``not_in_kernel`` are the CHILD_SAs that charon believes in alone, ``traps`` the children
    for which it waits for a packet; ``None`` where that is not known.
    """

    gateway: str
    version: str
    sas: tuple[Message, ...]
    connections: frozenset[str] = frozenset()
    shell: ShellView = ShellView()
    not_in_kernel: tuple[NotInKernel, ...] | None = None
    traps: Traps | None = None


class CharonSilent(GatewayUnreachable):
    """charon on a gateway did not answer, and the gateway's shell did: ``shell`` is what it told."""

    def __init__(self, error: GatewayUnreachable, shell: ShellView) -> None:
        super().__init__(error.gateway, error.cause, error.hint, charon_down=error.charon_down)
        self.shell = shell


async def look(handle: Handle, *, outer: Iterable[str] = (), timeout_s: float = LOOK_S) -> LiveView:
    """Return what lives on a gateway; it never waits for an IKE_SA that is busy.

    Raises ``GatewayUnreachable`` when there is no answer of charon's within ``timeout_s`` seconds in all,
    ``CharonSilent`` when the shell told something nevertheless. What the shell tells is asked for side by
    side with it, and not known when that fails. Once it has told something the line is known to be good, and
    charon is given 70 % of the time, or three times what the shell took where that is more. ``outer`` are the
    questions for the gateway's way to its peers (``way_out_questions``).
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    deadline = began + timeout_s
    limit = asyncio.timeout_at(deadline)

    async def shell_told() -> ShellView:
        told = await _shell(handle, timeout_s, outer)
        if told != ShellView() and not charon.done():
            took_s = loop.time() - began
            patient_s = max(_CHARONS_PART * timeout_s, _TIMES_THE_SHELL * took_s)
            with suppress(RuntimeError):  # charon's answer has just come, or its time is just over
                limit.reschedule(min(deadline, began + patient_s))
        return told

    async with asyncio.TaskGroup() as group:
        charon = group.create_task(_live_or_why_not(handle, timeout_s, limit))
        shell = group.create_task(shell_told())
    told, live = shell.result(), charon.result()
    if isinstance(live, GatewayUnreachable):
        if told == ShellView():
            raise live
        if live.cause == _no_answer(timeout_s):  # the shell's came: it is charon that is silent
            waited_s = (limit.when() or deadline) - began
            live = GatewayUnreachable(handle.name, f"charon did not answer within {waited_s:.3g} s")
        raise CharonSilent(live, told)
    version, sas, connections, traps = live
    known = told.means.get(handle.name)
    missing = None
    if known is not None:
        left_s = deadline - loop.time()
        missing = await confirmed(handle, sas, told.in_kernel, known.data_path, timeout_s=left_s)
    return LiveView(handle.name, version, sas, connections, told, missing, traps)


def _no_answer(timeout_s: float) -> str:
    return f"no answer within {timeout_s:.3g} s"


async def look_at_guard(handle: Handle, *, timeout_s: float = 4.0 * PATIENCE) -> tuple[Guard, bool | None]:
    """Return what became of the firewall that was applied, and whether packets are forwarded.

    It needs no charon. What cannot be seen, also of a gateway that cannot be reached, is not known.
    """
    seen = await _shell(handle, timeout_s)
    return seen.guard, seen.forwarding


_Live: TypeAlias = tuple[str, tuple[Message, ...], frozenset[str], Traps]
"""charon's version, its IKE_SAs, the names of its connections, and its traps."""


async def _live_or_why_not(
    handle: Handle, timeout_s: float, limit: asyncio.Timeout
) -> _Live | GatewayUnreachable:
    try:
        return await _live(handle, timeout_s, limit)
    except GatewayUnreachable as error:
        return error


async def _live(handle: Handle, timeout_s: float, limit: asyncio.Timeout) -> _Live:
    try:
        # The limit of a single answer is the shorter one: it knows better what did not come.
        async with limit, handle.vici(timeout_s=0.9 * timeout_s) as client:
            version = await client.command("version")
            sas = await client.stream("list-sas", "list-sa", {"noblock": "yes"})
            names = frozenset(Listing(await client.stream_undecoded("list-conns", "list-conn")))
            traps = await list_traps(client)
    except TimeoutError:
        raise GatewayUnreachable(handle.name, _no_answer(timeout_s)) from None
    except (ViciError, ViciRefused) as exc:
        raise GatewayUnreachable(handle.name, exc.summary, exc.hint) from exc
    return version.get("version", ""), tuple(sas), names, traps


# "absent" is said only when nft works and has no such table.
_SCRIPT = (
    r"""
LC_ALL=C; export LC_ALL
settings=$4 routes=$5 protocol=$6 counter=$7 table=$8 held="metric ${10}"
outside=$(cat)
for socket in $9; do
    [ ! -S "$socket" ] || { stat -c 'charon %i-%Y' "$socket"; break; }
done
[ ! -r "$1" ] || printf 'record %s\n' "$(base64 -w0 <"$1")"
if listed=$(nft -s list table "$2" "$3" 2>/dev/null); then
    digest=$(printf '%s' "$listed" | sha256sum)
    printf 'firewall %s\n' "${digest%% *}"
    case $listed in *"counter $counter "*)
        nft list counter "$2" "$3" "$counter" | sed -n 's/.*packets \([0-9]*\).*/rewritten \1/p' ;;
    esac
elif nft list tables >/dev/null 2>&1; then
    echo absent
fi
# The kernel gives a setting to the first read only, which here is of one byte; the setting has no more.
{ read -r said </proc/sys/net/ipv4/ip_forward || [ "$said" ]; } && printf 'forwarding %s\n' "$said"
"""
    + LOOK
    + restart.SCRIPT
    + kernel_sas.SCRIPT
    + r"""
if grep -q '^net\.ipv6\.conf\.all\.forwarding *= *1' "$settings" 2>/dev/null; then
    { read -r said </proc/sys/net/ipv6/conf/all/forwarding || [ "$said" ]; } &&
        printf 'forwarding %s\n' "$said"
fi
[ ! -r "$routes" ] || echo holding
said=$(sed -n "s/^rule .* from all to \([^ ]*\) lookup .*/own \1/p
    s/^route replace \(unreachable \|throw \)*\([^ ]*\) .*$held.*/hold \2/p
    t
    s/^route replace \(unreachable \|throw \)*\([^ ]*\).*/\2/p" "$routes" 2>/dev/null)
said=$said${outside:+
$outside}
"""
    + _network_script.SCRIPT
    + "exit 0\n"
)


async def _shell(handle: Handle, timeout_s: float, outer: Iterable[str] = ()) -> ShellView:
    marks = (ROUTE_PROTOCOL, REWRITTEN_COUNTER, ROUTE_TABLE, " ".join(VICI_SOCKETS), str(HOLDING_METRIC))
    places = (RECORD_PATH, *NFT_TABLE, SYSCTL_FILE, ROUTES_FILE, *marks)
    try:
        async with asyncio.timeout(timeout_s):
            argv, asked = ("sh", "-c", _SCRIPT, "guard", *places), "\n".join(outer).encode()
            completed = await handle.run(argv, asked, timeout_s=0.9 * timeout_s)
        return parse_shell(completed.stdout.decode("utf-8", "replace").splitlines(), handle)
    except (GatewayUnreachable, TimeoutError, ValueError):
        return ShellView()


def parse_shell(lines: Iterable[str], handle: Handle | None = None) -> ShellView:
    """Return what the script's answer means. Raises ``ValueError`` when the record in it is not ours."""
    found: dict[str, list[str]] = {}
    for line in lines:
        kind, _, rest = line.partition(" ")
        found.setdefault(kind, []).append(rest)
    values = found.get("forwarding", [])
    record = Record.from_json(base64.b64decode(found["record"][0])) if "record" in found else None
    seen = parse_ways(found)
    return ShellView(
        guard=_guard(record, found),
        forwarding=all(value == "1" for value in values) if values and all(values) else None,
        ways=seen if values else None,
        rewritten=int(found["rewritten"][0]) if "rewritten" in found else None,
        means=record.means if record else {},
        pending=record.start_up.pending(found.get("charon", [""])[0]) if record else {},
        restart=how_to_restart(handle, found.get("service", [""])[0]) if handle else "",
        in_kernel=parse_kernel(found),
        ours=frozenset(record.connections) if record else frozenset(),
        applied=record is not None if values else None,
        unheld=_unheld(found, seen) if "holding" in found and routes_listed(found) else None,
        undo=parse_pending(found.get("undo", [""])[0]),
        way_out=parse_way_out(found),
        older=record.older(found.get("charon", [""])[0]) if record else {},
    )


def _unheld(found: Mapping[str, list[str]], seen: WaysSeen) -> tuple[str, ...]:
    """Return the prefixes that were given a holding route and have none."""
    held = {r.prefix for r in seen.routes if r.ours and r.metric == HOLDING_METRIC}
    return tuple(sorted({p for p in found.get("hold", ()) if IPNetwork(p) not in held}))


def _guard(record: Record | None, found: Mapping[str, list[str]]) -> Guard:
    if record is None or FIREWALL_FILE not in record.files:
        return Guard.UNKNOWN
    if "absent" in found:
        return Guard.MISSING
    if "firewall" not in found:
        return Guard.UNKNOWN
    return Guard.LOADED if found["firewall"][0] == record.seen.firewall else Guard.ALTERED
