"""A world of two gateways where packets go as a test says, built with scapy and heard by the real parsers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from netaddr import IPAddress
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from ipsecctl.crypto import esp_suites, parse_esp_proposal
from ipsecctl.probe import Host, Scene, Tap, WanLink
from ipsecctl.probe.craft import craft
from ipsecctl.probe.evidence import Evidence
from ipsecctl.probe.expect import Expected, esp_bytes
from ipsecctl.probe.recording import Recording
from ipsecctl.probe.sas import CharonView, Sa, Selector
from ipsecctl.probe.traffic import Path, Probe, Purpose, paths, size_probe, steady_probes
from ipsecctl.probe.wire import Encapsulation, Record
from ipsecctl.topology import Gateway, Tunnel, load_text

TOKEN = bytes(range(100, 116))
ETHERNET = {
    version: bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=ethertype))
    for version, ethertype in ((4, 0x0800), (6, 0x86DD))
}
SUITE = esp_suites(parse_esp_proposal("aes256gcm16"))[0]
TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {{credential: both, control: lab}}
credentials: {{both: {{psk: "file:secrets/pair.psk"}}}}
sites:
  north:
    networks: {{lan: [10.1.0.0/24, "fd00:1::/64"]}}
    gateway: {{name: gw-north, address: {north}}}
  south:
    networks: {{lan: [10.2.0.0/24, "fd00:2::/64"]}}
    gateway: {{name: gw-south, address: 203.0.113.1}}
    managed: {managed}
tunnels:
  pair: {{between: [north, south]{flows}}}
"""
BEHIND_NAT = "192.168.9.2, behind_nat: true"


