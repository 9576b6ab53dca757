"""VICI messages and frames as bytes, strict in both directions.

The ``vici`` package's codec is the measure (tests hold this one against it), but it takes several times
as long for the thousands of connections of a ``list-conns``, sends ``None`` as the text "None", and takes a
value cut short for a whole one. Here neither passes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from vici import protocol

from ipsecctl.errors import ViciError

__all__ = ["MAX_FRAME_BYTES", "MAX_VALUE_BYTES", "Message", "decode_message", "encode_message", "text"]

MAX_FRAME_BYTES = 512 * 1024
"""charon's limit for one packet (``VICI_MESSAGE_SIZE_MAX``); it drops the connection beyond it."""

MAX_VALUE_BYTES = 0xFFFF
"""The length of a value is a u16."""

_MAX_NAME_BYTES = 0xFF
_Message: Any = protocol.Message  # the package has no annotations
_Packet: Any = protocol.Packet
_SECTION_START: int = _Message.SECTION_START
_SECTION_END: int = _Message.SECTION_END
_KEY_VALUE: int = _Message.KEY_VALUE
_LIST_START: int = _Message.LIST_START
_LIST_ITEM: int = _Message.LIST_ITEM
_LIST_END: int = _Message.LIST_END

Message: TypeAlias = dict[str, Any]
"""A section: keys are ``str``; values ``str`` or ``bytes``, lists of these, and sections."""


def encode_message(message: Mapping[str, Any]) -> bytes:
    """Return a message as charon reads it.

    Raises ``TypeError`` for a value that is not ``str``, ``bytes``, a list of these, or a mapping, and
    ``ViciError`` for a name over 255 or a value over 65,535 bytes; both name the key.
    """
    data = bytearray()
    _encode_section(data, message, ())
    return bytes(data)


def _encode_section(data: bytearray, section: Mapping[str, Any], path: tuple[str, ...]) -> None:
    for key, value in section.items():
        name = _name(key, path)
        if isinstance(value, (str, bytes)):
            data += bytes((_KEY_VALUE, len(name))) + name + _value(value, path, key)
        elif isinstance(value, list):
            data += bytes((_LIST_START, len(name))) + name
            for item in value:
                data.append(_LIST_ITEM)
                data += _value(item, path, key)
            data.append(_LIST_END)
        elif isinstance(value, Mapping):
            data += bytes((_SECTION_START, len(name))) + name
            _encode_section(data, value, (*path, key))
            data.append(_SECTION_END)
        else:
            raise _wrong_type(value, path, key)


def _value(value: Any, path: tuple[str, ...], key: str) -> bytes:
    if isinstance(value, str):
        value = value.encode()
    elif not isinstance(value, bytes):
        raise _wrong_type(value, path, key)
    size = len(value)
    if size > MAX_VALUE_BYTES:
        place = ".".join((*path, key))
        raise ViciError(f"{place}: a value of {size} bytes is larger than VICI carries ({MAX_VALUE_BYTES})")
    return size.to_bytes(2, "big") + bytes(value)


def _wrong_type(value: Any, path: tuple[str, ...], key: str) -> TypeError:
    place = ".".join((*path, key))
    return TypeError(f"{place}: a VICI value is str or bytes, not {type(value).__name__}")


def decode_message(data: bytes) -> Message:
    """Return a message from its bytes; every value and list item is ``bytes``.

    Raises ``ViciError`` when it is not a whole and well-formed message.
    """
    return _decode(data, _as_it_is)


def decode_text(data: bytes) -> Message:
    """Return a message from its bytes with every value as ``text`` has it: in one go, which is faster.

    Raises as ``decode_message`` does.
    """
    return _decode(data, _as_text)


def only_section(data: bytes) -> str:
    """Return the name of the section that a message consists of, from its bytes; what is in it is not read.

    Raises ``ViciError`` when the message does not begin with a section and end with the end of one.
    """
    if len(data) < 3 or data[0] != _SECTION_START or len(data) < 3 + data[1] or data[-1] != _SECTION_END:
        raise ViciError("charon sent a garbled message: it is no section")
    try:
        return data[2 : 2 + data[1]].decode()
    except UnicodeDecodeError as exc:
        raise ViciError(f"charon sent a garbled message: {exc}") from exc


