"""What is led into tunnels in route mode, and tunnels of which one would take what is the other's."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

from netaddr import IPAddress, IPNetwork, IPSet

from ipsecctl.topology._findings import Findings
from ipsecctl.topology._tunnels import Draft, DraftEnd, Group
from ipsecctl.topology.model import DataPath, Mode, Path

__all__ = ["check_shadows", "settle_routes"]


def settle_routes(groups: Iterable[Group], findings: Findings) -> None:
    """Give each end what is led into the tunnel there; report what is missing and what cannot be."""
    for group in groups:
        routes = group.doc.routes
        if routes is None or routes == "networks":
            continue
        place: Path = ("tunnels", group.name, "routes")
        routed = any(e.mode is not Mode.POLICY for d in group.drafts for e in d.ends if e.gateway.managed)
        if routes == "none":
            if routed:
                summary = f"nothing leads into the tunnels of {group.name!r}: a routing daemon must do it"
                hint = "remove 'routes: none' if there is none; networks without a route are not reached"
                findings.warning("IP233", place, summary, hint)
            for draft in group.drafts:
                draft.left = dataclasses.replace(draft.left, routes=())
                draft.right = dataclasses.replace(draft.right, routes=())
        elif isinstance(routes, list) and group.doc.between and routed and len(group.drafts) == 1:
            _settle_list(group.drafts[0], routes, place, findings)


def check_shadows(drafts: Iterable[Draft], findings: Findings) -> None:
    """Report tunnels of one gateway of which one takes what is meant for the other.

    Tunnels to different sites with networks in common are a mistake of their own (IP113, IP114), so what is
    left are those to several gateways of one site, and routes that are wider than their networks.
    """
    at: dict[Path, list[tuple[Draft, DraftEnd]]] = defaultdict(list)
    for draft in drafts:
        for end in draft.ends:
            if end.gateway.managed and not end.guessed:
                at[end.gateway.where].append((draft, end))
    for uses in at.values():
        by_site: dict[str, list[tuple[Draft, DraftEnd]]] = defaultdict(list)
        for draft, end in uses:
            if draft.guessed:
                continue  # perhaps both lead to one gateway
            by_site[_far_end(draft, end).gateway.site].append((draft, end))
        for several in by_site.values():
            for one, other in itertools.combinations(several, 2):
                _compare(one, other, findings)
        _check_wide_routes(uses, findings)


def _settle_list(draft: Draft, listed: Sequence[IPNetwork], place: Path, findings: Findings) -> None:
    used: set[IPNetwork] = set()
    for side in ("left", "right"):
        end: DraftEnd = getattr(draft, side)
        far = _prefixes(draft, _far_end(draft, end))
        here = tuple(p for p in dict.fromkeys(listed) if any(_overlap(p, network) for network in far))
        used.update(here)
        if not end.gateway.managed or end.mode is Mode.POLICY:
            continue
        setattr(draft, side, dataclasses.replace(end, routes=here))
        _check_covered(draft, end, far, here, place, findings)
        _check_peer(draft, end, here, place, findings)
    homes = [("sites", end.site, "networks") for end in draft.ends]
    if draft.presumed or any(map(findings.damaged, (place, (*draft.where, "flows"), *homes))):
        return  # what it holds may be what is not known
    for number, prefix in enumerate(listed):
        if prefix not in used:
            summary = f"{prefix} holds no network of either end of the tunnel {draft.name!r}"
            hint = "add it to the networks of the site that has it, or remove it"
            findings.error("IP234", (*place, number), summary, hint)


def _check_covered(
    draft: Draft,
    end: DraftEnd,
    far: Iterable[IPNetwork],
    here: Iterable[IPNetwork],
    place: Path,
    findings: Findings,
) -> None:
    led = IPSet(here)
    for network in sorted(set(far)):
        if not findings.damaged(place) and network not in led:
            summary = (
                f"routes missing: {network} is not led into the tunnel {draft.name!r} at {end.gateway.name!r}"
            )
            findings.error("IP232", place, summary, f"add {network}, or remove 'routes'", key=True)


def _check_peer(
    draft: Draft, end: DraftEnd, here: Iterable[IPNetwork], place: Path, findings: Findings
) -> None:
    """Report routes that would lead the tunnel's own packets into it."""
    peer = _far_end(draft, end).gateway.reachable_at
    for prefix in here:
        if isinstance(peer, IPAddress) and peer in prefix:
            summary = f"{prefix} holds {peer}, the far gateway itself: the tunnel's packets would go into it"
            findings.error("IP235", place, summary, "leave that address out", key=True)


