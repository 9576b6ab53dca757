"""What must hold at each tunnel: reachable, authenticated alike, proposals in common, room for IPv6."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from netaddr import IPAddress, IPNetwork

from ipsecctl.crypto import (
    IPV6_MIN_MTU,
    EspSuite,
    Profile,
    common_suites,
    in_common,
    overhead,
)
from ipsecctl.topology._findings import Findings
from ipsecctl.topology._profiles import esp_of, ike_of
from ipsecctl.topology._sites import Sites, is_located
from ipsecctl.topology._tunnels import Draft, DraftEnd, Group
from ipsecctl.topology.model import ChildPer, Flow, Gateway, Path
from ipsecctl.topology.spelling import LONGEST_CHILD_NAME

__all__ = ["check_tunnels", "report_unused_sites"]

_PRIVATE: Final = (
    (IPNetwork("10.0.0.0/8"), "RFC 1918"),
    (IPNetwork("172.16.0.0/12"), "RFC 1918"),
    (IPNetwork("192.168.0.0/16"), "RFC 1918"),
    (IPNetwork("100.64.0.0/10"), "RFC 6598, of a provider's NAT"),
    (IPNetwork("fc00::/7"), "RFC 4193"),
)


def check_tunnels(groups: Iterable[Group], findings: Findings) -> None:
    """Check every tunnel for itself; a mistake that many tunnels share is reported once."""
    for group in groups:
        for draft in group.drafts:
            if not draft.guessed:
                _check_reachable(group, draft, findings)
                _check_private(draft, findings)
            _check_mtu(draft, findings)
            _check_credentials(draft, findings)
            _check_proposals(draft, findings)
            _check_child_names(draft, findings)


def report_unused_sites(groups: Sequence[Group], sites: Sites, findings: Findings) -> None:
    """Say which sites no tunnel joins, or that there are no tunnels at all."""
    if not groups:
        hint = "add 'tunnels:' with a pair ('between'), a 'hub' and its 'spokes', or a 'mesh'"
        findings.warning("IP183", ("tunnels",), "there are no tunnels", hint)
        return
    used = {site for group in groups for site in group.sites}
    for name, site in sites.by_name.items():
        if name not in used:
            summary = f"no tunnel joins the site {name!r}"
            findings.info("IP180", site.where, summary, "add it to a tunnel, or remove it", key=True)


def _check_reachable(group: Group, draft: Draft, findings: Findings) -> None:
    left, right = draft.left.gateway, draft.right.gateway
    if not is_located(left, findings) or not is_located(right, findings):
        return
    if left.reachable_at is None and right.reachable_at is None:
        if findings.first("unreachable", draft.group, right.name):
            summary = (
                f"neither {left.name!r} nor {right.name!r} can be called by the other: tunnel {draft.name!r}"
            )
            hint = "give one of them a fixed address, a DNS name, or (behind NAT) a 'public_address'"
            findings.error("IP127", draft.right.ref if group.doc.hub else draft.where, summary, hint)
        return
    families = _family(left), _family(right)
    if (
        None not in families
        and families[0] != families[1]
        and findings.first("family", left.name, right.name)
    ):
        summary = (
            f"{left.name!r} has an IPv{families[0]} address and {right.name!r} an IPv{families[1]} one: "
            f"the tunnel {draft.name!r} cannot be built"
        )
        findings.error("IP128", draft.left.ref, summary, "give both ends addresses of one family")


def _check_private(draft: Draft, findings: Findings) -> None:
    """Warn of a gateway that has a private address and no NAT, while its peer is on the internet."""
    for end, far in (draft.ends, draft.ends[::-1]):
        gateway, peer = end.gateway, far.gateway.reachable_at
        kind = _private_kind(gateway.address)
        if kind is None or gateway.behind_nat or not is_located(gateway, findings):
            continue
        if not isinstance(peer, IPAddress) or _private_kind(peer) or not is_located(far.gateway, findings):
            continue
        if findings.first("private", gateway.where):
            summary = (
                f"the gateway {gateway.name!r} has the private address {gateway.address} ({kind}) and its "
                f"peer {far.gateway.name!r} the public one {peer}: there must be NAT between them"
            )
            hint = (
                "add 'behind_nat: true', and 'public_address' if the NAT device forwards UDP 500 and 4500 "
                "to it"
            )
            findings.warning("IP129", (*gateway.where, "address"), summary, hint)


@lru_cache(maxsize=1 << 16)  # a hub is looked at for each of its spokes
def _private_kind(address: IPAddress | str | None) -> str | None:
    """Return the document that reserves an address for private use, ``None`` for any other."""
    if not isinstance(address, IPAddress):
        return None
    return next((kind for network, kind in _PRIVATE if address in network), None)


def _family(gateway: Gateway) -> int | None:
    """The family of a gateway's own WAN address, ``None`` when that is not known from the file."""
    address = gateway.address if gateway.address is not None else gateway.public_address
    return address.version if isinstance(address, IPAddress) else None


