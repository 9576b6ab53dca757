"""What the kernel has of what charon believes in: its SAs and policies, or the routes to charon's own device.

charon is not told when somebody takes away what it gave to the kernel (``ip xfrm state flush``), and goes on
calling its CHILD_SAs INSTALLED. ``SCRIPT`` is the part of a shell script that lists what is really there,
``parse_kernel`` reads that, and ``not_in_kernel`` holds charon's list of SAs against it.

Both lists are taken side by side, and a rekey may lie between them: ``confirmed`` looks once more before it
says that anything is missing.

Source: the text of ``ip xfrm state`` and ``ip xfrm policy`` of iproute2 6.1 to 7.2, and
``create_policy_enumerator`` in charon's child_sa.c for what policies a CHILD_SA has.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from netaddr import AddrFormatError, IPNetwork

from ipsecctl.errors import GatewayUnreachable, ViciError, ViciRefused
from ipsecctl.gateway import _network_script
from ipsecctl.gateway.device import DEVICE, Device, parse_device
from ipsecctl.gateway.handle import Handle
from ipsecctl.gateway.ways import routes_listed
from ipsecctl.topology import DataPath
from ipsecctl.vici import Message

__all__ = ["SCRIPT", "KernelView", "NotInKernel", "confirmed", "not_in_kernel", "parse_kernel"]

# No key leaves the gateway, nor the program that reads it there: `nokeys` has the kernel's text without them,
# and awk passes on nothing but SPIs and selectors. The lists count only if `ip` told them to their end. Where
# kernel-libipsec has its device the kernel has no SAs, and what leads into the device is among the routes
# that _network_script.py lists.
SCRIPT: Final = rf"""
if [ -e /sys/class/net/{DEVICE} ]; then
    if {{ read -r flags </sys/class/net/{DEVICE}/flags; }} 2>/dev/null; then printf 'device %s\n' "$flags"; fi
    [ -e /proc/net/if_inet6 ] || echo device-without-ipv6
    for name in {DEVICE} all; do  # what the kernel tells to the first read is one byte here, and all
        {{ read -r off </proc/sys/net/ipv6/conf/$name/disable_ipv6 || [ "$off" ]; }} 2>/dev/null || off=
        printf 'device-ipv6 %s %s\n' $name "$off"
    done
else
    echo 'device absent'
    # `ip -batch` cannot be asked for both: it ends with the first list of these.
    {{ ip xfrm state list nokeys && echo listed && ip xfrm policy && echo complete; }} 2>/dev/null | awk '
        # "socket in" and "socket out" are those of charon itself: they have no other direction.
        function tell() {{ if (dir != "") print "kernel-policy " dir " " src " " dst " " if_id }}
        $1 == "complete" {{ tell(); print "kernel policies" }}
        $1 == "listed" {{ policies = 1; print "kernel sas" }}
        !policies && $1 == "proto" && $2 == "esp" && $3 == "spi" {{ print "kernel-sa " substr($4, 3) }}
        !policies {{ next }}
        /^src / {{ tell(); dir = ""; if_id = "0x0"; src = $2; dst = $4 }}
        $1 == "dir" && dir == "" {{ dir = $2 }}
        $1 == "if_id" {{ if_id = $2 }}'