def _decode(data: bytes, value: Callable[[bytes], str | bytes]) -> Message:
    try:
        return _decoded(data, value)
    except IndexError:
        raise ViciError(f"charon sent a garbled message: it ends within an element, at {len(data)}") from None
    except (ValueError, UnicodeDecodeError) as exc:
        raise ViciError(f"charon sent a garbled message: {exc}") from exc


def _as_it_is(value: bytes) -> bytes:
    return value


def _as_text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _decoded(data: bytes, value: Callable[[bytes], str | bytes]) -> Message:
    """Return a message; a read beyond the end is an ``IndexError``, anything else that is wrong a
    ``ValueError``."""
    end, at = len(data), 0
    section: Message = {}
    outer: list[Message] = []
    while at < end:
        kind = data[at]
        if kind == _SECTION_END:
            if not outer:
                raise ValueError(f"unexpected end of section at {at}")
            section = outer.pop()
            at += 1
            continue
        if kind not in (_KEY_VALUE, _SECTION_START, _LIST_START):
            raise ValueError(f"unknown element {kind} at {at}")
        start = at + 2
        at = start + data[at + 1]
        if at > end:
            raise _cut_short(data, start, at)
        name = data[start:at].decode()
        if kind == _KEY_VALUE:
            start = at + 2
            at = start + (data[at] << 8 | data[at + 1])
            if at > end:
                raise _cut_short(data, start, at)
            section[name] = value(data[start:at])
        elif kind == _SECTION_START:
            outer.append(section)
            section[name] = section = {}
        else:
            section[name], at = _items(data, at, value)
    if outer:
        raise ValueError("a section does not end")
    return section


def _items(data: bytes, at: int, value: Callable[[bytes], str | bytes]) -> tuple[list[str | bytes], int]:
    """Return the items of the list that begins at an offset, and where it ends."""
    items = []
    while data[at] == _LIST_ITEM:
        start = at + 3
        at = start + (data[at + 1] << 8 | data[at + 2])
        if at > len(data):
            raise _cut_short(data, start, at)
        items.append(value(data[start:at]))
    if data[at] != _LIST_END:
        raise ValueError(f"a list does not end at {at}")
    return items, at + 1


def _cut_short(data: bytes, start: int, end: int) -> ValueError:
    return ValueError(f"{end - start} bytes announced at {start}, {len(data) - start} there")


def text(value: Any) -> Any:
    """Return a decoded message with every value as ``str``; bytes that are not UTF-8 become ``\\xNN``."""
    if isinstance(value, bytes):
        return _as_text(value)
    if isinstance(value, list):
        return [text(item) for item in value]
    return {key: text(item) for key, item in value.items()}


def request_packet(command: str, message: Mapping[str, Any] | None) -> bytes:
    """Return a ``CMD_REQUEST`` packet in its frame. Raises as ``encode_message``."""
    return _frame(_Packet.request(_name(command, ("command",)).decode(), encode_message(message or {})))


def register_packet(event: str) -> bytes:
    """Return an ``EVENT_REGISTER`` packet in its frame."""
    return _frame(_Packet.register_event(_name(event, ("event",)).decode()))


def unregister_packet(event: str) -> bytes:
    """Return an ``EVENT_UNREGISTER`` packet in its frame."""
    return _frame(_Packet.unregister_event(_name(event, ("event",)).decode()))


def _frame(packet: bytes) -> bytes:
    if len(packet) > MAX_FRAME_BYTES:
        raise ViciError(f"a message of {len(packet)} bytes is larger than charon takes ({MAX_FRAME_BYTES})")
    return struct.pack("!I", len(packet)) + packet


def _name(name: str, path: tuple[str, ...]) -> bytes:
    """Return a name as it is sent; ``path`` are the sections that it stands in, or what it names."""
    if not isinstance(name, str):
        place = ".".join((*path, str(name)))
        raise TypeError(f"{place}: a VICI name is str, not {type(name).__name__}")
    encoded = name.encode()
    if not 0 < len(encoded) <= _MAX_NAME_BYTES:
        place = ".".join((*path, name))
        raise ViciError(f"{place}: the VICI name {name!r} is empty or longer than {_MAX_NAME_BYTES} bytes")
    return encoded
