"""What a gateway would have to be able to do, and what of that it lacks: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from netaddr import valid_ipv6

from ipsecctl.crypto import Algorithm, Kind, Proposal, parse_esp_proposal, parse_ike_proposal
from ipsecctl.desired import GatewayState
from ipsecctl.gateway._charon_names import CHARON_NAMES
from ipsecctl.gateway.capabilities import LIBIPSEC_PLUGIN, Answer, Capabilities, Charon, Has
from ipsecctl.topology import DataPath

__all__ = ["Feature", "Lack", "Needs", "lacks", "needs_of"]


class Feature(StrEnum):
    """What a topology can ask of a gateway's data path beside suites."""

    XFRM_INTERFACES = "xfrm interfaces"
    IPTFS = "IP-TFS"
    PER_CPU_SAS = "per-CPU SAs"
    ESN = "extended sequence numbers"
    UDP_ENCAPSULATION = "UDP encapsulation"
    HW_OFFLOAD = "hardware offload"
    IPV6_OUTSIDE = "IPv6 outside"


@dataclass(frozen=True, slots=True)
class Needs:
    """What one gateway must be able to do.

    Every algorithm of ``ike`` and ``esp`` counts, alternatives too: charon offers all that a proposal names
    without looking whether it can do it, and the peer may choose that one. ``data_path`` ``AUTO`` takes the
    one that is there. ``firewall``: our nftables table is wanted.
    """

    ike: tuple[Proposal, ...] = ()
    esp: tuple[Proposal, ...] = ()
    data_path: DataPath = DataPath.AUTO
    features: frozenset[Feature] = frozenset()
    firewall: bool = True


@dataclass(frozen=True, order=True, slots=True)
class Lack:
    """What a gateway lacks, what needs it, and how to mend that.

    ``certain`` is false where it could not be found out whether it is there.
    """

    what: str
    why_needed: str
    mend: str
    certain: bool = True


def needs_of(
    state: GatewayState, data_path: DataPath = DataPath.AUTO, features: Iterable[Feature] = ()
) -> Needs:
    """Return what a gateway must be able to do for its state; ``data_path`` is what its topology wants.

    ``features`` are added to those that follow from addresses, NAT and proposals.
    """
    children = [child for connection in state.connections for child in connection.children]
    ike_texts = dict.fromkeys(p for c in state.connections for p in c.ike_proposals)
    esp_texts = dict.fromkeys(p for child in children for p in child.esp_proposals)
    esp = tuple(parse_esp_proposal(text) for text in esp_texts)
    found = set(features)
    if any(proposal.esn for proposal in esp):
        found.add(Feature.ESN)
    if any(connection.nat_t for connection in state.connections):
        found.add(Feature.UDP_ENCAPSULATION)
    if any(valid_ipv6(a) for c in state.connections for a in (*c.local_addrs, *c.remote_addrs)):
        found.add(Feature.IPV6_OUTSIDE)
    return Needs(
        ike=tuple(parse_ike_proposal(text) for text in ike_texts),
        esp=esp,
        data_path=data_path,
        features=frozenset(found),
        firewall=bool(state.firewall),
    )


def lacks(capabilities: Capabilities, needs: Needs) -> tuple[Lack, ...]:
    """Return what a gateway lacks of what it needs: what is certain first, then in the order of work."""
    found = dict.fromkeys(
        (
            *_charon(capabilities),
            *_data_path(capabilities, needs),
            *_algorithms(capabilities, needs),
            *_features(capabilities, needs),
            *_firewall(capabilities, needs),
        )
    )
    return tuple(sorted(found, key=lambda lack: not lack.certain))


def _charon(capabilities: Capabilities) -> Iterator[Lack]:
    if capabilities.charon is None:
        yield Lack(
            f"charon could not be asked: {capabilities.charon_why}",
            "it makes the tunnels",
            "Start it (systemctl start strongswan), and look into its log if it does not stay.",
        )


def _path(capabilities: Capabilities, needs: Needs) -> DataPath | None:
    """Return the data path that has to carry what is needed."""
    return capabilities.data_path if needs.data_path is DataPath.AUTO else needs.data_path


def _data_path(capabilities: Capabilities, needs: Needs) -> Iterator[Lack]:
    charon, esp, wanted = capabilities.charon, capabilities.kernel.esp, needs.data_path
    libipsec = charon is not None and LIBIPSEC_PLUGIN in charon.plugins
    if wanted is DataPath.LIBIPSEC and charon is not None and not libipsec:
        yield Lack(
            f"charon has no {LIBIPSEC_PLUGIN} loaded",
            "the topology says 'datapath: libipsec'",
            f"Set 'load = yes' for {LIBIPSEC_PLUGIN} in strongswan.conf and restart charon, or take 'auto'.",
        )
    if wanted is DataPath.KERNEL and libipsec:
        yield Lack(
            f"charon carries ESP itself: {LIBIPSEC_PLUGIN} is loaded",
            "the topology says 'datapath: kernel'",
            f"Set 'load = no' for {LIBIPSEC_PLUGIN} in strongswan.conf and restart charon, or take 'auto'.",
        )
    if not esp.yes and (wanted is DataPath.KERNEL or (wanted is DataPath.AUTO and charon and not libipsec)):
        yield _without(
            esp,
            "ESP in the kernel",
            "the topology says 'datapath: kernel'"
            if wanted is DataPath.KERNEL
            else f"charon has no {LIBIPSEC_PLUGIN} loaded, so the kernel has to carry ESP",
            "Boot a kernel with CONFIG_INET_ESP (modprobe esp4), or let charon carry ESP: load "
            f"{LIBIPSEC_PLUGIN}.",
        )