def tunnel_of(north: str = "198.51.100.1", flows: str = "", managed: str = "true") -> Tunnel:
    loaded = load_text(TOPOLOGY.format(north=north, flows=flows, managed=managed), "pair.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    return loaded.topology.tunnels[0]


def host(site: str, number: int) -> Host:
    return Host(
        f"{site}-lan", f"c-{site}-lan", (IPAddress(f"10.{number}.0.10"), IPAddress(f"fd00:{number}::10"))
    )


def link(gateway: str) -> WanLink:
    return WanLink.between((gateway, f"c-{gateway}", "wan"), ("internet", "c-internet", f"to-{gateway}"))


SCENE = Scene((host("north", 1), host("south", 2)), {name: link(name) for name in ("gw-north", "gw-south")})


@dataclass
class World:
    """What happens to packets; by default all is well, and a test makes one thing go wrong."""

    tunnel: Tunnel
    inner_mtu: int = 1400
    encapsulation: Encapsulation = Encapsulation.NATIVE
    outer: dict[str, str] = field(
        default_factory=lambda: {"gw-north": "198.51.100.1", "gw-south": "203.0.113.1"}
    )
    spis: dict[str, int] = field(default_factory=lambda: {"gw-north": 0xC0000001, "gw-south": 0xC0000002})
    clamp: int | None = 1360
    probes: list[Probe] = field(default_factory=list)
    unsent: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hosts = {h.tap for h in SCENE.hosts}
        taps = hosts | {tap for wan in SCENE.links.values() for tap in wan.taps}
        self.recordings = {tap: Recording(tap, TOKEN) for tap in taps}
        for recording in self.recordings.values():
            recording.dropped = 0
        self.serials = count(1)
        self.through = dict.fromkeys(self.spis, 0)

    def paths(self, family: int = 4) -> list[Path]:
        return [path for path in paths(self.tunnel, SCENE.hosts)[0] if path.family == family]

    def path(self, family: int = 4) -> Path:
        return next(path for path in self.paths(family) if path.sender == "gw-north")

    def hear(self, tap: Tap, packet: Packet | bytes) -> None:
        inside = bytes(packet)
        data = ETHERNET[inside[0] >> 4] + inside
        self.recordings[tap].add([Record(0, 1, data, len(data))])

    def on_wan(self, path: Path, packet: Packet) -> None:
        """Let the sender's WAN interface and both links of the internet hear a packet; NAT happens between
        them."""
        inside = packet.copy()
        inside.src = str(self._end(path.sender).address)
        self.hear(SCENE.links[path.sender].near, inside)
        for gateway in (path.sender, path.receiver):
            self.hear(SCENE.links[gateway].far, packet)

    def esp(self, path: Path, inner_bytes: int) -> Packet:
        self.through[path.sender] += 1
        sealed = Raw(b"\xaa" * (esp_bytes(inner_bytes, SUITE) - 8))
        esp = ESP(spi=self.spis[path.receiver], seq=self.through[path.sender]) / sealed
        if self.encapsulation is Encapsulation.UDP:
            esp = UDP(sport=4500, dport=4500) / esp
        return IP(src=self.outer[path.sender], dst=self.outer[path.receiver]) / esp

    def carry(self, probe: Probe, arriving: bytes | None = None) -> None:
        """Take a probe through the tunnel as it should be."""
        self.on_wan(probe.path, self.esp(probe.path, probe.size_bytes))
        packet = arriving if arriving is not None else craft(probe, TOKEN)
        if self.clamp and probe.purpose is Purpose.MSS:
            packet = (IP if probe.path.family == 4 else _ipv6())(packet)
            packet["TCP"].options = [("MSS", self.clamp)]
        self.hear(probe.path.destination.tap, packet)

    def leak(self, probe: Probe) -> None:
        """Let a probe out in clear where it leaves its gateway."""
        self.hear(SCENE.links[probe.path.sender].near, IP(craft(probe, TOKEN)))

    def too_big(self, probe: Probe, mtu: int) -> None:
        """Answer the sender as a gateway should."""
        quoted = Raw(craft(probe, TOKEN)[:548])
        answer = IP(src="10.1.0.1", dst=str(probe.path.source_address)) / ICMP(type=3, code=4, nexthopmtu=mtu)
        self.hear(probe.path.source.tap, answer / quoted)

    def send_steady(self, *used: Path) -> list[Probe]:
        """Send and carry the small probes of paths."""
        probes = [probe for path in used or self.paths() for probe in steady_probes(path, self.serials)]
        self.probes += probes
        for probe in probes:
            self.carry(probe)
        return probes

    def send_size(self, path: Path, size: int) -> Probe:
        probe = size_probe(path, size, self.serials)
        self.probes.append(probe)
        return probe

    def view(self, gateway: str, packets: int) -> CharonView:
        peer = next(name for name in self.spis if name != gateway)
        flow = self.tunnel.flows[0]
        is_left = self.tunnel.left.gateway.name == gateway
        ends = (flow.left, flow.right) if is_left else (flow.right, flow.left)
        local, remote = (tuple(Selector(e.prefix) for e in side) for side in ends)
        sa = Sa(self.spis[gateway], self.spis[peer], packets, packets, SUITE, local, remote)
        spis = frozenset({sa.spi_in}), frozenset({sa.spi_out})
        return CharonView(gateway, self._end(gateway).address, IPAddress(self.outer[peer]), (sa,), *spis)

    def _end(self, gateway: str) -> Gateway:
        left, right = self.tunnel.left.gateway, self.tunnel.right.gateway
        return left if left.name == gateway else right

    def evidence(self, **changes: object) -> Evidence:
        asked = [e.gateway.name for e in (self.tunnel.left, self.tunnel.right) if e.gateway.managed]
        most = max(self.through.values())
        wanted = Encapsulation.UDP if self.tunnel.behind_nat else Encapsulation.NATIVE
        evidence = Evidence(
            tunnel=self.tunnel,
            probes=tuple(self.probes),
            recordings=self.recordings,
            links=SCENE.links,
            expected=Expected(self.inner_mtu, "the test says so", wanted),
            before={name: self.view(name, 5) for name in asked},
            after={name: self.view(name, 5 + most) for name in asked},
            unasked={name: f"{name} is not managed" for name in self.spis if name not in asked},
            unsent=self.unsent,
        )
        return replace(evidence, **changes)


def _ipv6() -> type[Packet]:
    from scapy.layers.inet6 import IPv6

    return IPv6


@pytest.fixture
def world() -> World:
    """Two gateways on public addresses."""
    return World(tunnel_of())


@pytest.fixture
def nat_world() -> World:
    """The same with the northern gateway behind NAT: the internet sees it as 192.0.2.30."""
    outer = {"gw-north": "192.0.2.30", "gw-south": "203.0.113.1"}
    return World(tunnel_of(BEHIND_NAT), encapsulation=Encapsulation.UDP, outer=outer)


@pytest.fixture
def dynamic_world() -> World:
    """The same with a northern gateway whose address nobody knows beforehand."""
    return World(tunnel_of("dynamic"))


@pytest.fixture
def foreign_world() -> World:
    """The same with a southern gateway that is somebody else's."""
    return World(tunnel_of(managed="false"))


@pytest.fixture
def tunnel_with() -> Callable[[str], Tunnel]:
    """A function that makes the tunnel with flows (YAML, a list)."""
    return lambda flows: tunnel_of(flows=f", flows: {flows}")


@pytest.fixture
def scene() -> Scene:
    return SCENE


@pytest.fixture
def pcap() -> Callable[..., bytes]:
    """A function that makes a capture file of frames, one a second."""
    return _pcap


def _pcap(*packets: bytes, order: str = "<", magic: int = 0xA1B2C3D4, link_type: int = 1) -> bytes:
    out = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    for second, data in enumerate(packets):
        out += struct.pack(f"{order}IIII", second, 7, len(data), len(data)) + data
    return out
