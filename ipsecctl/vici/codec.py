"""VICI messages and frames as bytes: the ``vici`` package's codec, made strict in both directions.

The package sends ``None`` as the text "None" and takes a value cut short for a whole one. Here neither
passes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any, TypeAlias

from vici import protocol
from vici.exception import DeserializationException

from ipsecctl.errors import ViciError

__all__ = ["MAX_FRAME_BYTES", "MAX_VALUE_BYTES", "Message", "decode_message", "encode_message", "text"]

MAX_FRAME_BYTES = 512 * 1024
"""charon's limit for one packet (``VICI_MESSAGE_SIZE_MAX``); it drops the connection beyond it."""

MAX_VALUE_BYTES = 0xFFFF
"""The length of a value is a u16."""

_MAX_NAME_BYTES = 0xFF
_Message: Any = protocol.Message  # the package has no annotations
_Packet: Any = protocol.Packet
_ELEMENTS = frozenset((_Message.SECTION_START, _Message.SECTION_END, _Message.KEY_VALUE, _Message.LIST_START))

Message: TypeAlias = dict[str, Any]
"""A section: keys are ``str``; values ``str`` or ``bytes``, lists of these, and sections."""


class _Strict(BytesIO):
    """The bytes of a message; a read beyond the end or an unknown element is an error, not a short answer."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = data

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            raise DeserializationException(f"{size} bytes announced at {self.tell()}, {len(data)} there")
        return data

    def has_more(self) -> bool:
        """Whether another element of a section follows."""
        position = self.tell()
        if position >= len(self._data):
            return False
        if self._data[position] not in _ELEMENTS:
            raise DeserializationException(f"unknown element {self._data[position]} at {position}")
        return True


def encode_message(message: Mapping[str, Any]) -> bytes:
    """Return a message as charon reads it.

    Raises ``TypeError`` for a value that is not ``str``, ``bytes``, a list of these, or a mapping, and
    ``ViciError`` for a name over 255 or a value over 65,535 bytes; both name the key.
    """
    return bytes(_Message.serialize(_checked(message, "")))


def decode_message(data: bytes) -> Message:
    """Return a message from its bytes; every value and list item is ``bytes``.

    Raises ``ViciError`` when it is not a whole and well-formed message.
    """
    try:
        return dict(_Message.deserialize(_Strict(data)))
    except (DeserializationException, UnicodeDecodeError, struct.error) as exc:
        raise ViciError(f"charon sent a garbled message: {exc}") from exc


def text(value: Any) -> Any:
    """Return a decoded message with every value as ``str``; bytes that are not UTF-8 become ``\\xNN``."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, list):
        return [text(item) for item in value]
    return {key: text(item) for key, item in value.items()}


def request_packet(command: str, message: Mapping[str, Any] | None) -> bytes:
    """Return a ``CMD_REQUEST`` packet in its frame. Raises as ``encode_message``."""
    return _frame(_Packet.request(_name(command, "command"), encode_message(message or {})))


def register_packet(event: str) -> bytes:
    """Return an ``EVENT_REGISTER`` packet in its frame."""
    return _frame(_Packet.register_event(_name(event, "event")))


def unregister_packet(event: str) -> bytes:
    """Return an ``EVENT_UNREGISTER`` packet in its frame."""
    return _frame(_Packet.unregister_event(_name(event, "event")))


def _frame(packet: bytes) -> bytes:
    if len(packet) > MAX_FRAME_BYTES:
        raise ViciError(f"a message of {len(packet)} bytes is larger than charon takes ({MAX_FRAME_BYTES})")
    return struct.pack("!I", len(packet)) + packet


def _name(name: str, place: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{place}: a VICI name is str, not {type(name).__name__}")
    if not 0 < len(name.encode()) <= _MAX_NAME_BYTES:
        raise ViciError(f"{place}: the VICI name {name!r} is empty or longer than {_MAX_NAME_BYTES} bytes")
    return name


def _checked(section: Mapping[str, Any], path: str) -> Message:
    """Return a copy of a section of which the package's encoder cannot make anything unexpected."""
    checked: Message = {}
    for key, value in section.items():
        place = f"{path}.{key}" if path else str(key)
        checked[_name(key, place)] = (
            _checked(value, place)
            if isinstance(value, Mapping)
            else [_checked_value(item, place) for item in value]
            if isinstance(value, list)
            else _checked_value(value, place)
        )
    return checked


def _checked_value(value: Any, place: str) -> str | bytes:
    if not isinstance(value, (str, bytes)):
        raise TypeError(f"{place}: a VICI value is str or bytes, not {type(value).__name__}")
    size = len(value.encode() if isinstance(value, str) else value)
    if size > MAX_VALUE_BYTES:
        raise ViciError(f"{place}: a value of {size} bytes is larger than VICI carries ({MAX_VALUE_BYTES})")
    return value
