"""Whether a gateway can send to its peers at all: its own address on an interface, and a route to theirs.

``SCRIPT`` is the part of a shell script that asks the kernel, ``parse_way_out`` reads what it prints. Only
what the kernel itself calls missing is told; where routing hangs on more than addresses, nothing is.

Source: ``ip -batch`` of iproute2 6.1 to 7.2, which says on standard error what the kernel answered, and then
at which line (``Command failed -:2``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from netaddr import AddrFormatError, IPAddress

from ipsecctl.gateway.barred import Obstacle

__all__ = ["SCRIPT", "WayOut", "addresses_of", "no_way_out", "parse_way_out", "way_out_questions"]

_SHOWN: Final = 3

# Expects in $outer a command that prints `address A` for the gateway's own and `peer P` for each far one. An
# own address that is there is the source to ask with: there may be rules for it. Without one, and with rules
# that look at a packet's marks and more, the answer would not be charon's.
SCRIPT: Final = r"""
outside=$($outer)
[ -z "$outside" ] || for family in 4 6; do
    mine=$(printf '%s\n' "$outside" | awk -v family=$family '
        $1 == "address" && ($2 ~ /:/ ? 6 : 4) == family { print $2 }')
    theirs=$(printf '%s\n' "$outside" | awk -v family=$family '
        $1 == "peer" && ($2 ~ /:/ ? 6 : 4) == family { printf "%s ", $2 }')
    if [ -n "$mine" ] && there=$(ip -o -$family address show to "$mine" 2>/dev/null) && [ -z "$there" ]; then
        printf 'no-address %s\n' "$mine"
        mine=
    fi
    [ -n "$theirs" ] && rules=$(ip -$family rule show 2>/dev/null) || continue
    case $rules in *fwmark* | *l3mdev* | *uidrange* | *ipproto* | *' sport '* | *' dport '* | *' tos '*)
        continue ;;
    esac
    [ -n "$mine" ] || ! printf '%s\n' "$rules" | grep -Eq 'from ([^a]|a[^l])' || continue
    # shellcheck disable=SC2086 # words
    printf '%s\n' $theirs | sed "s/.*/route get &${mine:+ from $mine}/" |
        ip -$family -force -batch - 2>&1 >/dev/null | awk -v theirs="$theirs" '
            BEGIN { split(theirs, peer) }
            sub(/^RTNETLINK answers: /, "") { why = $0; next }
            sub(/^Command failed .*:/, "") { if (why != "") print "no-way " peer[$0 + 0] " " why; why = "" }'
done
"""

_NO_ROUTE: Final = frozenset(
    ("Network is unreachable", "No route to host", "Invalid argument", "Permission denied")
)
"""What the kernel answers without a route, and for one that is unreachable, a blackhole, prohibited."""


@dataclass(frozen=True, slots=True)
class WayOut:
    """What a gateway lacks: ``no_route`` has the peers to which there is none with the kernel's answer.

    ``no_address`` are its declared addresses that no interface has. What is not known is in neither.
    """

    no_route: Mapping[IPAddress, str] = field(default_factory=dict)
    no_address: frozenset[IPAddress] = frozenset()


def way_out_questions(own: Iterable[IPAddress], peers: Iterable[IPAddress]) -> tuple[str, ...]:
    """Return the lines that ``$outer`` is to print, sorted."""
    return (
        *(f"address {address}" for address in sorted(set(own))),
        *(f"peer {address}" for address in sorted(set(peers))),
    )


def parse_way_out(told: Mapping[str, Iterable[str]]) -> WayOut:
    """Return what the script told, by the first word of its lines."""
    missing = (line.partition(" ") for line in told.get("no-way", ()))
    return WayOut(
        {address: why for text, _, why in missing if why in _NO_ROUTE for address in _address(text)},
        frozenset(address for text in told.get("no-address", ()) for address in _address(text)),
    )


def addresses_of(texts: Iterable[object]) -> Iterator[IPAddress]:
    """Yield what is an address; names, ``%any`` and nothing at all are passed over."""
    return (address for text in texts if text is not None for address in _address(str(text)))


def _address(text: str) -> Iterator[IPAddress]:
    try:
        yield IPAddress(text)
    except (AddrFormatError, ValueError):
        return


def no_way_out(
    gateway: str, own: Iterable[IPAddress], peers: Iterable[IPAddress], seen: WayOut
) -> tuple[Obstacle, ...]:
    """Return what keeps a gateway from sending to ``peers``, its own address first."""
    found = [
        Obstacle(
            f"{gateway} does not have its declared address {address}: no interface has it, and charon can "
            "neither call from it nor be called there",
            "set it (ip address add), or declare the one that the gateway has",
        )
        for address in sorted({*own} & seen.no_address)
    ]
    if lost := sorted({*peers} & seen.no_route.keys()):
        shown = ", ".join(map(str, lost[:_SHOWN]))
        more = f" and {len(lost) - _SHOWN} more peers" if len(lost) > _SHOWN else ""
        found.append(
            Obstacle(
                f"{gateway} has no route to {shown}{more} ({seen.no_route[lost[0]]}): neither IKE nor ESP "
                "leaves for there",
                f"bring its WAN up, or set the route (ip route get {lost[0]} shows what the kernel has)",
            )
        )
    return tuple(found)