def _compare(one: tuple[Draft, DraftEnd], other: tuple[Draft, DraftEnd], findings: Findings) -> None:
    (first, here), (second, there) = one, other
    if _far_end(*one).gateway is _far_end(*other).gateway:
        return  # twins (IP143)
    policies = [_is_policy(here), _is_policy(there)]
    if not any(policies) or not _cross((first, here), (second, there)):
        return
    if not findings.first("shadow", first.group, second.group, here.gateway.name):
        return
    line = findings.line(first.where)
    names = f"the tunnels {first.name!r} (line {line}) and {second.name!r}"
    if all(policies):
        summary = (
            f"{names} are for the same networks: at {here.gateway.name!r} one IPsec policy shadows the other"
        )
        hint = (
            "write 'mode: route' for both: routes then decide, those into the first by name before the others"
        )
        findings.warning("IP236", second.where, summary, hint, key=True)
    elif Mode.ROUTE in (here.mode, there.mode):
        summary = (
            f"{names} are for the same networks, one by policy and one by route: at "
            f"{here.gateway.name!r} the route takes all of it"
        )
        findings.error("IP236", second.where, summary, "give both the same 'mode'", key=True)


def _is_policy(end: DraftEnd) -> bool:
    """Return whether an end is certainly in policy mode: ``auto`` may become either."""
    return end.mode is Mode.POLICY or (end.mode is Mode.AUTO and end.gateway.data_path is DataPath.LIBIPSEC)


def _cross(one_use: tuple[Draft, DraftEnd], other_use: tuple[Draft, DraftEnd]) -> bool:
    """Return whether some packet of this gateway would suit both tunnels."""
    (first, here), (second, there) = one_use, other_use
    for one in first.flows:
        for other in second.flows:
            ours = (one.left, one.right) if here.gateway is first.left.gateway else (one.right, one.left)
            theirs = (other.left, other.right)
            if there.gateway is not second.left.gateway:
                theirs = (other.right, other.left)
            if all(
                any(_overlap(a.prefix, b.prefix) for a in mine for b in other_side)
                for mine, other_side in zip(ours, theirs, strict=True)
            ):
                return True
    return False


def _check_wide_routes(uses: Sequence[tuple[Draft, DraftEnd]], findings: Findings) -> None:
    """Report a route wider than its networks that takes what a tunnel in policy mode is for."""
    by_policy = [use for use in uses if _is_policy(use[1])]
    for draft, end in uses if by_policy else ():
        for prefix in end.routes or ():
            for other, there in by_policy:
                far = _prefixes(other, _far_end(other, there))
                lost = next((network for network in far if _overlap(prefix, network)), None)
                if lost is not None and findings.first("wide route", draft.name, other.name):
                    summary = (
                        f"the route {prefix} into {draft.name!r} takes {lost}, which the tunnel "
                        f"{other.name!r} (line {findings.line(other.where)}) is for, by policy"
                    )
                    hint = "give that tunnel 'mode: route', too, or make the route narrower"
                    findings.error("IP237", (*draft.where, "routes"), summary, hint, key=True)


def _far_end(draft: Draft, end: DraftEnd) -> DraftEnd:
    return draft.right if end.gateway is draft.left.gateway else draft.left


def _prefixes(draft: Draft, end: DraftEnd) -> list[IPNetwork]:
    """Return the prefixes of the flows at an end."""
    is_left = end.gateway is draft.left.gateway
    return [each.prefix for flow in draft.flows for each in (flow.left if is_left else flow.right)]


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return bool(one.version == other.version and one.first <= other.last and other.first <= one.last)
