"""What of others' keeps tunnels' packets from passing: rules that nft does not show, IPv6 that is off."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from netaddr import AddrFormatError, IPNetwork

from ipsecctl.desired import InterfaceKind
from ipsecctl.gateway import Facts
from ipsecctl.plan.change import Conflict, Note
from ipsecctl.plan.wanted import Wanted
from ipsecctl.topology import DataPath

__all__ = ["ipv6_notes", "legacy_conflicts", "legacy_notes"]

_RULE = re.compile(r"(?P<family>ip6?) (?P<table>\S+) -(?P<verb>[AP]) (?P<chain>\S+) ?(?P<rest>.*)")
_DROPS = re.compile(r"(-m comment --comment (\"[^\"]*\"|\S+) )?-j (DROP|REJECT)\b.*")
_REWRITES = re.compile(r"-j (MASQUERADE|SNAT|NETMAP)\b")
_LEAVES_IPSEC_ALONE = re.compile(r"-m policy .*--pol (none|ipsec)\b")
_FILTERING = ("filter", "mangle", "raw", "security")
_LETS_IPSEC_PASS = re.compile(r"-m policy .*--pol ipsec\b.* -j ACCEPT|-[io] (ix-\S+|ipsec0) .*-j ACCEPT")


def legacy_conflicts(wanted: Wanted, rules: Iterable[str]) -> Iterator[Conflict]:
    """Yield for each family whose forwarded packets all end in a DROP or REJECT of iptables-legacy.

    A rule that lets IPsec, or one of the far networks, pass is taken to be there for the tunnels. Rules that
    drop only some packets are somebody's firewall, and are right to be there.
    """
    if not wanted.connections:
        return
    by_family: dict[str, list[re.Match[str]]] = {}
    for match in _read(rules):
        if match["table"] in _FILTERING and match["chain"] == "FORWARD":
            by_family.setdefault(match["family"], []).append(match)
    remote = _far_networks(wanted) if by_family else frozenset[IPNetwork]()
    for family, found in sorted(by_family.items()):
        concerned = any(network.version == (4 if family == "ip" else 6) for network in remote)
        stopping = next((match for match in found if _stops_all(match)), None)
        if concerned and stopping and not any(_lets_pass(match["rest"], remote) for match in found):
            command = f"{family}tables-legacy"
            yield Conflict(
                f"{wanted.gateway}: iptables-legacy drops what is forwarded "
                f"({command} -t {stopping['table']}: -{stopping['verb']} FORWARD {stopping['rest']})",
                f"Let tunnels pass ({' and '.join(_commands(wanted, command))}), or move those rules to "
                "nftables.",
            )


def legacy_notes(wanted: Wanted, rules: Iterable[str], unread: Iterable[str]) -> Iterator[Note]:
    """Yield what rules of iptables-legacy may do to tunnels' packets, where it is not certain that they do.

    ``unread`` are tables of which only the names are known.
    """
    if not wanted.connections:
        return
    found = list(_read(rules))
    dropping = [m for m in found if m["chain"] == "FORWARD" and _some_dropped(m)]
    rewriting = [m for m in found if m["chain"] == "POSTROUTING" and _rewrites(m["rest"])]
    for matches, does, mend in (
        (dropping, "may drop what tunnels carry", "Let what tunnels carry pass before it"),
        (rewriting, "may rewrite the source of what goes into tunnels", "Leave tunnels out of it"),
    ):
        for match in matches[:1]:
            command = f"{match['family']}tables-legacy"
            more = f", and {len(matches) - 1} more like it" if len(matches) > 1 else ""
            yield Note(
                f"{wanted.gateway}: a rule of iptables-legacy {does} ({command} -t {match['table']}: "
                f"-{match['verb']} {match['chain']} {match['rest']}{more}); nft does not show it",
                f"Look with '{command}-save -t {match['table']}'. {mend} (-m policy --pol ipsec tells it).",
            )
    for table in unread:
        family, _, name = table.partition(" ")
        command = f"{family}tables-legacy-save"
        yield Note(
            f"{wanted.gateway}: iptables-legacy is in use (table {name}), and its rules cannot be read: "
            f"{command} is not installed. They may drop or rewrite what tunnels carry",
            f"Install it (package iptables) and look with '{command}'.",
        )


def _some_dropped(match: re.Match[str]) -> bool:
    """Whether a rule drops packets, but not all: those that drop all are a conflict."""
    drops = re.search(r"-j (DROP|REJECT)\b", match["rest"]) is not None
    return match["verb"] == "A" and match["table"] in _FILTERING and drops and not _stops_all(match)


def _rewrites(rule: str) -> bool:
    return bool(_REWRITES.search(rule)) and not _LEAVES_IPSEC_ALONE.search(rule)


def ipv6_notes(wanted: Wanted, facts: Facts) -> Iterator[Note]:
    """Yield where IPv6 is off on the interface at which the kernel looks at what it has decrypted.

    That is the one that the ESP packet came in at, over IPv4 too; a tunnel's own interface is ours, and has
    IPv6 on. charon's own data path has an interface of its own as well.
    """
    if wanted.data_path is not DataPath.KERNEL:
        return
    concerned: dict[str, list[str]] = {}
    for name, connection in sorted(wanted.connections.items()):
        for interface in _outside(connection, facts) & facts.ipv6_off:
            if _ipv6_by_policy(connection):
                concerned.setdefault(interface, []).append(name)
    for interface, tunnels in sorted(concerned.items()):
        shown = ", ".join(tunnels[:3]) + (f" and {len(tunnels) - 3} more" if len(tunnels) > 3 else "")
        yield Note(
            f"{wanted.gateway}: IPv6 is off on {interface} (net.ipv6.conf.{interface}.disable_ipv6 is 1): "
            f"the kernel drops the IPv6 packets that come out of tunnels there ({shown})",
            f"Switch it on (sysctl -w net.ipv6.conf.{interface}.disable_ipv6=0, and in /etc/sysctl.d; with "
            "addr_gen_mode=1 and accept_ra=0 it has no address), or take 'mode: route'.",
        )


def _outside(connection: Mapping[str, Any], facts: Facts) -> set[str]:
    """Return where a connection's packets come in: the interfaces of its addresses, or the default."""
    names = {
        facts.outside[address] for address in connection.get("local_addrs", ()) if address in facts.outside
    }
    default = facts.outside.get("default")
    return names or ({default} if default else set())


