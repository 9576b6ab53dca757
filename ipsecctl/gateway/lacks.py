"""What a gateway lacks of what it needs: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from ipsecctl.crypto import Algorithm, Kind, Proposal
from ipsecctl.desired import GatewayState, unmet, version_text
from ipsecctl.gateway._charon_names import CHARON_NAMES
from ipsecctl.gateway.capabilities import LIBIPSEC_PLUGIN, Answer, Capabilities, Charon, Has
from ipsecctl.gateway.needs import Feature, Needs, suites_of
from ipsecctl.topology import DataPath

__all__ = ["Lack", "lacks", "unknown_options"]


@dataclass(frozen=True, order=True, slots=True)
class Lack:
    """What a gateway lacks, what needs it, and how to mend that.

    ``certain`` is false where it could not be found out whether it is there. ``spare`` is what is offered and
    not used as long as both ends offer what they do: the tunnel works without it.
    """

    what: str
    why_needed: str
    mend: str
    certain: bool = True
    spare: bool = False

    @property
    def stops(self) -> bool:
        """Whether it keeps a tunnel from working for certain."""
        return self.certain and not self.spare


def lacks(capabilities: Capabilities, needs: Needs) -> tuple[Lack, ...]:
    """Return what a gateway lacks of what it needs: what stops it first, then in the order of work."""
    found = dict.fromkeys(
        (
            *_charon(capabilities),
            *_data_path(capabilities, needs),
            *_algorithms(capabilities, needs),
            *_features(capabilities, needs),
            *_firewall(capabilities, needs),
        )
    )
    return tuple(sorted(found, key=lambda lack: (lack.spare, not lack.certain)))


def unknown_options(state: GatewayState, version: str) -> Iterator[Lack]:
    """Yield what a gateway's state asks for and its charon, of this version, does not even know the word for.

    It would refuse the whole connection for such a word, so these are left out of what is rendered, or cannot
    be.
    """
    for option in unmet(state):
        yield Lack(
            f"charon {version} does not know '{option.what}'",
            f"the tunnel '{option.needed_by}' asks for it",
            f"It takes strongSwan {version_text(option.since)} or later; or leave it out.",
        )


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
            found = _not_of(charon, proposal.algorithms)
            yield from _offered(found, f"the IKE proposal {proposal}", needs.used_ike)
        for proposal in needs.esp:
            # The kernel's data path brings its own ciphers; keys are agreed by charon all the same.
            exchanges = tuple(a for a in proposal.algorithms if a.kind is Kind.KEY_EXCHANGE)
            found = _not_of(charon, proposal.algorithms if path is DataPath.LIBIPSEC else exchanges)
            yield from _offered(found, f"the ESP proposal {proposal}", needs.used_esp)
    if path is DataPath.KERNEL and not capabilities.kernel.esp.no:
        for proposal in needs.esp:
            found = _not_of_kernel(capabilities, proposal)
            yield from _offered(found, f"the ESP proposal {proposal}", needs.used_esp)


def _offered(
    found: Iterable[tuple[str, Lack]], needed_by: str, used: frozenset[str] | None
) -> Iterator[Lack]:
    """Yield lacks of algorithms, by name, and tell those that are used from those that only are offered."""
    for name, lack in found:
        if used is None or name in used:
            yield replace(lack, why_needed=needed_by)
        else:
            why = f"{needed_by}, which is offered and not used: something before it fits both ends"
            yield replace(lack, why_needed=why, spare=True)


def _not_of(charon: Charon, algorithms: Iterable[Algorithm]) -> Iterator[tuple[str, Lack]]:
    """Yield the algorithms that charon has not, by keyword; ``why_needed`` is still open."""
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
        yield algorithm.keyword, Lack(f"charon {charon.version} cannot do {algorithm} ({name})", "", mend)


def _not_of_kernel(capabilities: Capabilities, proposal: Proposal) -> Iterator[tuple[str, Lack]]:
    """Yield the suites that the kernel has not, or may not have, by name; ``why_needed`` is still open."""
    for suite in suites_of(proposal):
        answer = capabilities.kernel.suite(suite)
        if not answer.yes:
            mend = f"Load the kernel's module for {suite}, or take it out of the proposals."
            yield suite, _without(answer, f"{suite} in the kernel", "", mend)


def _features(capabilities: Capabilities, needs: Needs) -> Iterator[Lack]:
    path, kernel = _path(capabilities, needs), capabilities.kernel
    answers = {
        Feature.XFRM_INTERFACES: (kernel.xfrm_interfaces, "CONFIG_XFRM_INTERFACE (Linux 4.19)"),
        Feature.HOLDING_INTERFACE: (kernel.dummy, "CONFIG_DUMMY (modprobe dummy)"),
        Feature.IPTFS: (kernel.iptfs, "CONFIG_XFRM_IPTFS (Linux 6.14)"),
        Feature.PER_CPU_SAS: (kernel.per_cpu_sas, "a newer kernel (Linux 6.13)"),
        Feature.ESN: (kernel.esn, "CONFIG_INET_ESP"),
        Feature.UDP_ENCAPSULATION: (kernel.udp_encapsulation, "CONFIG_INET_ESP"),
        Feature.HW_OFFLOAD: (kernel.offload, "a network card with it (ethtool -K CARD esp-hw-offload on)"),
        Feature.IPV6_OUTSIDE: (kernel.esp_ipv6, "CONFIG_INET6_ESP (modprobe esp6)"),
    }
    for feature in sorted(needs.features):
        needed = _WHY.get(feature, f"the topology asks for {feature}")
        if path is DataPath.LIBIPSEC:
            if feature not in _LIBIPSEC_FEATURES:
                mend = "Let the kernel carry ESP ('datapath: kernel'), or leave it out of the topology."
                yield Lack(f"{feature}: {LIBIPSEC_PLUGIN} has no such thing", needed, mend)
        elif path is DataPath.KERNEL and not (kernel.esp.no and feature in _PART_OF_ESP):
            answer, kernel_needs = answers[feature]
            if not answer.yes:
                instead = "take 'mode: route'" if feature in _WHY else "leave it out of the topology"
                mend = f"It takes {kernel_needs}; or {instead}."
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


_WHY: Mapping[Feature, str] = MappingProxyType(
    {Feature.HOLDING_INTERFACE: "in policy mode packets are led to one until their IPsec policy takes them"}
)
"""What needs a feature where nobody asks for it by name."""

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
