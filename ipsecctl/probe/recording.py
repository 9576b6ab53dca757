"""What a tap has heard: packets, parsed once, and found again by the mark that they carry.

A mark is the run's token (16 random bytes) and the probe's serial number (4 bytes, big-endian). It is
searched for in the raw frame, so that it is found wherever it is: in an error that quotes the packet, under a
NAT, in a fragment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ipsecctl.probe.scene import Tap
from ipsecctl.probe.wire import IpPacket, Record, ip_packet, parse_ip

__all__ = ["MARK_BYTES", "TOKEN_BYTES", "Heard", "Recording", "mark"]

TOKEN_BYTES = 16
MARK_BYTES = TOKEN_BYTES + 4


def mark(token: bytes, serial: int) -> bytes:
    """Return the mark of probe ``serial`` in the run of ``token``: 20 bytes that occur nowhere else."""
    return token + serial.to_bytes(4)


class Heard(NamedTuple):
    """A packet at a tap; ``packet`` is ``None`` when it was no IP, ``serial`` when it bears no mark."""

    time_ns: int
    packet: IpPacket | None
    serial: int | None


class Recording:
    """Everything heard at one tap.

    ``dropped`` is the number of packets that the kernel lost before they were read, ``None`` as long as it is
    not known; ``trouble`` says why the capture is not to be trusted, and is empty when it is.
    """

    def __init__(self, tap: Tap, token: bytes) -> None:
        self.tap = tap
        self.packets: list[Heard] = []
        self.dropped: int | None = None
        self.trouble = ""
        self._token = token
        self._marked: defaultdict[int, list[Heard]] = defaultdict(list)

    def add(self, records: Iterable[Record]) -> None:
        """Take in captured frames."""
        for record in records:
            at = record.data.find(self._token)
            tail = record.data[at + TOKEN_BYTES : at + MARK_BYTES] if at >= 0 else b""
            serial = int.from_bytes(tail) if at >= 0 else None
            packet = ip_packet(record.link_type, record.data)
            heard = Heard(record.time_ns, parse_ip(packet) if packet else None, serial)
            self.packets.append(heard)
            if serial is not None:
                self._marked[serial].append(heard)

    def with_mark(self, serial: int) -> Sequence[Heard]:
        """Return the packets that carry the mark of probe ``serial``, in the order of their arrival."""
        return self._marked.get(serial, ())

    @property
    def marked(self) -> list[Heard]:
        """Every packet with a mark of this run."""
        return [heard for found in self._marked.values() for heard in found]

    def why_not(self) -> str:
        """Say why this recording proves nothing; empty when it does."""
        if self.trouble:
            return f"capture at {self.tap}: {self.trouble}"
        if self.dropped is None:
            return f"capture at {self.tap}: it is not known whether packets were lost"
        return f"capture at {self.tap}: the kernel lost {self.dropped} packets" if self.dropped else ""