def _ipv6_by_policy(connection: Mapping[str, Any]) -> bool:
    return any(
        ":" in selector
        for child in connection.get("children", {}).values()
        if "if_id_in" not in child
        for selector in child.get("remote_ts", ())
    )


def _read(rules: Iterable[str]) -> Iterator[re.Match[str]]:
    return (match for rule in rules if (match := _RULE.fullmatch(rule)))


def _commands(wanted: Wanted, command: str) -> Iterator[str]:
    routed = any(interface.kind is InterfaceKind.XFRM for interface in wanted.interfaces.values())
    for direction, flag in (("in", "-i"), ("out", "-o")):
        matching = f"{flag} ix-+" if routed else f"-m policy --dir {direction} --pol ipsec"
        yield f"{command} -I FORWARD {matching} -j ACCEPT"


def _stops_all(match: re.Match[str]) -> bool:
    if match["verb"] == "P":
        return match["rest"].split(" ")[0] == "DROP"
    return bool(_DROPS.fullmatch(match["rest"]))


def _lets_pass(rule: str, remote: frozenset[IPNetwork]) -> bool:
    if not rule.endswith("-j ACCEPT"):
        return False
    if _LETS_IPSEC_PASS.search(rule) or rule == "-j ACCEPT":
        return True
    for word in rule.split():
        if "." in word or ":" in word:
            try:
                network = IPNetwork(word)
            except (AddrFormatError, ValueError):
                continue
            if any(
                network in other or other in network for other in remote if other.version == network.version
            ):
                return True
    return False


def _far_networks(wanted: Wanted) -> frozenset[IPNetwork]:
    """Return the networks behind tunnels; selectors that take anything say nothing of them."""
    selectors = {
        IPNetwork(selector.partition("[")[0])
        for connection in wanted.connections.values()
        for child in connection.get("children", {}).values()
        for selector in child.get("remote_ts", ())
    }
    routed = {route.prefix for route in wanted.routes}
    return frozenset(network for network in selectors | routed if network.prefixlen)
