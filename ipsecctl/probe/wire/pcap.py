"""Capture files of the classic pcap format, as they come in: bytes in, records out.

The format is draft-ietf-opsawg-pcap: a file header of 24 bytes, then records with a header of 16 bytes each,
in the byte order of the machine that wrote them, times in micro- or nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

__all__ = ["CaptureDamaged", "NotACapture", "PcapReader", "Record", "read_pcap"]

# The magic number as it lies in the file: byte order and nanoseconds per unit of the fraction.
_FORMATS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_FILE_HEADER_BYTES = 24
_RECORD_HEADER_BYTES = 16
# libpcap's own limit (MAXIMUM_SNAPLEN); a record that claims more is damage, not a packet to wait for.
_LARGEST_RECORD_BYTES = 262144


class NotACapture(ValueError):  # noqa: N818 - what it says
    """The bytes do not begin like a pcap file."""


class CaptureDamaged(ValueError):  # noqa: N818
    """A record header cannot be true; what was read before it is good. ``offset`` is its place in bytes."""

    def __init__(self, offset: int, length: int) -> None:
        super().__init__(f"at byte {offset}: a record that claims {length} bytes")
        self.offset = offset
        self.length = length


class Record(NamedTuple):
    """One captured frame.

    ``time_ns`` counts from the epoch, ``link_type`` is a LINKTYPE number (see ``wire.link``), ``data`` is
    what was captured of a frame of ``original_bytes`` bytes.
    """

    time_ns: int
    link_type: int
    data: bytes
    original_bytes: int

    @property
    def is_cut(self) -> bool:
        """Whether the snap length cut the frame."""
        return len(self.data) < self.original_bytes


class PcapReader:
    """Reads a capture piece by piece, however it is cut: for a capture that is still being written.

    ``is_open`` is true once the file header was read, which tcpdump writes when it listens. ``pending_bytes``
    tells, after the last piece, how many bytes of an unfinished record are left.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._offset = 0
        self._header: Struct | None = None
        self._fraction_ns = 1
        self.link_type = -1

    @property
    def is_open(self) -> bool:
        return self._header is not None

    @property
    def pending_bytes(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Record]:
        """Take the next piece and return the records that it completes, in their order.

        Raises ``NotACapture`` or ``CaptureDamaged``; nothing more can be read then.
        """
        self._buffer += data
        start = 0
        if self._header is None:
            if not self._open():
                return []
            start = _FILE_HEADER_BYTES
        records, end = self._records(start)
        del self._buffer[:end]
        self._offset += end
        return records

    def _open(self) -> bool:
        magic = bytes(self._buffer[:4])
        if not any(known.startswith(magic) for known in _FORMATS):
            raise NotACapture(f"not a pcap file: it begins with {magic.hex()}")
        if len(self._buffer) < _FILE_HEADER_BYTES:
            return False
        order, self._fraction_ns = _FORMATS[magic]
        (link,) = Struct(f"{order}I").unpack_from(self._buffer, 20)
        # The upper bits say whether and how long a frame check sequence is (draft, section 4).
        self.link_type = link & 0xFFFF
        self._header = Struct(f"{order}IIII")
        return True

    def _records(self, position: int) -> tuple[list[Record], int]:
        assert self._header is not None  # noqa: S101 - feed() has opened
        buffer, unpack = bytes(self._buffer), self._header.unpack_from
        end, records = len(buffer), []
        while position + _RECORD_HEADER_BYTES <= end:
            seconds, fraction, captured, original = unpack(buffer, position)
            if captured > _LARGEST_RECORD_BYTES:
                raise CaptureDamaged(self._offset + position, captured)
            first = position + _RECORD_HEADER_BYTES
            if first + captured > end:
                break
            position = first + captured
            time_ns = seconds * 1_000_000_000 + fraction * self._fraction_ns
            records.append(Record(time_ns, self.link_type, buffer[first:position], original))
        return records, position


def read_pcap(data: bytes) -> Iterator[Record]:
    """Yield the records of a whole capture; an unfinished one at the end is left out.

    Raises ``NotACapture`` or ``CaptureDamaged``.
    """
    yield from PcapReader().feed(data)
