"""The SAs of a tunnel as the charon at one end reports them, as far as packets can be held against them.
Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from netaddr import AddrFormatError, IPAddress, IPNetwork

from ipsecctl.crypto import KEYWORDS, EspSuite, Kind, esp_suites, parse_esp_proposal
from ipsecctl.health import ChildSa, IkeSa
from ipsecctl.probe.traffic import Path

__all__ = ["CharonView", "Sa", "Selector", "charon_view"]

# A selector as charon prints it: 10.1.0.0/24, 10.1.0.0/24[tcp], 10.1.0.0/24[tcp/104], 10.1.0.0/24[47]
_SELECTOR = re.compile(r"(?P<prefix>[^\[]+)(?:\[(?P<protocol>[^/\]]+).*\])?$")
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "ipv6-icmp": 58}
_CIPHERS = {a.iana_name.removeprefix("ENCR_") for a in KEYWORDS.values() if a.kind is Kind.ENCRYPTION}


@dataclass(frozen=True, slots=True)
class Selector:
    """A traffic selector of a CHILD_SA, without its ports; ``protocol`` is ``None`` for any."""

    prefix: IPNetwork
    protocol: int | None = None

    @classmethod
    def parse(cls, text: str) -> Selector | None:
        """Read a selector as charon prints it; ``None`` for one that is no prefix (a range of addresses)."""
        match = _SELECTOR.match(text)
        if match is None:
            return None
        name = match["protocol"]
        number = _PROTOCOLS.get(name, int(name) if name and name.isdigit() else None)
        try:
            return cls(IPNetwork(match["prefix"]), number)
        except AddrFormatError:
            return None

    def covers(self, address: IPAddress, protocol: int | None) -> bool:
        return address in self.prefix and self.protocol in (None, protocol)


@dataclass(frozen=True, slots=True)
class Sa:
    """One CHILD_SA at one end: its SPIs, its packets each way so far, and what it was negotiated to carry.

    ``suite`` is ``None`` for algorithms whose sizes are not known here.
    """

    spi_in: int
    spi_out: int
    packets_in: int
    packets_out: int
    suite: EspSuite | None
    local: tuple[Selector, ...]
    remote: tuple[Selector, ...]

    def carries(self, path: Path, *, outwards: bool) -> bool:
        """Whether the packets of ``path`` belong into this SA; ``outwards`` at the sender's end."""
        near, far = (self.local, self.remote) if outwards else (self.remote, self.local)
        return any(s.covers(path.source_address, path.protocol) for s in near) and any(
            s.covers(path.destination_address, path.protocol) for s in far
        )


@dataclass(frozen=True, slots=True)
class CharonView:
    """One end of a tunnel as its charon sees it; ``local`` and ``remote`` are the outer addresses.

    ``all_spis_in`` and ``all_spis_out`` are those of every connection that the gateway has, ours or not.
    """

    gateway: str
    local: IPAddress | None = None
    remote: IPAddress | None = None
    sas: tuple[Sa, ...] = ()
    all_spis_in: frozenset[int] = frozenset()
    all_spis_out: frozenset[int] = frozenset()

    def carrying(self, path: Path) -> tuple[Sa, ...]:
        """Return the SAs that ``path`` uses at this end."""
        return tuple(sa for sa in self.sas if sa.carries(path, outwards=self.gateway == path.sender))


def charon_view(gateway: str, connection: str, ike_sas: Iterable[IkeSa]) -> CharonView:
    """Return what all IKE_SAs of a gateway say of one connection.

    CHILD_SAs that have no SPIs yet do not count. Of several IKE_SAs the addresses are those of the newest.
    """
    everything = tuple(ike_sas)
    mine = sorted((sa for sa in everything if sa.name == connection), key=lambda sa: sa.unique_id)
    children = [child for sa in everything for child in sa.children if _has_spis(child)]
    return CharonView(
        gateway=gateway,
        local=_address(mine[-1].local_host) if mine else None,
        remote=_address(mine[-1].remote_host) if mine else None,
        sas=tuple(_sa(child) for sa in mine for child in sa.children if _has_spis(child)),
        all_spis_in=frozenset(int(child.spi_in, 16) for child in children),
        all_spis_out=frozenset(int(child.spi_out, 16) for child in children),
    )


def _has_spis(child: ChildSa) -> bool:
    return bool(child.spi_in and child.spi_out)


def _sa(child: ChildSa) -> Sa:
    return Sa(
        spi_in=int(child.spi_in, 16),
        spi_out=int(child.spi_out, 16),
        packets_in=child.packets_in,
        packets_out=child.packets_out,
        suite=_suite(child.suite),
        local=_selectors(child.local_ts),
        remote=_selectors(child.remote_ts),
    )


def _suite(text: str) -> EspSuite | None:
    """Return the sizes of ``AES_GCM_16-256/...`` or ``AES_CBC-256/HMAC_SHA2_256_128/...``."""
    encryption, _, rest = text.partition("/")
    name, bits = encryption, 0
    if encryption not in _CIPHERS:
        name, _, size = encryption.rpartition("-")
        bits = int(size) if size.isdigit() else 0
    cipher = _keyword(Kind.ENCRYPTION, f"ENCR_{name}", bits)
    integrity = _keyword(Kind.INTEGRITY, f"AUTH_{rest.partition('/')[0]}", 0)
    try:
        return esp_suites(parse_esp_proposal("-".join(filter(None, (cipher, integrity)))))[0]
    except (ValueError, IndexError):
        return None


def _keyword(kind: Kind, iana_name: str, key_bits: int) -> str | None:
    for algorithm in KEYWORDS.values():
        if (algorithm.kind, algorithm.iana_name) == (kind, iana_name) and algorithm.key_bits in (0, key_bits):
            return algorithm.keyword
    return None


def _selectors(texts: Iterable[str]) -> tuple[Selector, ...]:
    return tuple(selector for text in texts if (selector := Selector.parse(text)) is not None)


def _address(text: str) -> IPAddress | None:
    try:
        return IPAddress(text) if text else None
    except AddrFormatError:
        return None