def _algorithms(capabilities: Capabilities, needs: Needs) -> Iterator[Lack]:
    """Yield algorithms that charon has not, then suites that the data path has not."""
    charon, path = capabilities.charon, _path(capabilities, needs)
    if charon is not None:
        for proposal in needs.ike:
            yield from _unknown_to(charon, proposal.algorithms, f"the IKE proposal {proposal}")
        for proposal in needs.esp:
            # The kernel's data path brings its own ciphers; keys are agreed by charon all the same.
            exchanges = tuple(a for a in proposal.algorithms if a.kind is Kind.KEY_EXCHANGE)
            wanted = proposal.algorithms if path is DataPath.LIBIPSEC else exchanges
            yield from _unknown_to(charon, wanted, f"the ESP proposal {proposal}")
    if path is DataPath.KERNEL and not capabilities.kernel.esp.no:
        for proposal in needs.esp:
            for suite in _suites(proposal):
                answer = capabilities.kernel.suite(suite)
                if not answer.yes:
                    mend = f"Load the kernel's module for {suite}, or take it out of the proposals."
                    yield _without(answer, f"{suite} in the kernel", f"the ESP proposal {proposal}", mend)


def _suites(proposal: Proposal) -> Iterator[str]:
    for cipher in proposal.encryption:
        if cipher.aead:
            yield cipher.keyword
        else:
            yield from (f"{cipher}-{integrity}" for integrity in proposal.integrity)


def _unknown_to(charon: Charon, algorithms: Iterable[Algorithm], needed_by: str) -> Iterator[Lack]:
    for algorithm in algorithms:
        name = CHARON_NAMES.get(algorithm.keyword)
        if name is None or name in charon.named(*_SECTIONS[algorithm.kind]):
            continue
        ml_kem = name.startswith("ML_KEM_")
        mend = (
            "Upgrade to strongSwan 6.1 with OpenSSL 3.5 or later (or load its ml plugin), or take a profile "
            "without ML-KEM ('modern')."
            if ml_kem
            else "Load the plugin that has it, or take it out of the proposals."
        )
        yield Lack(f"charon {charon.version} cannot do {algorithm} ({name})", needed_by, mend)


def _features(capabilities: Capabilities, needs: Needs) -> Iterator[Lack]:
    path, kernel = _path(capabilities, needs), capabilities.kernel
    answers = {
        Feature.XFRM_INTERFACES: (kernel.xfrm_interfaces, "CONFIG_XFRM_INTERFACE (Linux 4.19)"),
        Feature.IPTFS: (kernel.iptfs, "CONFIG_XFRM_IPTFS (Linux 6.14)"),
        Feature.PER_CPU_SAS: (kernel.per_cpu_sas, "a newer kernel (Linux 6.13)"),
        Feature.ESN: (kernel.esn, "CONFIG_INET_ESP"),
        Feature.UDP_ENCAPSULATION: (kernel.udp_encapsulation, "CONFIG_INET_ESP"),
        Feature.HW_OFFLOAD: (kernel.offload, "a network card with it (ethtool -K CARD esp-hw-offload on)"),
        Feature.IPV6_OUTSIDE: (kernel.esp_ipv6, "CONFIG_INET6_ESP (modprobe esp6)"),
    }
    for feature in sorted(needs.features):
        needed = f"the topology asks for {feature}"
        if path is DataPath.LIBIPSEC:
            if feature not in _LIBIPSEC_FEATURES:
                mend = "Let the kernel carry ESP ('datapath: kernel'), or leave it out of the topology."
                yield Lack(f"{feature}: {LIBIPSEC_PLUGIN} has no such thing", needed, mend)
        elif path is DataPath.KERNEL and not (kernel.esp.no and feature in _PART_OF_ESP):
            answer, kernel_needs = answers[feature]
            if not answer.yes:
                mend = f"It takes {kernel_needs}; or leave it out of the topology."
                yield _without(answer, str(feature), needed, mend)


def _firewall(capabilities: Capabilities, needs: Needs) -> Iterator[Lack]:
    if not needs.firewall:
        return
    firewall, needed = capabilities.firewall, "it keeps tunnels' traffic from leaving in clear"
    mend = "Install nftables 0.9.4 or later, and a kernel with CONFIG_NF_TABLES_INET."
    if not firewall.sets.yes:
        yield _without(firewall.sets, "nftables with sets of address pairs", needed, mend)
    elif _path(capabilities, needs) is DataPath.KERNEL and not firewall.xfrm.yes:
        xfrm = "It takes a kernel with CONFIG_NFT_XFRM (Linux 4.20)."
        yield _without(firewall.xfrm, "nftables' 'rt ipsec' and 'meta ipsec'", needed, xfrm)


def _without(answer: Answer, what: str, why_needed: str, mend: str) -> Lack:
    """Return the lack of something that is not there, or not known to be."""
    why = f" ({answer.why})" if answer.why else ""
    if answer.has is Has.UNKNOWN:
        return Lack(f"not known whether it has {what}{why}", why_needed, mend, certain=False)
    return Lack(f"it has no {what}{why}", why_needed, mend)


_PART_OF_ESP: Final = frozenset((Feature.ESN, Feature.UDP_ENCAPSULATION, Feature.IPV6_OUTSIDE))
"""What nobody need be told of in addition when there is no ESP at all."""

_LIBIPSEC_FEATURES: Final = frozenset((Feature.UDP_ENCAPSULATION, Feature.IPV6_OUTSIDE))

_SECTIONS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        Kind.ENCRYPTION: ("encryption", "aead"),
        Kind.INTEGRITY: ("integrity",),
        Kind.PRF: ("prf",),
        Kind.KEY_EXCHANGE: ("ke", "dh"),
        Kind.SEQUENCE_NUMBERS: (),
    }
)
