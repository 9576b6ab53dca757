"""Everything that the checks of a tunnel look at, and the questions that they ask it. Pure: nothing is
measured here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from netaddr import IPAddress

from ipsecctl.probe.expect import Expected
from ipsecctl.probe.recording import Heard, Recording
from ipsecctl.probe.sas import CharonView, Sa
from ipsecctl.probe.scene import Tap, WanLink
from ipsecctl.probe.traffic import Path, Probe, Purpose
from ipsecctl.probe.wire import EspPacket, IpPacket, ip, parse_esp, parse_icmp
from ipsecctl.topology import Gateway, Tunnel

__all__ = ["EspSeen", "Evidence", "OuterPair", "TooBig", "address"]

_ICMP = {4: ip.ICMP, 6: ip.ICMPV6}


class EspSeen(NamedTuple):
    """An ESP packet at a tap."""

    tap: Tap
    packet: IpPacket
    esp: EspPacket

    @property
    def outer(self) -> str:
        """Between whom it is."""
        return f"{address(self.packet.source)} -> {address(self.packet.destination)}"


class TooBig(NamedTuple):
    """An ICMP "fragmentation needed" or ICMPv6 "packet too big": who sent it, and the MTU in bytes that it
    states."""

    router: IPAddress
    mtu: int


class OuterPair(NamedTuple):
    """The outer addresses that ESP has at a tap; ``None`` where nobody knows which is right."""

    source: IPAddress | None
    destination: IPAddress | None

    def fits(self, packet: IpPacket) -> bool:
        """Whether a packet is between the two; what is not known fits."""
        return all(
            known is None or known.packed == seen
            for known, seen in zip(self, (packet.source, packet.destination), strict=True)
        )

    @property
    def is_known(self) -> bool:
        """Whether both addresses are known."""
        return None not in self

    def __str__(self) -> str:
        return f"{self.source or 'any'} -> {self.destination or 'any'}"


@dataclass(frozen=True)
class Evidence:
    """What was heard, reported and computed for one tunnel.

    ``links`` are the WAN links of the tunnel's gateways by their names, ``others`` those of all the rest.
    ``before`` and ``after`` hold the view that each asked gateway's charon had; ``unasked`` says why one has
    none. ``unsent`` says by serial why a probe was not sent.
    """

    tunnel: Tunnel
    probes: tuple[Probe, ...]
    recordings: Mapping[Tap, Recording]
    links: Mapping[str, WanLink]
    expected: Expected | None = None
    before: Mapping[str, CharonView] = field(default_factory=dict)
    after: Mapping[str, CharonView] = field(default_factory=dict)
    unasked: Mapping[str, str] = field(default_factory=dict)
    unsent: Mapping[int, str] = field(default_factory=dict)
    others: Mapping[str, WanLink] = field(default_factory=dict)

    def of(self, path: Path, purpose: Purpose) -> list[Probe]:
        """Return the probes of a path that were made for one purpose."""
        return [p for p in self.probes if p.path == path and p.purpose is purpose]

    # -- at the hosts

    def arrived(self, probe: Probe) -> IpPacket | None:
        """Return a probe as the far host got it: with its own addresses, and not quoted or answered."""
        path = probe.path
        ends = (path.source_address.packed, path.destination_address.packed)
        return next(
            (
                heard.packet
                for heard in self._at(path.destination.tap, probe)
                if heard.packet is not None and (heard.packet.source, heard.packet.destination) == ends
            ),
            None,
        )

    def too_big(self, probe: Probe) -> TooBig | None:
        """Return the answer that a probe is too big, as the near host got it."""
        path = probe.path
        for heard in self._at(path.source.tap, probe):
            packet = heard.packet
            if packet is None or packet.protocol != _ICMP[path.family]:
                continue
            message = parse_icmp(packet.version, packet.payload)
            if message is not None and (mtu := message.next_hop_mtu) is not None:
                return TooBig(address(packet.source), mtu)
        return None

    def _at(self, tap: Tap, probe: Probe) -> Iterable[Heard]:
        recording = self.recordings.get(tap)
        return recording.with_mark(probe.serial) if recording is not None else ()

    def doubts(self, taps: Iterable[Tap]) -> str:
        """Say why what was heard at ``taps`` is not to be relied on; empty when it is."""
        reasons = (
            self.recordings[tap].why_not() if tap in self.recordings else f"nobody listened at {tap}"
            for tap in taps
        )
        return "; ".join(reason for reason in reasons if reason)

    # -- on the WAN

    @cached_property
    def wan(self) -> tuple[Recording, ...]:
        """The recordings on the WAN links of both ends, each once."""
        taps = {tap for gateway in self._gateways for tap in self._link_taps(gateway.name)}
        return tuple(self.recordings[tap] for tap in sorted(taps) if tap in self.recordings)

    @cached_property
    def every_wan(self) -> tuple[Recording, ...]:
        """The recordings on the WAN links of all gateways, each once: those of both ends, then the others."""
        own = {recording.tap for recording in self.wan}
        taps = sorted({tap for link in self.others.values() for tap in link.taps} - own)
        return (*self.wan, *(self.recordings[tap] for tap in taps if tap in self.recordings))

    def in_clear(self, probe: Probe) -> list[Recording]:
        """Return where on the WAN a probe was heard itself, or quoted, or echoed, outside of ESP."""
        return [recording for recording in self.every_wan if recording.with_mark(probe.serial)]

    @property
    def wan_doubts(self) -> str:
        """Why what was heard on the WAN links of both ends is not to be relied on; empty when it is."""
        missing = [g.name for g in self._gateways if g.name not in self.links]
        if missing:
            return f"nobody listens on the WAN link of {' and '.join(missing)}"
        return self.doubts(sorted({t for g in self._gateways for t in self._link_taps(g.name)}))

    @property
    def clear_doubts(self) -> str:
        """Why what was heard on the WAN does not show that nothing was in clear; empty when it does.

        Of other gateways' links the internet's end is enough: whatever leaves passes it.
        """
        return self.wan_doubts or self.doubts(sorted(link.far for link in self.others.values()))

    @cached_property
    def esp(self) -> tuple[EspSeen, ...]:
        """Every ESP packet on the WAN, at each tap in the order of its arrival."""
        return tuple(
            EspSeen(recording.tap, heard.packet, esp)
            for recording in self.wan
            for heard in recording.packets
            if heard.packet is not None and (esp := parse_esp(heard.packet)) is not None
        )

    @cached_property
    def in_pieces(self) -> frozenset[int]:
        """The lengths, in bytes, of the IP payloads with ESP that crossed the WAN in fragments."""
        whole: dict[tuple[object, ...], int] = {}
        for recording in self.wan:
            for heard in recording.packets:
                packet = heard.packet
                if packet is None or not packet.is_fragment or packet.protocol not in (ip.ESP, ip.UDP):
                    continue
                if not packet.more_fragments:
                    key = (recording.tap, packet.source, packet.destination, packet.identification)
                    whole[key] = packet.fragment_offset + len(packet.payload)
        return frozenset(whole.values())

    def outer_pair(self, path: Path, tap: Tap) -> OuterPair:
        """Return the outer addresses that this path's ESP must have at a tap on the WAN.

        They are the topology's where it states them, else those that charon at the other end sees.
        """
        sender, receiver = self._end(path.sender), self._end(path.receiver)
        source, destination = self._outside(sender, receiver), self._outside(receiver, sender)
        if tap == self.links[path.sender].near:
            source = self._inside(sender)
        if tap == self.links[path.receiver].near:
            destination = self._inside(receiver)
        return OuterPair(source, destination)

    def _inside(self, gateway: Gateway) -> IPAddress | None:
        if isinstance(gateway.address, IPAddress):
            return gateway.address
        view = self.view(gateway.name)
        return view.local if view is not None else None

    def _outside(self, gateway: Gateway, peer: Gateway) -> IPAddress | None:
        if isinstance(gateway.reachable_at, IPAddress):
            return gateway.reachable_at
        view = self.view(peer.name)
        if view is not None:
            return view.remote
        return None if gateway.behind_nat else self._inside(gateway)

    # -- at the charons

    def view(self, gateway: str) -> CharonView | None:
        """Return the newest view of a gateway's charon."""
        return self.after.get(gateway) or self.before.get(gateway)

    def sas(self, gateway: str, path: Path) -> dict[tuple[int, int], Sa]:
        """Return the SAs that a path used at one end, by their SPIs, those included that a rekey replaced."""
        views = (self.before.get(gateway), self.after.get(gateway))
        return {(sa.spi_in, sa.spi_out): sa for view in views if view for sa in view.carrying(path)}

    def growth(self, gateway: str, path: Path, counter: str) -> int:
        """Return by how many packets a path's SAs grew at one end, by ``packets_in`` or ``packets_out``."""
        counts: defaultdict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
        for index, views in enumerate((self.before, self.after)):
            view = views.get(gateway)
            for sa in view.carrying(path) if view else ():
                counts[sa.spi_in, sa.spi_out][index] = getattr(sa, counter)
        return sum(max(0, later - earlier) for earlier, later in counts.values())

    def known_spis(self, path: Path) -> frozenset[int]:
        """Return the SPIs of all that the sender sends and the receiver receives, of any connection."""
        spis: frozenset[int] = frozenset()
        for views in (self.before, self.after):
            sender, receiver = views.get(path.sender), views.get(path.receiver)
            spis |= sender.all_spis_out if sender else frozenset()
            spis |= receiver.all_spis_in if receiver else frozenset()
        return spis

    def carried_with(self, path: Path) -> int:
        """Return how many probes arrived through the SAs that a path uses, those of other paths included."""
        gateway = path.sender if self.sas(path.sender, path) else path.receiver
        used = self.sas(gateway, path).keys()
        return sum(
            1
            for probe in self.probes
            if probe.path.sender == path.sender
            and self.sas(gateway, probe.path).keys() == used
            and self.arrived(probe) is not None
        )

    # -- of the tunnel

    @property
    def managed(self) -> list[Gateway]:
        """The gateways that are ours."""
        return [gateway for gateway in self._gateways if gateway.managed]

    @property
    def _gateways(self) -> tuple[Gateway, Gateway]:
        return self.tunnel.left.gateway, self.tunnel.right.gateway

    def _end(self, name: str) -> Gateway:
        left, right = self._gateways
        return left if left.name == name else right

    def _link_taps(self, gateway: str) -> tuple[Tap, ...]:
        return self.links[gateway].taps if gateway in self.links else ()


def address(packed: bytes) -> IPAddress:
    """Return a packed address of 4 or 16 bytes as an address."""
    return IPAddress(int.from_bytes(packed), 6 if len(packed) == 16 else 4)
