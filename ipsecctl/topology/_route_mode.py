"""What each tunnel says for route mode, and whether its ends and its gateways can do it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from netaddr import IPAddress, IPNetwork

from ipsecctl.crypto import NO_OPTIONS
from ipsecctl.topology._findings import Findings
from ipsecctl.topology._profiles import esp_of
from ipsecctl.topology._sites import Sites
from ipsecctl.topology._tunnels import Draft, DraftEnd, Group
from ipsecctl.topology.model import ChildPer, DataPath, Mode, Path

__all__ = ["check_inside", "check_modes"]

_KERNEL_ONLY: Final = ("hw_offload", "per_cpu_sas", "iptfs", "mark_in", "mark_out", "copy_df", "copy_dscp")


def check_modes(groups: Iterable[Group], findings: Findings) -> None:
    """Check every tunnel for itself; a mistake that many tunnels share is reported once."""
    for group in groups:
        _check_keys_of_ends(group, findings)
        for draft in group.drafts:
            _check_data_path(draft, findings)
            _check_any(draft, findings)
            _check_used(group, draft, findings)
            _check_options(draft, findings)
            _check_addresses(draft, findings)


def check_inside(sites: Sites, findings: Findings) -> None:
    """Check that each gateway's inside addresses lie in networks of its site, one of each family."""
    for site in sites.by_name.values():
        networks = [prefix for network in site.networks for prefix in network.prefixes]
        whole = not findings.damaged((*site.where, "networks")) and not any(
            findings.damaged((*site.where, "networks", network.name)) for network in site.networks
        )
        for gateway in site.gateways:
            place: Path = (*gateway.where, "inside")
            families = [address.version for address in gateway.inside]
            if len(set(families)) < len(families):
                summary = f"the gateway {gateway.name!r} has two inside addresses of one family"
                findings.error(
                    "IP228", place, summary, "keep the one that its own packets shall have as source"
                )
            for address in gateway.inside:
                if whole and not any(address in prefix for prefix in networks):
                    summary = f"{address} lies in no network of the site {site.name!r}"
                    hint = "write the gateway's own address in one of them, or add its network"
                    findings.error("IP228", place, summary, hint)


def _ours(draft: Draft) -> Iterator[DraftEnd]:
    return (end for end in draft.ends if end.gateway.managed)


def _has_known_mode(draft: Draft, end: DraftEnd, findings: Findings) -> bool:
    """Return whether nothing that would decide the mode of an end is unknown or was wrong."""
    of_tunnel, of_gateway = (*draft.where, "mode"), (*end.gateway.where, "mode")
    if findings.damaged(of_tunnel) or end.mode_at == of_tunnel:
        return not findings.damaged(of_tunnel)
    if end.guessed or findings.damaged(of_gateway) or end.mode_at == of_gateway:
        return not end.guessed and not findings.damaged(of_gateway)
    return not findings.damaged(("defaults", "mode"))


def _check_data_path(draft: Draft, findings: Findings) -> None:
    for end in _ours(draft):
        if end.guessed:
            continue
        if end.mode is not Mode.ROUTE or end.gateway.data_path is not DataPath.LIBIPSEC:
            continue
        path = findings.nearest_place((*end.gateway.where, "datapath"), ("defaults", "datapath"))
        if findings.first("route on libipsec", end.mode_at, path):
            summary = (
                f"the gateway {end.gateway.name!r} cannot have the mode 'route': its data path is libipsec "
                f"(line {findings.line(path)}), which has no interfaces for tunnels"
            )
            hint = "write 'mode: policy' or 'auto', or let the kernel carry ESP: 'datapath: kernel'"
            findings.error("IP220", end.mode_at, summary, hint)


def _check_any(draft: Draft, findings: Findings) -> None:
    if not draft.any_selectors:
        return
    place: Path = (*draft.where, "selectors")
    for end in _ours(draft):
        known = _has_known_mode(draft, end, findings)
        if known and end.mode is not Mode.ROUTE and findings.first("any", draft.group):
            at = f" (line {findings.line(end.mode_at)})" if findings.says(end.mode_at) else ""
            summary = (
                f"selectors of 0.0.0.0/0 without if_id: the mode is {str(end.mode)!r} at "
                f"{end.gateway.name!r}{at}, whose policies would take all of its traffic"
            )
            findings.error(
                "IP221", place, summary, "add 'mode: route' to the tunnel, or leave 'selectors' out"
            )
    narrow = next((f for f in draft.flows if f.protocol is not None), None)
    if narrow is not None and findings.first("any with flows", draft.group):
        line = findings.line(narrow.where)
        summary = f"'selectors: any' lets pass what the flow {narrow.name!r} (line {line}) does not"
        hint = "leave 'protocol' and 'port' to a firewall, or leave 'selectors' out"
        findings.error("IP222", place, summary, hint)
    if draft.child_per is ChildPer.SUBNET_PAIR and findings.first("any by pairs", draft.group):
        summary = "'selectors: any' and 'children: subnet-pair' exclude each other"
        findings.error("IP222", place, summary, "keep one of them")