fi
"""

_PREFIX: Final = re.compile(r"([0-9a-fA-F.:]+/[0-9]+)(?:\[.*\])?")


@dataclass(frozen=True, slots=True)
class KernelView:
    """What the kernel has, ``None`` of each that is not known.

    ``spis`` are those of ESP, 8 hexadecimal digits; an SA is one end's inbound one or outbound one, and both
    are here. ``policies`` are direction, source and destination prefix (as the kernel's text has them) and
    if_id (0 for none), without protocols and ports. ``routes`` are the prefixes that lead into ``ipsec0``,
    ``device`` is that itself.
    """

    spis: frozenset[str] | None = None
    policies: frozenset[tuple[str, str, str, int]] | None = None
    routes: frozenset[IPNetwork] | None = None
    device: Device | None = None

    def on(self, data_path: DataPath) -> KernelView:
        """Return what of it tells something of SAs that are on a data path."""
        if data_path is DataPath.KERNEL:
            return replace(self, routes=None, device=None)
        if data_path is not DataPath.LIBIPSEC:
            return KernelView()
        gone = self.device is not None and not self.device.there
        return KernelView(routes=frozenset() if gone else self.routes, device=self.device)

    def joined(self, other: KernelView) -> KernelView:
        """Return what was there in one of two looks; what is not known of one of them is not known."""
        return KernelView(
            None if self.spis is None or other.spis is None else self.spis | other.spis,
            None if self.policies is None or other.policies is None else self.policies | other.policies,
            None if self.routes is None or other.routes is None else self.routes | other.routes,
            None if self.device is None or other.device is None else self.device.joined(other.device),
        )

    @property
    def known(self) -> bool:
        return (self.spis, self.policies, self.routes) != (None, None, None)


@dataclass(frozen=True, order=True, slots=True)
class NotInKernel:
    """A CHILD_SA that charon calls INSTALLED, and what of it the kernel has not.

    ``sas`` are like ``inbound c0ffee01``, ``policies`` like ``out 10.1.0.0/24 to 10.2.0.0/24``, ``routes``
    prefixes that do not lead into ``ipsec0``. ``unruled`` are the families (4, 6) whose packets do not find
    the routes into it, ``device`` what is the matter with that (``Device.lacks``). ``dead`` says that nothing
    can pass: with one of its two SAs missing, or between each pair of its networks something.
    """

    tunnel: str
    child: str
    spi_in: str
    sas: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    dead: bool = True
    unruled: tuple[int, ...] = ()
    device: str = ""


def parse_kernel(found: Mapping[str, list[str]]) -> KernelView:
    """Return what the script told: its lines by their first word."""
    complete = frozenset(found.get("kernel", ()))
    to_device = routes_listed(found) and "absent" not in found.get("device", ())
    routes = frozenset(_routes(found.get("ipsec0-route", ())))
    return KernelView(
        frozenset(found.get("kernel-sa", ())) if "sas" in complete else None,
        frozenset(_policies(found.get("kernel-policy", ()))) if "policies" in complete else None,
        frozenset(prefix for prefix, _ in routes) if to_device else None,
        parse_device(found, sorted(routes)),
    )


def _policies(lines: Iterable[str]) -> Iterator[tuple[str, str, str, int]]:
    for line in lines:
        direction, source, destination, if_id = line.split()
        yield direction, source, destination, int(if_id, 16)


def _routes(lines: Iterable[str]) -> Iterator[tuple[IPNetwork, int]]:
    for line in lines:
        prefix, _, table = line.partition(" ")
        try:
            yield IPNetwork(prefix), int(table)
        except (AddrFormatError, ValueError):
            continue


def not_in_kernel(sas: Iterable[Message], kernel: KernelView) -> tuple[NotInKernel, ...]:
    """Return the CHILD_SAs of which the kernel lacks something, sorted; none where nothing is known of it.

    ``sas`` are charon's IKE_SAs as ``list-sas`` sends them. Only what is INSTALLED is looked at: of others
    charon itself does not say that the kernel has them.
    """
    found = (_missing(name, child, kernel) for name, child in _installed(sas))
    return tuple(sorted(missing for missing in found if missing is not None))


def _installed(sas: Iterable[Message]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for message in sas:
        for name, sa in message.items():
            listed = sa.get("child-sas") if isinstance(sa, Mapping) else None
            for child in listed.values() if isinstance(listed, Mapping) else ():
                if isinstance(child, Mapping) and child.get("state") == "INSTALLED":
                    yield name, child


def _missing(tunnel: str, child: Mapping[str, Any], kernel: KernelView) -> NotInKernel | None:
    if (child.get("protocol", "ESP"), child.get("mode", "TUNNEL")) != ("ESP", "TUNNEL"):
        return None  # not one of ours
    sas = tuple(
        f"{what} {child[key]}"
        for what, key in (("inbound", "spi-in"), ("outbound", "spi-out"))
        if kernel.spis is not None and child.get(key) and child[key] not in kernel.spis
    )
    cut = {pair: _policies_missing(child, *pair, kernel.policies) for pair in _pairs(child)}
    policies = tuple(dict.fromkeys(policy for missing in cut.values() for policy in missing))
    routes = tuple(_routes_missing(child, kernel.routes))
    device = kernel.device or Device()
    unruled = tuple(sorted(device.unruled & {6 if ":" in remote else 4 for _, remote in cut}))
    if not (sas or policies or routes or unruled or device.lacks):
        return None
    cut_off = bool(cut) and all(
        missing or remote in routes or (6 if ":" in remote else 4) in unruled
        for (_, remote), missing in cut.items()
    )
    dead = bool(sas or device.lacks) or cut_off
    name, spi_in = child.get("name", ""), child.get("spi-in", "")
    return NotInKernel(tunnel, name, spi_in, sas, policies, routes, dead, unruled, device.lacks)


def _pairs(child: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield between which prefixes charon has policies for a CHILD_SA; ranges of addresses are left out."""
    for local in child.get("local-ts", ()):
        for remote in child.get("remote-ts", ()):
            ends = _PREFIX.fullmatch(local), _PREFIX.fullmatch(remote)
            if ends[0] and ends[1] and (":" in local) == (":" in remote):
                yield ends[0][1], ends[1][1]


def _policies_missing(
    child: Mapping[str, Any],
    local: str,
    remote: str,
    policies: frozenset[tuple[str, str, str, int]] | None,
) -> Iterable[str]:
    if policies is None:
        return ()
    into, out = (int(child.get(key, "0"), 16) for key in ("if-id-in", "if-id-out"))
    wanted = (
        ("out", local, remote, out),
        ("in", remote, local, into),
        ("fwd", remote, local, into),
    )
    return [f"{p[0]} {p[1]} to {p[2]}" for p in wanted if p not in policies]


def _routes_missing(child: Mapping[str, Any], routes: frozenset[IPNetwork] | None) -> Iterator[str]:
    """Yield the far prefixes that no route, their own or a wider one, leads into ``ipsec0``."""
    if routes is None:
        return
    for remote in dict.fromkeys(child.get("remote-ts", ())):
        match = _PREFIX.fullmatch(remote)
        if match and not any(IPNetwork(match[1]) in route for route in routes):
            yield match[1]


async def confirmed(
    handle: Handle, sas: Iterable[Message], kernel: KernelView, data_path: DataPath, *, timeout_s: float
) -> tuple[NotInKernel, ...] | None:
    """Return of which CHILD_SAs the kernel lacks something, ``None`` when that is not known.

    ``sas`` and ``kernel`` were taken side by side. Where something seems to be missing the kernel is asked
    once more, then charon: an SA that charon called INSTALLED before and after the kernel's second answer,
    and that is in neither of the two, is not there. All that takes at most ``timeout_s`` seconds.
    """
    sas, kernel = tuple(sas), kernel.on(data_path)
    if not kernel.known:
        return None
    if not not_in_kernel(sas, kernel):
        return ()
    try:
        async with asyncio.timeout(timeout_s):
            done = await handle.run(("sh", "-c", _ALONE), timeout_s=timeout_s)
            async with handle.vici(timeout_s=timeout_s) as client:
                later = await client.stream("list-sas", "list-sa", {"noblock": "yes"})
    except (GatewayUnreachable, TimeoutError, ViciError, ViciRefused):
        return None
    again = parse_kernel(_by_first_word(done.stdout.decode("utf-8", "replace").splitlines()))
    kernel = kernel.joined(again.on(data_path))
    if not kernel.known:
        return None
    before = {(name, child.get("spi-in")) for name, child in _installed(sas)}
    return tuple(sa for sa in not_in_kernel(later, kernel) if (sa.tunnel, sa.spi_in) in before)


_ALONE: Final = f"""
LC_ALL=C; export LC_ALL
said= protocol= table=
{SCRIPT}
[ ! -e /sys/class/net/{DEVICE} ] || {{ {_network_script.SCRIPT} }}
exit 0
"""


def _by_first_word(lines: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        kind, _, rest = line.partition(" ")
        found.setdefault(kind, []).append(rest)
    return found
