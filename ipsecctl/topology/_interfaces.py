"""Interfaces of tunnels at one gateway: what would make two of them one, and addresses that are taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from netaddr import IPNetwork

from ipsecctl.topology._findings import Findings
from ipsecctl.topology._sites import Sites
from ipsecctl.topology._tunnels import Draft, DraftEnd
from ipsecctl.topology.model import Mode, Path
from ipsecctl.topology.naming import interface_name

__all__ = ["check_interfaces"]


@dataclass(frozen=True, slots=True)
class _Use:
    """A tunnel that has, or may have, an interface at a gateway."""

    draft: Draft
    end: DraftEnd


def check_interfaces(drafts: Iterable[Draft], sites: Sites, findings: Findings) -> None:
    """Report what two tunnels of one gateway cannot share, and addresses that are somebody else's."""
    at: dict[Path, list[_Use]] = defaultdict(list)
    joined: dict[Path, set[str]] = defaultdict(set)
    for draft in drafts:
        for end in draft.ends:
            if not end.gateway.managed:
                continue
            # What is at a gateway that is not known meets nothing of the others.
            place: Path = (*end.gateway.where, draft.name) if end.guessed else end.gateway.where
            joined[place] |= {draft.left.gateway.site, draft.right.gateway.site}
            if end.mode is not Mode.POLICY:
                at[place].append(_Use(draft, end))
    for place, uses in at.items():
        _check_ids(uses, findings)
        _check_names(uses, findings)
        addressed = [use for use in uses if use.end.addresses]
        if addressed:
            _check_taken(addressed, sorted(joined[place]), sites, findings)


def _check_ids(uses: Iterable[_Use], findings: Findings) -> None:
    first: dict[int, _Use] = {}
    for use in uses:
        other = first.setdefault(use.draft.if_id, use)
        pair = frozenset((use.draft.name, other.draft.name))
        if other is use or not findings.first("if_id", pair):
            continue
        place = findings.nearest_place((*use.draft.where, "if_id"), use.draft.where)
        line = findings.line(findings.nearest_place((*other.draft.where, "if_id"), other.draft.where))
        summary = (
            f"the tunnels {other.draft.name!r} (line {line}) and {use.draft.name!r} have one if_id, "
            f"{use.draft.if_id}, at the gateway {use.end.gateway.name!r}"
        )
        hint = "give each its own, or leave 'if_id' out: one is made of the names"
        findings.error("IP230", place, summary, hint)


def _check_names(uses: Iterable[_Use], findings: Findings) -> None:
    first: dict[str, _Use] = {}
    for use in uses:
        name = interface_name(use.draft.name)
        other = first.setdefault(name, use)
        pair = frozenset((use.draft.name, other.draft.name))
        if other is use or not findings.first("interface name", pair):
            continue
        summary = (
            f"the interfaces of the tunnels {other.draft.name!r} (line "
            f"{findings.line(other.draft.where)}) and {use.draft.name!r} would both be called {name!r}"
        )
        findings.error("IP231", use.draft.where, summary, "rename one of the tunnels", key=True)


def _check_taken(uses: Iterable[_Use], joined: Iterable[str], sites: Sites, findings: Findings) -> None:
    """Report addresses of a gateway's interfaces in networks that it knows, or in each other's subnets."""
    networks = [
        (prefix, f"{site}.{network.name} {prefix}", (*network.where, number))
        for site in joined
        for network in sites.by_name[site].networks
        for number, prefix in enumerate(network.prefixes)
    ]
    others: list[tuple[IPNetwork, _Use]] = []
    for use in uses:
        place: Path = (*use.draft.where, "addresses")
        for address in use.end.addresses:
            subnet = address.cidr
            for prefix, label, where in networks:
                if _overlap(subnet, prefix) and findings.first("taken", place, label):
                    summary = f"{address} overlaps the network {label} (line {findings.line(where)})"
                    hint = "take one that no site has, such as a subnet of 169.254.0.0/16"
                    findings.error("IP227", place, summary, hint, key=True)
            for taken, other in others:
                if _overlap(subnet, taken) and findings.first("taken", place, other.draft.name):
                    line = findings.line((*other.draft.where, "addresses"))
                    summary = (
                        f"{address} overlaps {taken} of the tunnel {other.draft.name!r} (line {line}) at the "
                        f"gateway {use.end.gateway.name!r}"
                    )
                    findings.error("IP227", place, summary, "give each tunnel a subnet of its own", key=True)
        others += [(address.cidr, use) for address in use.end.addresses]


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return bool(one.version == other.version and one.first <= other.last and other.first <= one.last)
