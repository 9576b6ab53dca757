"""nftables rules: of the internet, of NAT boxes, and those that a lab needs on the machine itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from string import Template

from netaddr import IPAddress

from ipsecctl.lab.compose import bridge_name
from ipsecctl.lab.wiring import Lab, LinkKind, NatBox, Role

__all__ = ["COUNTERS", "internet_rules", "machine_rules", "nat_rules", "no_machine_rules"]

COUNTERS = ("private_source", "private_destination", "unknown")
"""Counters of table ``inet internet``: what the internet dropped, and why."""

# RFC 1918, RFC 6598, RFC 3927; RFC 4193.
_PRIVATE_IPV4 = "{ 10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16 }"
_PRIVATE_IPV6 = "fc00::/7"

# What is private is dropped before routing: as there is no route to it, the forward hook would never see it.
_INTERNET = Template("""\
table inet internet {
	counter private_source { }
	counter private_destination { }
	counter unknown { }
	chain prerouting {
		type filter hook prerouting priority filter; policy accept;
		ip saddr $private_ipv4 counter name private_source drop
		ip6 saddr $private_ipv6 counter name private_source drop
		ip daddr $private_ipv4 counter name private_destination drop
		ip6 daddr $private_ipv6 counter name private_destination drop
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
$accept\
		counter name unknown drop
	}
}
""")

_NAT_BOX = Template("""\
table ip nat_box {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
$forward\
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct status dnat accept
		iifname "lan" oifname "wan" accept
	}
}
""")

_MACHINE = Template("""\
table inet $table {
	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		iifname $bridges notrack
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iifname $bridges drop
	}
	chain output {
		type filter hook output priority filter; policy accept;
		oifname $bridges drop
	}
}
table arp $table {
	chain input {
		type filter hook input priority filter; policy accept;
		iifname $bridges drop
	}
}
""")


def internet_rules(lab: Lab) -> str:
    """Return the rules of the internet: it carries packets between the lab's WAN addresses, nothing else.

    What it drops it counts. It drops only what has come in: a leak shows in a capture on its interfaces, and
    still goes nowhere.
    """
    facing = [node.interface("wan") for node in lab.nodes if node.role in (Role.GATEWAY, Role.NAT)]
    known = [a.ip for i in facing if i.link.startswith(f"{LinkKind.WAN}.") for a in i.addresses]
    accept = ""
    for family, selector in ((4, "ip"), (6, "ip6")):
        addresses = [address for address in known if address.version == family]
        if addresses:
            accept += f"\t\t{selector} saddr {_set(addresses)} {selector} daddr {_set(addresses)} accept\n"
    return _INTERNET.substitute(private_ipv4=_PRIVATE_IPV4, private_ipv6=_PRIVATE_IPV6, accept=accept)


def nat_rules(box: NatBox) -> str:
    """Return the rules of a NAT box: everything that leaves is masqueraded, only answers come in.

    That is what a clinic's router does; it does not ask whether a packet should have been in a tunnel.
    """
    forward = ""
    if box.forwards_to is not None:
        forward = f'\t\tiifname "wan" udp dport {{ 500, 4500 }} dnat to {box.forwards_to}\n'
    return _NAT_BOX.substitute(forward=forward)


def machine_rules(lab: Lab) -> str:
    """Return the rules that keep the machine and a lab's wires apart; they name the lab's bridges only.

    Docker has the kernel show bridged packets to the machine's own firewall (bridge-nf-call-iptables). There,
    a packet of a lab whose address happens to be in another Docker network would be masqueraded as if it
    came from that; what is not tracked is not translated. And the machine answers ARP on any bridge for any
    address that it has itself: here it must not, as a lab may have the same.
    """
    bridges = [f'"{bridge_name(lab.name, link.name)}"' for link in lab.links]
    rules = _MACHINE.substitute(table=_table(lab.name), bridges=_set(bridges))
    return no_machine_rules(lab.name) + rules


def no_machine_rules(lab: str) -> str:
    """Return the commands that take out what ``machine_rules`` put in, whether it is there or not."""
    tables = [f"{family} {_table(lab)}" for family in ("inet", "arp")]
    return "".join(f"add table {table}\ndelete table {table}\n" for table in tables)


def _table(lab: str) -> str:
    return f"ipsecctl-lab-{lab}"


def _set(values: Iterable[IPAddress | str]) -> str:
    return "{ " + ", ".join(sorted(map(str, values))) + " }"
