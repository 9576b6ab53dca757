"""What a gateway must be able to do for its state: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from itertools import chain
from typing import TypeAlias

from netaddr import valid_ipv6

from ipsecctl.crypto import Offload, Proposal, Protocol, negotiate, parse_esp_proposal, parse_ike_proposal
from ipsecctl.desired import Connection, GatewayState, InterfaceKind
from ipsecctl.topology import DataPath

__all__ = ["Feature", "Needs", "needs_of", "suites_of"]


class Feature(StrEnum):
    """What a topology can ask of a gateway's data path beside suites."""

    XFRM_INTERFACES = "xfrm interfaces"
    HOLDING_INTERFACE = "dummy interfaces"
    IPTFS = "IP-TFS"
    PER_CPU_SAS = "per-CPU SAs"
    ESN = "extended sequence numbers"
    UDP_ENCAPSULATION = "UDP encapsulation"
    HW_OFFLOAD = "hardware offload"
    IPV6_OUTSIDE = "IPv6 outside"


@dataclass(frozen=True, slots=True)
class Needs:
    """What one gateway must be able to do.

    ``ike`` and ``esp`` are all proposals that it offers. charon offers what a proposal names without looking
    whether it can do it. ``used_ike`` and ``used_esp`` are the keywords, and for the kernel the suites, that
    its tunnels can come to use; ``None`` where the other ends are not known: then each of them.

    ``data_path`` ``AUTO`` takes the one that is there. ``firewall``: our nftables table is wanted.
    """

    ike: tuple[Proposal, ...] = ()
    esp: tuple[Proposal, ...] = ()
    data_path: DataPath = DataPath.AUTO
    features: frozenset[Feature] = frozenset()
    firewall: bool = True
    used_ike: frozenset[str] | None = None
    used_esp: frozenset[str] | None = None


def needs_of(
    state: GatewayState, data_path: DataPath = DataPath.AUTO, peers: Mapping[str, GatewayState] | None = None
) -> Needs:
    """Return what a gateway must be able to do for its state; ``data_path`` is what its topology wants.

    ``peers`` are the states of the gateways whose proposals are known, by name.
    """
    used_ike: set[str] = set()
    used_esp: set[str] = set()
    for connection in state.connections:
        other = _same_tunnel(connection, peers or {})
        used_ike |= _used(_ike(connection), _ike(other) if other else ())
        used_esp |= _used(_esp(connection), _esp(other) if other else ())
    ike = dict.fromkeys(chain.from_iterable(map(_ike, state.connections)))
    esp = dict.fromkeys(chain.from_iterable(map(_esp, state.connections)))
    return Needs(
        ike=tuple(map(_parsed, ike)),
        esp=tuple(map(_parsed, esp)),
        data_path=data_path,
        features=frozenset(_features(state)),
        firewall=bool(state.firewall),
        used_ike=frozenset(used_ike),
        used_esp=frozenset(used_esp),
    )


def suites_of(proposal: Proposal) -> Iterator[str]:
    """Yield the ESP suites of a proposal: an AEAD's keyword, or cipher and integrity."""
    for cipher in proposal.encryption:
        if cipher.aead:
            yield cipher.keyword
        else:
            yield from (f"{cipher}-{integrity}" for integrity in proposal.integrity)


def _features(state: GatewayState) -> Iterator[Feature]:
    """Yield what a state asks of the data path beside suites."""
    kinds = {interface.kind for interface in state.interfaces}
    if InterfaceKind.XFRM in kinds:
        yield Feature.XFRM_INTERFACES
    if InterfaceKind.DUMMY in kinds:
        yield Feature.HOLDING_INTERFACE
    if any(_parsed(offered).esn for connection in state.connections for offered in _esp(connection)):
        yield Feature.ESN
    if any(connection.nat_t for connection in state.connections):
        yield Feature.UDP_ENCAPSULATION
    if any(valid_ipv6(a) for c in state.connections for a in (*c.local_addrs, *c.remote_addrs)):
        yield Feature.IPV6_OUTSIDE
    for options in {child.options for connection in state.connections for child in connection.children}:
        if options.iptfs:
            yield Feature.IPTFS
        if options.per_cpu_sas:
            yield Feature.PER_CPU_SAS
        if options.hw_offload in (Offload.CRYPTO, Offload.PACKET):  # "auto" takes none, too
            yield Feature.HW_OFFLOAD


# ------------------------------------------------------------------------------------- what comes to be used


_Offered: TypeAlias = tuple[Protocol, str]
"""A proposal as it stands in a configuration. There are few, in any number of connections."""


@cache
def _parsed(offered: _Offered) -> Proposal:
    protocol, text = offered
    return parse_ike_proposal(text) if protocol is Protocol.IKE else parse_esp_proposal(text)


def _ike(connection: Connection) -> tuple[_Offered, ...]:
    return tuple((Protocol.IKE, text) for text in connection.ike_proposals)


def _esp(connection: Connection) -> tuple[_Offered, ...]:
    texts = dict.fromkeys(text for child in connection.children for text in child.esp_proposals)
    return tuple((Protocol.ESP, text) for text in texts)


def _same_tunnel(connection: Connection, peers: Mapping[str, GatewayState]) -> Connection | None:
    peer = peers.get(connection.peer)
    return next((c for c in peer.connections if c.name == connection.name), None) if peer else None


@cache
def _used(offered: tuple[_Offered, ...], by_peer: tuple[_Offered, ...]) -> frozenset[str]:
    """Return the keywords and suites that a tunnel can come to use, whichever end calls or rekeys.

    charon's responder takes the first of its own proposals that fits one of the other end's, and of that the
    first algorithm of each kind that fits (``proposal_select``, ``select_algo``); it does not look whether it
    can do them. Who calls sends a key of the first key exchange that it has configured before anything is
    agreed on (``get_algorithm``). A CHILD_SA that comes with its IKE_SA is agreed on without key exchanges.
    All of ours count where the other end's are not known, and where nothing fits.
    """
    ours, theirs = tuple(map(_parsed, offered)), tuple(map(_parsed, by_peer))
    chosen = [negotiate(ours, theirs), negotiate(theirs, ours)]
    bare_ours, bare_theirs = tuple(map(_without_exchanges, ours)), tuple(map(_without_exchanges, theirs))
    chosen += [negotiate(bare_ours, bare_theirs), negotiate(bare_theirs, bare_ours)]
    if not theirs or None in chosen:
        return frozenset(chain.from_iterable(map(_names, ours)))
    first = next((exchange for p in ours for exchange in p.key_exchange), None)
    sent = {first.keyword} if first else set()
    return frozenset(sent.union(*(_names(proposal) for proposal in chosen if proposal)))


def _without_exchanges(proposal: Proposal) -> Proposal:
    return replace(proposal, key_exchange=(), additional=())


def _names(proposal: Proposal) -> tuple[str, ...]:
    return (*(algorithm.keyword for algorithm in proposal.algorithms), *suites_of(proposal))
