"""The VICI protocol without I/O: bytes in, packets out.

A frame is a u32 big-endian length and a packet; a packet is a type (u8), a name where the type has one, a
message. Source: strongSwan, ``src/libcharon/plugins/vici/README.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from ipsecctl.errors import ViciError
from ipsecctl.vici.codec import MAX_FRAME_BYTES, Message, decode_message, decode_text

__all__ = ["Kind", "Received", "Receiver"]

_HEADER_BYTES = 4


class Kind(IntEnum):
    """Packet types that charon sends."""

    RESPONSE = 1
    UNKNOWN_COMMAND = 2
    CONFIRM = 5
    UNKNOWN_EVENT = 6
    EVENT = 7


@dataclass(frozen=True, slots=True)
class Received:
    """One packet from charon: ``event`` is its name for ``EVENT``; ``message`` has values of ``bytes``, or of
    ``str`` if the receiver was not ``raw``. Of an event to a receiver that leaves these ``undecoded`` there
    is its ``data`` instead."""

    kind: Kind
    message: Message
    event: str = ""
    data: bytes = b""


class Receiver:
    """Cuts what a connection delivers into packets. After an error it is of no further use.

    ``raw`` says of what comes from then on whether its values stay ``bytes``, ``undecoded`` whether events
    are left as they come.
    """

    def __init__(self, *, raw: bool = True) -> None:
        self.raw = raw
        self.undecoded = False
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Received]:
        """Take bytes as they come and return the packets that are now complete.

        Raises ``ViciError`` for a frame over 512 KiB, an unknown packet type, or a garbled packet.
        """
        self._buffer += data
        packets = []
        while (packet := self._take()) is not None:
            decode = decode_message if self.raw else decode_text
            packets.append(_parse(packet, decode, undecoded=self.undecoded))
        return packets

    def eof(self) -> ViciError:
        """Return what the end of the connection means at this point."""
        if not self._buffer:
            return ViciError("charon closed the connection")
        missing = self._announced()
        seen = f"{len(self._buffer)} bytes" + (
            f" of {_HEADER_BYTES + missing}" if missing is not None else ""
        )
        return ViciError(f"the connection to charon ended in the middle of a packet, after {seen}")

    def _announced(self) -> int | None:
        if len(self._buffer) < _HEADER_BYTES:
            return None
        return int(struct.unpack_from("!I", self._buffer)[0])

    def _take(self) -> bytes | None:
        length = self._announced()
        if length is None:
            return None
        if not 0 < length <= MAX_FRAME_BYTES:
            raise ViciError(
                f"charon announced a packet of {length} bytes; 1 to {MAX_FRAME_BYTES} are possible: "
                "is this a VICI socket?"
            )
        end = _HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        packet = bytes(self._buffer[_HEADER_BYTES:end])
        del self._buffer[:end]
        return packet


def _parse(packet: bytes, decode: Callable[[bytes], Message], *, undecoded: bool) -> Received:
    try:
        kind = Kind(packet[0])
    except ValueError:
        raise ViciError(f"charon sent a packet of unknown type {packet[0]}") from None
    if kind is not Kind.EVENT:
        return Received(kind, decode(packet[1:]))
    start = 2
    end = start + packet[1] if len(packet) >= start else start
    name = packet[start:end]
    if len(packet) < end or not name:
        raise ViciError("charon sent an event whose name is cut short")
    event, data = name.decode("utf-8", "backslashreplace"), packet[end:]
    return Received(kind, {}, event, data) if undecoded else Received(kind, decode(data), event)
