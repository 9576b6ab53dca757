"""A secret that does not show itself by accident."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn

__all__ = ["Secret"]

_SHOWN = "Secret(***)"


class Secret:
    """A PSK or a private key in plain bytes; ``bytes(secret)`` is the only way to them.

    ``repr``, ``str`` and ``format`` show nothing, pickling is refused, comparison takes the same time
    wherever the difference is. Not in a traceback, a log or a dataclass that is printed does it show more
    than its being there.
    """

    __slots__ = ("__value",)

    def __init__(self, value: bytes) -> None:
        self.__value = bytes(value)

    def __bytes__(self) -> bytes:
        return self.__value

    def __repr__(self) -> str:
        return _SHOWN

    def __str__(self) -> str:
        return _SHOWN

    def __format__(self, format_spec: str) -> str:
        return format(_SHOWN, format_spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value, bytes(other))

    def __hash__(self) -> int:
        # Python's hash of bytes is keyed with a random value of this process.
        return hash(self.__value)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")
