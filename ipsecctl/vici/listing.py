"""Connections as ``list-conns`` reports them, decoded when somebody asks for one.

There may be thousands, and mostly their names are all that is asked for, or whether they are what they were.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from ipsecctl.vici.codec import Message, decode_text, only_section

__all__ = ["Listing"]


class Listing(Mapping[str, Message]):
    """Connections by name. Asking for one that came garbled raises ``ViciError``, as ``decode_text`` does.

    Each event of charon's has one connection (``list_conns`` of strongSwan's vici_query.c).
    """

    def __init__(self, events: Iterable[bytes]) -> None:
        """Take the messages of the events as they came. Raises ``ViciError`` where one has no proper name."""
        self._data = {only_section(data): data for data in events}
        self._decoded: dict[str, Message] = {}

    def __getitem__(self, name: str) -> Message:
        if name not in self._decoded:
            self._decoded[name] = decode_text(self._data[name])[name]
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, name: object) -> bool:
        return name in self._data

    def decode_all(self) -> None:
        """See to it that nothing will be found to be garbled later. Raises ``ViciError``."""
        for name in self._data:
            self[name]

    def same(self, name: str, other: Listing) -> bool:
        """Whether a connection was reported by the same bytes in two listings."""
        return name in self._data and self._data[name] == other._data.get(name)

    def reported(self, names: Collection[str]) -> bytes | None:
        """Return how these connections were reported, as bytes that are equal when all of it is.

        ``None`` where one is not there.
        """
        if not self._data.keys() >= {*names}:
            return None
        parts = (self._data[name] for name in sorted(names))
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