def _families(gateway: Gateway) -> set[int]:
    """The families of all addresses that are known from the file."""
    addresses = (gateway.address, gateway.public_address)
    return {address.version for address in addresses if isinstance(address, IPAddress)}


def _check_credentials(draft: Draft, findings: Findings) -> None:
    left, right = draft.left, draft.right
    if left.credential is None or right.credential is None:
        return
    if not findings.first("credentials", draft.group, left.credential.where, right.credential.where):
        return
    if left.credential.is_psk != right.credential.is_psk:
        psk, other = (left, right) if left.credential.is_psk else (right, left)
        lines = findings.line(psk.credential_at), findings.line(other.credential_at)
        summary = (
            f"the tunnel {draft.name!r} has a PSK at {psk.gateway.name!r} (line {lines[0]}) "
            f"and a certificate at {other.gateway.name!r} (line {lines[1]})"
        )
        hint = "give the tunnel itself the 'credential' of both ends"
        findings.error("IP161", draft.left.ref, summary, hint)


def _check_proposals(draft: Draft, findings: Findings) -> None:
    left, right = draft.left, draft.right
    if left.profile is None or right.profile is None or left.profile == right.profile:
        return
    lacking = [
        what
        for what, common in (("IKE", _ike_in_common), ("ESP", _esp_in_common))
        if not common(left.profile, right.profile)
    ]
    if lacking and findings.first("proposals", draft.group, left.profile.name, right.profile.name):
        kinds = "proposal, neither for IKE nor for ESP," if len(lacking) > 1 else f"{lacking[0]} proposal"
        summary = (
            f"the ends of the tunnel {draft.name!r} have no {kinds} in common: "
            f"{_said(left, findings)} and {_said(right, findings)}"
        )
        hint = "give the tunnel itself the 'profile' of both ends"
        code = "IP206" if lacking[0] == "IKE" else "IP207"
        findings.error(code, draft.left.ref, summary, hint)


def _said(end: DraftEnd, findings: Findings) -> str:
    name = end.profile.name if end.profile is not None else ""
    chosen = f" (line {findings.line(end.profile_at)})" if end.profile_at[0] != "tunnels" else ""
    return f"{name!r} at {end.gateway.site!r}{chosen}"


@lru_cache(maxsize=256)
def _ike_in_common(ours: Profile, theirs: Profile) -> bool:
    # A profile whose proposals are wrong comes without them.
    ours_known, theirs_known = ike_of(ours), ike_of(theirs)
    return not ours_known or not theirs_known or in_common(ours_known, theirs_known)


@lru_cache(maxsize=256)
def _esp_in_common(ours: Profile, theirs: Profile) -> bool:
    # A profile whose proposals are wrong comes without them.
    ours_known, theirs_known = esp_of(ours), esp_of(theirs)
    return not ours_known or not theirs_known or in_common(ours_known, theirs_known)


