"""What of others' keeps tunnels' packets from passing: rules of iptables-legacy, which nft does not show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from netaddr import AddrFormatError, IPNetwork

from ipsecctl.desired import InterfaceKind
from ipsecctl.plan.change import Conflict
from ipsecctl.plan.wanted import Wanted

__all__ = ["legacy_conflicts"]

_RULE = re.compile(r"(?P<family>ip6?) (?P<table>\S+) -(?P<verb>[AP]) (?P<chain>\S+) ?(?P<rest>.*)")
_DROPS = re.compile(r"(-m comment --comment (\"[^\"]*\"|\S+) )?-j (DROP|REJECT)\b.*")
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
    for rule in rules:
        match = _RULE.fullmatch(rule)
        if match and match["table"] in _FILTERING and match["chain"] == "FORWARD":
            by_family.setdefault(match["family"], []).append(match)
    remote = _far_networks(wanted)
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
