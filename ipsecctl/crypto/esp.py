"""What ESP in tunnel mode costs in bytes: the largest inner packet of a link, and the TCP MSS that follows.

::

    outer IP | UDP   | SPI | sequence | IV | inner packet | padding | pad length | next header | ICV
    20 or 40 | 8 or 0|  4  |    4     |    '---- together a multiple of the alignment ----'

Sources: RFC 4303 section 2 (the layout; an alignment of at least 4 bytes), RFC 3948 (UDP), and for IV and ICV
the RFC of each algorithm: 4106 (GCM), 4309 (CCM), 7634 (ChaCha20-Poly1305), 3602 (CBC), 3686 (CTR), 4868
(HMAC-SHA-2), 2404 (HMAC-SHA-1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ipsecctl.crypto.algorithms import Algorithm
from ipsecctl.crypto.proposal import Proposal, Protocol

__all__ = [
    "IPV6_MIN_MTU",
    "LIBIPSEC_MTU",
    "EspSuite",
    "Overhead",
    "common_suites",
    "esp_suites",
    "overhead",
]

LIBIPSEC_MTU: Final = 1400
"""The fixed MTU in bytes of kernel-libipsec's TUN device: no inner packet is larger."""

IPV6_MIN_MTU: Final = 1280
"""The smallest MTU in bytes over which IPv6 may be sent (RFC 8200 section 5)."""

_IPV4_MIN_MTU: Final = 68  # RFC 791 section 3.2
_MAX_PACKET: Final = 65535
_OUTER_BYTES: Final = {4: 20, 6: 40}
_UDP_BYTES: Final = 8
_ESP_HEADER_BYTES: Final = 8
_TRAILER_BYTES: Final = 2
_TCP_BYTES: Final = 20


@dataclass(frozen=True, order=True, slots=True)
class EspSuite:
    """A cipher with its integrity algorithm as ESP carries them; all sizes in bytes.

    ``name`` is the suite in swanctl's words (``aes256gcm16``, ``aes256-sha256``). ``alignment_bytes`` is that
    of inner packet, padding, pad length and next header together.
    """

    name: str
    iv_bytes: int
    icv_bytes: int
    alignment_bytes: int

    def __str__(self) -> str:
        return self.name

    @property
    def cost_bytes(self) -> int:
        """The most that this suite can add to a packet, outer headers apart."""
        padding = self.alignment_bytes - 1
        return _ESP_HEADER_BYTES + self.iv_bytes + padding + _TRAILER_BYTES + self.icv_bytes


@dataclass(frozen=True, order=True, slots=True)
class Overhead:
    """What is left of a link for inner packets; all sizes in bytes.

    ``inner_mtu`` is the largest inner packet that fits the link in one piece, ``mss_ipv4`` and ``mss_ipv6``
    the largest TCP payload in it without options. ``overhead_bytes`` is link MTU less inner MTU, and is the
    sum of ``outer_bytes``, ``udp_bytes``, ``esp_header_bytes`` (SPI and sequence number), ``iv_bytes``,
    ``trailer_bytes`` (pad length and next header), ``icv_bytes``, ``unused_bytes`` (too few for one more
    block) and ``capped_bytes`` (what the data path leaves unused above its own limit).
    """

    suite: EspSuite
    link_mtu: int
    outer: int
    nat_t: bool
    inner_mtu: int
    outer_bytes: int
    udp_bytes: int
    esp_header_bytes: int
    iv_bytes: int
    trailer_bytes: int
    icv_bytes: int
    unused_bytes: int
    capped_bytes: int

    @property
    def overhead_bytes(self) -> int:
        return self.link_mtu - self.inner_mtu

    @property
    def mss_ipv4(self) -> int:
        return self.inner_mtu - _OUTER_BYTES[4] - _TCP_BYTES

    @property
    def mss_ipv6(self) -> int:
        return self.inner_mtu - _OUTER_BYTES[6] - _TCP_BYTES

    @property
    def carries_ipv6(self) -> bool:
        """Whether IPv6 may be sent inside at all: it needs 1280 bytes."""
        return self.inner_mtu >= IPV6_MIN_MTU


