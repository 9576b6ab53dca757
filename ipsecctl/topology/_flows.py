"""What may pass each tunnel: the flows of its group, or everything between the networks of both ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ipsecctl.topology._findings import Findings, listed
from ipsecctl.topology._sites import Sites
from ipsecctl.topology._tunnels import Draft, Group
from ipsecctl.topology.document import FlowDoc
from ipsecctl.topology.model import Flow, FlowEnd, Path

__all__ = ["EVERYTHING", "add_flows"]

EVERYTHING = "all"
"""The name of the one flow of a tunnel without declared flows."""

_ICMP, _ICMPV6 = 1, 58


def add_flows(group: Group, sites: Sites, findings: Findings) -> None:
    """Give every draft of a group its flows; report flows that name nothing, or join nothing."""
    if not group.doc.flows:
        if findings.damaged(("tunnels", group.name, "flows")):
            _presume_everything(group, sites)
        else:
            _add_everything(group, sites, findings)
        return
    _Flows(group, sites, findings).run()


def _add_everything(group: Group, sites: Sites, findings: Findings) -> None:
    for draft in group.drafts:
        left = _all_of(sites, draft.left.gateway.site)
        right = _all_of(sites, draft.right.gateway.site)
        joined = _same_families(left, right, None)
        if joined is not None:
            draft.flows = (Flow(EVERYTHING, *joined, where=draft.where),)
            continue
        empty = [end for end, nets in ((draft.left, left), (draft.right, right)) if not nets]
        for end in empty:
            _report_no_networks(draft, end.gateway.site, end.ref, findings)
        if not empty:
            _report_families(draft, left, right, findings)


def _presume_everything(group: Group, sites: Sites) -> None:
    """Let flows of which nothing is known be all that there could be."""
    for draft in group.drafts:
        joined = _same_families(
            _all_of(sites, draft.left.gateway.site), _all_of(sites, draft.right.gateway.site), None
        )
        draft.presumed = (Flow(EVERYTHING, *joined, where=draft.where),) if joined is not None else ()


def _report_no_networks(draft: Draft, site: str, ref: Path, findings: Findings) -> None:
    damaged = findings.damaged(("sites", site, "networks"))
    if not damaged and findings.first("no networks", site):
        summary = f"the site {site!r} has no networks: the tunnel {draft.name!r} would carry nothing"
        hint = f"add 'networks:' to the site on line {findings.line(('sites', site))}"
        findings.error("IP155", ref, summary, hint)


def _report_families(
    draft: Draft, left: Sequence[FlowEnd], right: Sequence[FlowEnd], findings: Findings
) -> None:
    sides = (draft.left.gateway.site, draft.right.gateway.site)
    if any(findings.damaged(("sites", site, "networks")) for site in sides):
        return
    if findings.first(
        "families",
        draft.group,
        *(sides[1:] if draft.right.ref[2] == "hub" else sides),
        left[0].prefix.version,
    ):
        summary = (
            f"{sides[0]!r} has only IPv{left[0].prefix.version} networks and {sides[1]!r} only "
            f"IPv{right[0].prefix.version}: nothing can pass"
        )
        findings.error("IP152", draft.left.ref, summary, "give both ends networks of one family")


def _all_of(sites: Sites, site: str) -> list[FlowEnd]:
    return [FlowEnd(n.name, prefix) for n in sites.by_name[site].networks for prefix in n.prefixes]


def _same_families(
    left: Sequence[FlowEnd], right: Sequence[FlowEnd], protocol: int | None
) -> tuple[tuple[FlowEnd, ...], tuple[FlowEnd, ...]] | None:
    """Keep the prefixes whose family is there at both ends and fits the protocol; ``None`` when none is."""
    families = {e.prefix.version for e in left} & {e.prefix.version for e in right}
    families -= {6} if protocol == _ICMP else {4} if protocol == _ICMPV6 else set()
    if not families:
        return None
    return (
        tuple(e for e in left if e.prefix.version in families),
        tuple(e for e in right if e.prefix.version in families),
    )


class _Flows:
    """The declared flows of one group."""

    def __init__(self, group: Group, sites: Sites, findings: Findings) -> None:
        self._group = group
        self._sites = sites
        self._findings = findings
        self._names = self._unique_names()
        members = dict.fromkeys(group.sites)
        self._members = set(members)
        self._networks = {n.name for site in members for n in sites.by_name[site].networks}

    def run(self) -> None:
        flows_here = range(len(self._group.doc.flows))
        good = [number for number in flows_here if self._known(number, self._group.doc.flows[number])]
        applied: set[int] = set()
        crossed: set[int] = set()
        for draft in self._group.drafts:
            flows: list[Flow] = []
            # What is known of a flow that is wrong in part must hold all the same.
            for number in flows_here:
                made, matched = self._apply(number, draft)
                flows += made
                if made:
                    applied.add(number)
                elif matched:
                    crossed.add(number)
            draft.flows = tuple(flows)
            draft.presumed = tuple(
                flow for number in flows_here if number not in good for flow in self._presumed(number, draft)
            )
        complete = self._group.joined and len(good) == len(flows_here)
        for number in good:
            if self._has_gaps(number):
                complete = False
            elif number not in applied and self._group.drafts:
                self._report_unapplied(number, families=number in crossed)
                complete = False
        if complete:
            self._report_without_flows()

    def _has_gaps(self, number: int) -> bool:
        """Return whether something had to be left out of a flow, or of the networks that it names."""
        findings, path, doc = self._findings, self._path(number), self._group.doc.flows[number]
        if findings.gone((*path[:-1], -1)) or any(findings.damaged((*path, key)) for key in ("from", "to")):
            return True
        for ref in (*doc.from_, *doc.to):
            site, _, name = ref.rpartition(".")
            homes = [site] if site else list(self._members)
            if any(findings.damaged(("sites", home, "networks", name)) for home in homes):
                return True
        return False

    def _path(self, number: int) -> Path:
        return ("tunnels", self._group.name, "flows", number)

    def _unique_names(self) -> list[str]:
        """Return the name of each flow: its own, or made of its first networks and a number where needed."""
        flows = self._group.doc.flows
        taken: dict[str, int] = {}
        for number, flow in enumerate(flows):
            if flow.name:
                first = taken.setdefault(flow.name, number)
                if first != number:
                    place = self._findings.line(self._path(first))
                    summary = (
                        f"two flows of one tunnel are called {flow.name!r}: the other is on line {place}"
                    )
                    self._findings.error(
                        "IP154", (*self._path(number), "name"), summary, "rename one of them"
                    )
        names: list[str] = []
        for number, flow in enumerate(flows):
            base = flow.name or "-".join(_plain(refs[0]) for refs in (flow.from_, flow.to) if refs)
            name, count = base, 1
            while not flow.name and taken.setdefault(name, number) != number:
                count += 1
                name = f"{base}-{count}"
            names.append(name)
        return names

    def _known(self, number: int, flow: FlowDoc) -> bool:
        """Report what a flow names that is nowhere in the group; return whether all of it is."""
        good = bool(flow.from_ and flow.to)
        for key, refs in (("from", flow.from_), ("to", flow.to)):
            for position, ref in enumerate(refs):
                good &= self._known_ref((*self._path(number), key, position), ref)
        return good

    def _known_ref(self, path: Path, ref: str) -> bool:
        site, dot, name = ref.rpartition(".")
        findings = self._findings
        if not dot:
            if name in self._networks:
                return True
            if not self._may_be_lost(name):
                hint = findings.did_you_mean(
                    name, self._networks, f"the networks there are {listed(sorted(self._networks))}"
                )
                findings.error("IP103", path, f"no site of this tunnel has a network {name!r}", hint)
            return False
        if site not in self._sites.by_name:
            if not findings.damaged(("sites", site)):
                known = self._sites.by_name
                findings.error(
                    "IP101",
                    path,
                    f"there is no site {site!r}",
                    findings.did_you_mean(site, known, f"the sites are {listed(known)}"),
                )
            return False
        if self._sites.network(site, name) is None:
            if not findings.damaged(("sites", site, "networks", name)):
                networks = [n.name for n in self._sites.by_name[site].networks]
                hint = findings.did_you_mean(
                    name,
                    networks,
                    f"its networks are {listed(networks)}" if networks else "add it to the site",
                )
                findings.error("IP103", path, f"the site {site!r} has no network {name!r}", hint)
            return False
        if site not in self._members:
            if self._group.all_sites:
                hint = f"the sites of this tunnel are {listed(self._group.sites)}"
                findings.error("IP151", path, f"the site {site!r} is no end of this tunnel", hint)
            return False
        return True

    def _may_be_lost(self, network: str) -> bool:
        """Return whether a name may be that of a network at an end of the group that is not known."""
        findings = self._findings
        sites = self._members if self._group.all_sites else self._sites.by_name
        if any(findings.damaged(("sites", site, "networks", network)) for site in sites):
            return True
        if self._group.all_sites:
            return False
        return bool(findings.lost(("sites",))) or any(
            network == n.name for site in self._sites.by_name.values() for n in site.networks
        )

    def _apply(self, number: int, draft: Draft) -> tuple[list[Flow], bool]:
        """Return what a declared flow gives in a tunnel, and whether its networks are at both ends."""
        doc = self._group.doc.flows[number]
        left_site, right_site = draft.left.gateway.site, draft.right.gateway.site
        made: list[Flow] = []
        matched = False
        for left_refs, right_refs, calls_right in ((doc.from_, doc.to, True), (doc.to, doc.from_, False)):
            left, right = self._found(left_site, left_refs), self._found(right_site, right_refs)
            if not left or not right:
                continue
            matched = True
            joined = _same_families(left, right, doc.protocol)
            if joined is None:
                continue
            name = self._names[number] if not made else f"{self._names[number]}-back"
            ports = doc.port
            flow = Flow(
                name,
                *joined,
                protocol=doc.protocol,
                left_ports=None if calls_right else ports,
                right_ports=ports if calls_right else None,
                where=self._path(number),
            )
            if not made or _selectors(flow) != _selectors(made[0]):
                made.append(flow)
        return made, matched

    def _presumed(self, number: int, draft: Draft) -> Iterator[Flow]:
        """Yield what a flow may mean in a tunnel that names something unknown, or nothing."""
        doc, sites = self._group.doc.flows[number], [end.gateway.site for end in draft.ends]
        for left_refs, right_refs in ((doc.from_, doc.to), (doc.to, doc.from_)):
            left, right = self._meant(sites[0], left_refs), self._meant(sites[1], right_refs)
            joined = _same_families(left, right, doc.protocol)
            if joined is not None:
                yield Flow(self._names[number], *joined, where=self._path(number))

    def _meant(self, site: str, refs: Sequence[str]) -> list[FlowEnd]:
        """Return what names may mean at a site: the networks they are like, or all if they are like none.

        What is known to be elsewhere is nothing here.
        """
        known = [network.name for network in self._sites.by_name[site].networks]
        meant = self._found(site, refs)
        for ref in refs:
            named_site, _, name = ref.rpartition(".")
            elsewhere = named_site in self._sites.by_name and named_site != site
            if elsewhere or name in (known if named_site else self._networks):
                continue
            near = self._findings.nearest(name, known)
            meant += self._found(site, [near]) if near is not None else _all_of(self._sites, site)
        return meant if refs else _all_of(self._sites, site)

    def _found(self, site: str, refs: Iterable[str]) -> list[FlowEnd]:
        found: dict[FlowEnd, None] = {}
        for ref in refs:
            named_site, _, name = ref.rpartition(".")
            network = self._sites.network(site, name) if named_site in ("", site) else None
            if network is not None:
                found.update(dict.fromkeys(FlowEnd(name, prefix) for prefix in network.prefixes))
        return list(found)

    def _report_unapplied(self, number: int, *, families: bool) -> None:
        path = self._path(number)
        doc = self._group.doc.flows[number]
        if families:
            summary = "this flow joins networks of different families only: nothing can pass"
            hint = "name networks of one family at both ends"
            if doc.protocol in (_ICMP, _ICMPV6):
                hint += "; icmp is for IPv4, icmpv6 for IPv6"
            self._findings.error("IP152", path, summary, hint)
            return
        if not self._group.joined:
            return
        source, target = listed(doc.from_), listed(doc.to)
        summary = f"no tunnel of {self._group.name!r} has {source} at one end and {target} at the other"
        self._findings.error("IP151", path, summary, "name a network of each end, or remove the flow")

    def _report_without_flows(self) -> None:
        bare = [draft.name for draft in self._group.drafts if not draft.flows]
        if bare:
            summary = f"no flow applies to {'the tunnel' if len(bare) == 1 else 'the tunnels'} {listed(bare)}"
            hint = "add a flow that names networks of both its ends, or leave that end out"
            self._findings.error("IP156", ("tunnels", self._group.name, "flows"), summary, hint)


def _plain(ref: str) -> str:
    return ref.rpartition(".")[2]


def _selectors(flow: Flow) -> tuple[object, ...]:
    return flow.left, flow.right, flow.protocol, flow.left_ports, flow.right_ports