def _check_used(group: Group, draft: Draft, findings: Findings) -> None:
    """Report what is for route mode only where no end has it."""
    for end in _ours(draft):
        if end.mode is not Mode.POLICY or not _has_known_mode(draft, end, findings):
            return
    for key in ("if_id", "addresses", "routes"):
        if key in group.doc.model_fields_set and findings.first("for route mode", draft.group, key):
            summary = f"{key!r} means nothing in policy mode"
            hint = "add 'mode: route' (or 'auto') to the tunnel, or remove it"
            findings.error("IP223", (*draft.where, key), summary, hint, key=True)


def _check_options(draft: Draft, findings: Findings) -> None:
    for end in _ours(draft):
        if end.options is NO_OPTIONS:
            continue
        asked = [key for key in _KERNEL_ONLY if getattr(end.options, key) not in (None, "", False, "no")]
        if asked and end.gateway.data_path is DataPath.LIBIPSEC and not end.guessed:
            place = _option_place(draft, end, asked[0], findings)
            if findings.first("option on libipsec", place, end.gateway.name):
                summary = (
                    f"the gateway {end.gateway.name!r} cannot have {asked[0]!r}: its data path is libipsec"
                )
                findings.error("IP239", place, summary, "let the kernel carry ESP, or leave the option out")
        esn = end.profile is not None and any(proposal.esn for proposal in esp_of(end.profile))
        if esn and end.options.replay_window == 0:
            place = _option_place(draft, end, "replay_window", findings)
            if findings.first("no window with esn", place):
                summary = (
                    "a replay window of 0 and extended sequence numbers exclude each other: "
                    "the kernel cannot tell how far they have come"
                )
                findings.error(
                    "IP238", place, summary, "leave 'replay_window' out, or '-esn' in the proposals"
                )


def _option_place(draft: Draft, end: DraftEnd, key: str, findings: Findings) -> Path:
    profile = end.profile.name if end.profile is not None else ""
    return findings.nearest_place(
        (*draft.where, "options", key), ("profiles", profile, "options", key), end.profile_at
    )


def _check_keys_of_ends(group: Group, findings: Findings) -> None:
    """Report addresses for what is no end of the pair, and for one end under two names."""
    known: dict[str, str] = {}
    for draft in group.drafts:
        for end in draft.ends:
            known |= {end.gateway.site: end.gateway.name}
            if not end.guessed:
                known |= {f"{end.gateway.site}/{end.gateway.name}": end.gateway.name}
    named: dict[str, str] = {}
    for key in group.doc.addresses if group.joined and known else ():
        place: Path = ("tunnels", group.name, "addresses", key)
        site, slash, _ = key.partition("/")
        if slash and key not in known and any(e.guessed and e.site == site for e in group.drafts[0].ends):
            continue
        if key not in known:
            hint = f"write {' or '.join(dict.fromkeys(e.gateway.site for e in group.drafts[0].ends))}"
            findings.error("IP224", place, f"{key!r} is no end of this tunnel", hint, key=True)
        elif (first := named.setdefault(known[key], key)) != key:
            summary = f"{key!r} and {first!r} are one end of this tunnel"
            findings.error("IP224", place, summary, "write all its addresses in one place", key=True)


def _check_addresses(draft: Draft, findings: Findings) -> None:
    """Check that the ends' addresses fit each other: in one subnet of each family, or alone."""
    place: Path = (*draft.where, "addresses")
    for version in (4, 6):
        left, right = ([a for a in end.addresses if a.version == version] for end in draft.ends)
        for one in left:
            for other in right:
                if one.ip == other.ip:
                    summary = f"both ends have the address {one.ip}"
                    findings.error("IP226", place, summary, "give each end its own", key=True)
        alone = 32 if version == 4 else 128
        subnets = [{a.cidr for a in side if a.prefixlen < alone} for side in (left, right)]
        if subnets[0] and subnets[1] and subnets[0] != subnets[1]:
            ours, theirs = (str(min(found)) for found in subnets)
            summary = f"the ends are in different subnets: {ours} and {theirs}"
            findings.error("IP226", place, summary, f"give both addresses in one, or with /{alone}", key=True)
    for end in draft.ends:
        for address in end.addresses:
            if _is_whole_subnet(address):
                summary = f"{address} is the address of the subnet itself, or its broadcast address"
                hint = f"write one of the hosts in {address.cidr}"
                findings.error("IP226", place, summary, hint, key=True)


def _is_whole_subnet(address: IPNetwork) -> bool:
    if address.version == 6 or address.prefixlen >= 31:
        return False
    ends = (IPAddress(address.first), IPAddress(address.last))
    return address.ip in ends