def esp_suites(proposal: Proposal) -> tuple[EspSuite, ...]:
    """Return every suite that an ESP proposal allows, in order of preference.

    Raises ``ValueError`` for an IKE proposal.
    """
    if proposal.protocol is not Protocol.ESP:
        raise ValueError(f"{proposal} is a proposal for IKE, not for ESP")
    return tuple(
        _suite(cipher, integrity)
        for cipher in proposal.encryption
        for integrity in ((None,) if cipher.aead else proposal.integrity)
    )


def common_suites(ours: tuple[Proposal, ...], theirs: tuple[Proposal, ...]) -> tuple[EspSuite, ...]:
    """Return every suite that both ends allow, our preference first; empty when they have none in common.

    The order of initiator and responder decides which of them is taken, so an MTU must suit them all.
    """
    accepted = {suite for proposal in theirs for suite in esp_suites(proposal)}
    offered = dict.fromkeys(suite for proposal in ours for suite in esp_suites(proposal))
    return tuple(suite for suite in offered if suite in accepted)


def overhead(
    link_mtu: int, suite: EspSuite, *, outer: int = 4, nat_t: bool = False, cap: int | None = None
) -> Overhead:
    """Compute what a link of ``link_mtu`` bytes leaves for inner packets.

    ``outer`` is the version of IP outside (4 or 6), ``nat_t`` whether ESP travels in UDP 4500, ``cap`` a
    limit in bytes that the data path puts on inner packets whatever the link (``LIBIPSEC_MTU``), ``None`` for
    none.

    Raises ``ValueError`` when the link MTU is impossible: above 65535, below what the outer IP demands, or
    too small to carry the smallest inner packet (68 bytes, RFC 791).
    """
    smallest = IPV6_MIN_MTU if outer == 6 else _IPV4_MIN_MTU
    if not smallest <= link_mtu <= _MAX_PACKET:
        raise ValueError(f"{link_mtu} is no link MTU: IPv{outer} needs {smallest} to {_MAX_PACKET} bytes")
    udp_bytes = _UDP_BYTES if nat_t else 0
    around = _OUTER_BYTES[outer] + udp_bytes + _ESP_HEADER_BYTES + suite.iv_bytes + suite.icv_bytes
    blocks = (link_mtu - around) // suite.alignment_bytes
    fitting = blocks * suite.alignment_bytes - _TRAILER_BYTES
    inner_mtu = fitting if cap is None else min(fitting, cap)
    if inner_mtu < _IPV4_MIN_MTU:
        raise ValueError(
            f"a link MTU of {link_mtu} is too small: {suite} leaves less than {_IPV4_MIN_MTU} bytes"
        )
    return Overhead(
        suite=suite,
        link_mtu=link_mtu,
        outer=outer,
        nat_t=nat_t,
        inner_mtu=inner_mtu,
        outer_bytes=_OUTER_BYTES[outer],
        udp_bytes=udp_bytes,
        esp_header_bytes=_ESP_HEADER_BYTES,
        iv_bytes=suite.iv_bytes,
        trailer_bytes=_TRAILER_BYTES,
        icv_bytes=suite.icv_bytes,
        unused_bytes=link_mtu - around - _TRAILER_BYTES - fitting,
        capped_bytes=fitting - inner_mtu,
    )


def _suite(cipher: Algorithm, integrity: Algorithm | None) -> EspSuite:
    return EspSuite(
        name=cipher.keyword if integrity is None else f"{cipher}-{integrity}",
        iv_bytes=cipher.iv_bytes,
        icv_bytes=cipher.icv_bytes if integrity is None else integrity.icv_bytes,
        alignment_bytes=max(4, cipher.block_bytes),
    )
