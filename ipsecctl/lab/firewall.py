"""The nftables rules of the nodes between the gateways: the internet, and NAT boxes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from netaddr import IPAddress

from ipsecctl.lab.wiring import Lab, LinkKind, NatBox, Role

__all__ = ["COUNTERS", "internet_rules", "nat_rules"]

COUNTERS = ("private_source", "private_destination", "unknown")
"""Counters of table ``inet internet``: what the internet dropped, and why."""

# RFC 1918, RFC 6598, RFC 3927; RFC 4193.
_PRIVATE = {
    4: ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    6: ("fc00::/7",),
}
_SELECTOR = {4: "ip", 6: "ip6"}


def internet_rules(lab: Lab) -> str:
    """Return the rules of the internet: it carries packets between the lab's WAN addresses, nothing else.

    What it drops it counts. It drops only what has come in: a leak shows in a capture on its interfaces, and
    still goes nowhere.
    """
    facing = [node.interface("wan") for node in lab.nodes if node.role in (Role.GATEWAY, Role.NAT)]
    known = [a.ip for i in facing if i.link.startswith(f"{LinkKind.WAN}.") for a in i.addresses]
    lines = ["table inet internet {"]
    lines += [f"\tcounter {name} {{ }}" for name in COUNTERS]
    # Before routing: there is no route to what is private, so it would never come to the forward hook.
    lines += ["\tchain prerouting {", "\t\ttype filter hook prerouting priority filter; policy accept;"]
    for direction, counter in (("saddr", "private_source"), ("daddr", "private_destination")):
        for family, selector in _SELECTOR.items():
            lines.append(f"\t\t{selector} {direction} {_set(_PRIVATE[family])} counter name {counter} drop")
    lines += ["\t}", "\tchain forward {", "\t\ttype filter hook forward priority filter; policy drop;"]
    for family, selector in _SELECTOR.items():
        both = _set(address for address in known if address.version == family)
        if any(address.version == family for address in known):
            lines.append(f"\t\t{selector} saddr {both} {selector} daddr {both} accept")
    lines += ["\t\tcounter name unknown drop", "\t}", "}", ""]
    return "\n".join(lines)


def nat_rules(box: NatBox) -> str:
    """Return the rules of a NAT box: everything that leaves is masqueraded, only answers come in.

    That is what a clinic's router does; it does not ask whether a packet should have been in a tunnel.
    """
    forwarding = ""
    if box.forwards_to is not None:
        forwarding = (
            "\tchain prerouting {\n"
            "\t\ttype nat hook prerouting priority dstnat;\n"
            f'\t\tiifname "wan" udp dport {{ 500, 4500 }} dnat to {box.forwards_to}\n'
            "\t}\n"
        )
    return (
        "table ip nat_box {\n"
        f"{forwarding}"
        "\tchain postrouting {\n"
        "\t\ttype nat hook postrouting priority srcnat;\n"
        '\t\toifname "wan" masquerade\n'
        "\t}\n"
        "\tchain forward {\n"
        "\t\ttype filter hook forward priority filter; policy drop;\n"
        "\t\tct state established,related accept\n"
        "\t\tct status dnat accept\n"
        '\t\tiifname "lan" oifname "wan" accept\n'
        "\t}\n"
        "}\n"
    )


def _set(values: Iterable[IPAddress | str]) -> str:
    return "{ " + ", ".join(sorted(map(str, values))) + " }"