def _check_mtu(draft: Draft, findings: Findings) -> None:
    """Check at each end that IPv6 has its 1280 bytes, outside and inside (RFC 8200 section 5).

    Of a far end that is not known the best is thought: IPv4 outside, and no NAT.
    """
    for end in draft.ends:
        if not end.guessed:
            _check_mtu_of(end.gateway, draft, findings)


def _check_mtu_of(narrow: Gateway, draft: Draft, findings: Findings) -> None:
    left, right = draft.left, draft.right
    known = [end.gateway for end in draft.ends if not end.guessed]
    outer = 6 if any(6 in _families(gateway) for gateway in known) else 4
    if outer == 6 and narrow.mtu < IPV6_MIN_MTU:
        place = _mtu_place(narrow, findings)
        if findings.first("mtu", place):
            summary = (
                f"a WAN MTU of {narrow.mtu} is too small for the tunnel {draft.name!r}, which goes over IPv6"
            )
            findings.error("IP170", place, summary, f"an IPv6 link carries at least {IPV6_MIN_MTU} bytes")
        return
    if left.profile is None or right.profile is None:
        return
    if not any(end.prefix.version == 6 for flow in draft.flows for end in flow.left):
        return
    nat_t = any(gateway.behind_nat for gateway in known)
    found = _smallest(left.profile, right.profile, narrow.mtu, outer, nat_t)
    if found is None or found[0] >= IPV6_MIN_MTU:
        return
    place = _mtu_place(narrow, findings)
    if not findings.first("mtu", place):
        return
    inner_mtu, suite, needed_mtu = found
    summary = (
        f"a WAN MTU of {narrow.mtu} leaves {inner_mtu} bytes inside the tunnel {draft.name!r} with {suite}: "
        f"IPv6 needs {IPV6_MIN_MTU}"
    )
    hint = f"an MTU of {needed_mtu} would do; else leave IPv6 out with 'flows:', or choose another profile"
    findings.error("IP170", place, summary, hint)


def _mtu_place(gateway: Gateway, findings: Findings) -> Path:
    return findings.nearest_place((*gateway.where, "mtu"), ("defaults", "mtu"), gateway.where)


@lru_cache(maxsize=1024)
def _smallest(
    ours: Profile, theirs: Profile, mtu: int, outer: int, nat_t: bool
) -> tuple[int, EspSuite, int] | None:
    """Return the inner MTU of the suite that costs most, that suite, and the link MTU that would do."""
    suites = common_suites(esp_of(ours), esp_of(theirs))
    if not suites:
        return None
    inner = [(_inner(mtu, suite, outer, nat_t), suite) for suite in suites]
    inner_mtu, worst = min(inner)
    needed = next(
        m for m in range(IPV6_MIN_MTU, 2 * IPV6_MIN_MTU) if _inner(m, worst, outer, nat_t) >= IPV6_MIN_MTU
    )
    return inner_mtu, worst, needed


def _inner(mtu: int, suite: EspSuite, outer: int, nat_t: bool) -> int:
    try:
        return overhead(mtu, suite, outer=outer, nat_t=nat_t).inner_mtu
    except ValueError:
        return 0


def _check_child_names(draft: Draft, findings: Findings) -> None:
    longest = max((_child_name_length(draft, flow) for flow in draft.flows), default=0)
    if longest > LONGEST_CHILD_NAME and findings.first("child names", draft.group):
        summary = (
            f"the CHILD_SAs of the tunnel {draft.name!r} would have names of up to {longest} characters: "
            f"charon takes {LONGEST_CHILD_NAME}"
        )
        hint = "shorten the names of the tunnel, its flows or its networks, of which they are made"
        findings.error("IP148", draft.where, summary, hint)


def _child_name_length(draft: Draft, flow: Flow) -> int:
    """Return how long the name of a child of this flow can be, with the number that keeps names apart."""
    parts = [draft.name, flow.name]
    if draft.child_per is ChildPer.SUBNET_PAIR:
        parts += [max((end.network for end in ends), key=len) for ends in (flow.left, flow.right)]
    return len("-".join(parts)) + len("-999")
