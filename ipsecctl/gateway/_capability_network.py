"""Interfaces, routes, routing rules, sockets and the firewall of a gateway, from the script's answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from netaddr import AddrFormatError, IPNetwork

from ipsecctl.gateway._capability_answers import Answers, whole, words
from ipsecctl.gateway.capabilities import (
    LIBIPSEC_PLUGIN,
    Answer,
    Charon,
    DefaultRoute,
    Firewall,
    Has,
    Interface,
    IpRule,
    Listener,
    NatRule,
    RouteTable,
)

__all__ = [
    "read_default_routes",
    "read_firewall",
    "read_interfaces",
    "read_listeners",
    "read_rules",
    "read_tables",
]

_LIBIPSEC_DEVICE = "ipsec0"
_LIBIPSEC_OWNER = "charon (kernel-libipsec)"
_OURS = "ipsecctl"
_LISTENER = re.compile(r"(?P<address>\S+):(?P<port>500|4500)\s+\S+(?:\s+users:\(\(\"(?P<process>[^\"]*)\")?")
# What nft says when it may not ask the kernel, which tells nothing of what the kernel takes.
_NOT_ALLOWED = ("not permitted", "permission denied", "netlink socket", "cache initialization failed")
_SOURCE_NAT = re.compile(r"-j (MASQUERADE|SNAT|NETMAP)\b")
_IKE_REDIRECTED = re.compile(r"port \S*\b4?500\b.* -j (DNAT|REDIRECT)\b")


def read_interfaces(answers: Answers, charon: Charon | None) -> Iterator[Interface]:
    netdevs = {parts[0]: parts[1] for parts in words(answers.lines.get("netdev", ()), 2)}
    offload = {
        parts[0]: " ".join(parts[1:]) for line in answers.lines.get("offload", ()) if (parts := line.split())
    }
    for entry in answers.document("addresses") or []:
        name, mtu = entry.get("ifname"), whole(entry.get("mtu"))
        if not isinstance(name, str) or mtu is None:
            continue
        info = entry.get("linkinfo")
        info = info if isinstance(info, dict) else {}
        kind, data = info.get("info_kind"), info.get("info_data")
        kind = kind if isinstance(kind, str) else ""
        if_id = whole(data.get("if_id")) if isinstance(data, dict) else None
        yield Interface(
            name=name,
            mtu=mtu,
            addresses=tuple(sorted(_addresses(entry.get("addr_info")))),
            kind=kind,
            if_id=if_id if kind == "xfrm" else None,
            owner=_owner(name, kind, str(entry.get("ifalias", "")), netdevs, charon),
            offload=_offload(offload.get(name), answers.refusals.get("offload", "")),
        )


def _owner(name: str, kind: str, alias: str, netdevs: Mapping[str, str], charon: Charon | None) -> str:
    """Return who made an interface that concerns us, as far as it can be told."""
    if name == _LIBIPSEC_DEVICE and kind == "tun":
        return _LIBIPSEC_OWNER if charon and LIBIPSEC_PLUGIN in charon.plugins else ""
    if kind != "xfrm":
        return ""
    if alias.startswith(_OURS) or _OURS in netdevs.get(name, ""):
        return _OURS
    return netdevs.get(name, "")


def _addresses(found: object) -> Iterator[IPNetwork]:
    for entry in found if isinstance(found, list) else []:
        if isinstance(entry, dict):
            try:
                yield IPNetwork(f"{entry.get('local')}/{entry.get('prefixlen')}")
            except (AddrFormatError, ValueError):
                continue


def _offload(said: str | None, refusal: str) -> Answer:
    if not said:
        return Answer(Has.UNKNOWN, refusal or "ethtool says nothing of it")
    return Answer(Has.YES) if said.startswith("on") else Answer(Has.NO, said)


def read_rules(answers: Answers) -> Iterator[IpRule]:
    for family in (4, 6):
        for entry in answers.document(f"rules{family}") or []:
            priority = whole(entry.get("priority"))
            if priority is None:
                continue
            told = {
                key: value
                for key, value in entry.items()
                if key not in ("priority", "table", "srclen", "dstlen")
            }
            selector = " ".join(f"{key} {value}" for key, value in told.items())
            yield IpRule(family, priority, str(entry.get("table", "")), selector)


def read_default_routes(answers: Answers) -> Iterator[DefaultRoute]:
    for family in (4, 6):
        for line in answers.lines.get(f"routes{family}", ()):
            first, _, route = line.partition(" ")
            if first == "default" and route:
                yield DefaultRoute(family, route.strip())


def read_tables(answers: Answers) -> Iterator[RouteTable]:
    for family in (4, 6):
        for first, name, routes, ours in words(answers.lines.get(f"routes{family}", ()), 4):
            counts = whole(routes), whole(ours)
            if first == "table" and counts[0] is not None and counts[1] is not None:
                yield RouteTable(family, name, counts[0], counts[1])


def read_firewall(answers: Answers) -> Firewall:
    """Return what filters and rewrites packets."""
    listed = answers.lines.get("ruleset", ())
    legacy = answers.lines.get("legacy_rule", ())
    version, lacking = answers.first("nft_version"), answers.refusals.get("nft_version", "")
    return Firewall(
        nftables=version,
        nftables_why="" if version else answers.why_not("nft_version"),
        sets=_rules_taken(answers, "nft_sets", lacking),
        xfrm=_rules_taken(answers, "nft_xfrm", lacking),
        tables=tuple(sorted(line.removeprefix("table ") for line in listed if line.startswith("table "))),
        source_nat=tuple(sorted((*_listed(listed, "snat"), *_legacy(legacy, _SOURCE_NAT)))),
        ike_redirected=tuple(sorted((*_listed(listed, "dnat"), *_legacy(legacy, _IKE_REDIRECTED)))),
        legacy_tables=tuple(sorted(answers.lines.get("legacy_table", ()))),
        legacy_rules=None if "legacy_unread" in answers.lines else tuple(sorted(legacy)),
    )


def _rules_taken(answers: Answers, trial: str, lacking: str) -> Answer:
    """Return whether nft took a table for good. Any complaint about the rules themselves is a "no"."""
    if lacking:
        return Answer(Has.NO, lacking)
    if trial not in answers.statuses:
        return answers.trial(trial)
    status, said = answers.statuses[trial]
    if status == 0:
        return Answer(Has.YES)
    plain = said.lower()
    if "protocol not supported" in plain:  # no nf_tables in the kernel: its netlink socket cannot be opened
        return Answer(Has.NO, said)
    allowed = not any(sign in plain for sign in _NOT_ALLOWED)
    return Answer(Has.NO if status == 1 and said and allowed else Has.UNKNOWN, said or f"status {status}")


def _listed(lines: Iterable[str], kind: str) -> Iterator[NatRule]:
    for first, family, table, chain, rule in words(lines, 5):
        if first == kind:
            yield NatRule(f"{family} {table} {chain.removesuffix(':')}", rule)


def _legacy(lines: Iterable[str], wanted: re.Pattern[str]) -> Iterator[NatRule]:
    for family, table, rule in words(lines, 3):
        if wanted.search(rule):
            yield NatRule(f"{family}tables-legacy {table}", rule)


def read_listeners(answers: Answers) -> Iterator[Listener]:
    """Yield who listens on UDP 500 and 4500."""
    for line in answers.lines.get("listeners", ()):
        found = _LISTENER.search(line)
        if found is not None:
            yield Listener(int(found["port"]), found["address"].strip("[]"), found["process"] or "")
