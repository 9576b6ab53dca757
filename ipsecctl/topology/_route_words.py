"""The words of the language for route mode and for the options of SAs, as ``_scalars`` has the others."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeAlias

from netaddr import AddrFormatError, IPAddress, IPNetwork
from pydantic import GetJsonSchemaHandler, PlainValidator, StringConstraints, WithJsonSchema
from pydantic_core import core_schema

from ipsecctl.topology._scalars import NAME, refuse, refuse_several, shown

__all__ = ["EndKey", "HostAddress", "IfId", "InsideAddress", "Mark", "ReplayWindow", "WordOrList"]

_LARGEST_ID: Final = 0xFFFFFFFF
_LARGEST_WINDOW: Final = 4096
"""XFRMA_REPLAY_ESN_MAX (linux/xfrm.h), in packets."""
_ADDRESS_HINT: Final = "write it as 169.254.10.1/30, 10.255.0.1/32 or fd00:ff::1/64"
_USELESS: Final = {4: IPNetwork("224.0.0.0/3"), 6: IPNetwork("ff00::/8")}


def _if_id(value: Any) -> int:
    hint = "write a number from 1 to 4294967295, or leave it out: one is made of the names"
    return _number(value, "an if_id", (1, _LARGEST_ID), hint)


def _replay_window(value: Any) -> int:
    hint = f"write a number of packets from 0 (no protection) to {_LARGEST_WINDOW}"
    return _number(value, "a replay window", (0, _LARGEST_WINDOW), hint)


def _number(value: Any, what: str, limits: tuple[int, int], hint: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        refuse("IP013", f"{what} is a number, not {shown(value)}", hint)
    if not limits[0] <= value <= limits[1]:
        refuse("IP014", f"{value} is out of range for {what}", hint)
    return value


def _mark(value: Any) -> str:
    hint = "write it as 42, 0x2a or 0x2a/0xff"
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        refuse("IP013", f"a mark is a number, not {shown(value)}", hint)
    parts = text.lower().split("/")
    if len(parts) > 2 or not all(re.fullmatch(r"0x[0-9a-f]{1,8}|[0-9]{1,10}", part) for part in parts):
        refuse("IP014", f"{text!r} is not a mark", hint)
    if max(int(part, 0 if part.startswith("0x") else 10) for part in parts) > _LARGEST_ID:
        refuse("IP014", f"{text!r} does not fit the 32 bits of a mark", hint)
    return "/".join(parts)


def _host_address(value: Any) -> IPNetwork:
    """Read an address with the length of its network; host bits are what it is about."""
    if not isinstance(value, str):
        refuse("IP013", f"an address is wanted here, not {shown(value)}", _ADDRESS_HINT)
    address, slash, length = value.partition("/")
    try:
        network = IPNetwork(value)
    except (AddrFormatError, ValueError):
        refuse("IP225", f"{value!r} is not an address with a prefix length", _ADDRESS_HINT)
    if not slash or not (length.isascii() and length.isdigit()):
        whole = 32 if network.version == 4 else 128
        refuse(
            "IP225", f"{value!r} has no prefix length", f"write '{address}/{whole}' for this address alone"
        )
    if not network.prefixlen or network.ip in _USELESS[network.version] or not int(network.ip):
        refuse("IP225", f"{value!r} is no address of an interface", _ADDRESS_HINT)
    return network


def _inside(value: Any) -> IPAddress:
    hint = "write the gateway's own address in its network, such as 10.10.0.1"
    if not isinstance(value, str):
        refuse("IP013", f"an address is wanted here, not {shown(value)}", hint)
    try:
        return IPAddress(value)
    except (AddrFormatError, ValueError):
        bare = value.partition("/")[0]
        meant = bare if re.fullmatch(r"[0-9.]+/[0-9]{1,2}|[0-9A-Fa-f:.]+/[0-9]{1,3}", value) else None
        refuse("IP228", f"{value!r} is not an address", hint, meant=meant)


class WordOrList:
    """Take one of two words in place of a list."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        def read(value: Any, listed: Any) -> Any:
            if not isinstance(value, str):
                return listed(value)
            refuse_several(value)
            if value not in self._words:
                hint = f"write {', '.join(self._words)} or a list of networks"
                refuse("IP014", f"{value!r} is no choice here", hint)
            return value

        return core_schema.no_info_wrap_validator_function(read, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(self._words)}, handler(schema)]}


def _json(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema(schema)


EndKey: TypeAlias = Annotated[str, StringConstraints(pattern=f"^{NAME}(/{NAME})?$")]
IfId: TypeAlias = Annotated[
    Any, PlainValidator(_if_id), _json({"type": "integer", "minimum": 1, "maximum": _LARGEST_ID})
]
ReplayWindow: TypeAlias = Annotated[
    Any,
    PlainValidator(_replay_window),
    _json({"type": "integer", "minimum": 0, "maximum": _LARGEST_WINDOW}),
]
Mark: TypeAlias = Annotated[
    Any,
    PlainValidator(_mark),
    _json(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": _LARGEST_ID},
                {"type": "string", "pattern": "^[0-9A-FXa-fx]+(/[0-9A-FXa-fx]+)?$"},
            ]
        }
    ),
]
HostAddress: TypeAlias = Annotated[
    Any,
    PlainValidator(_host_address),
    _json({"type": "string", "pattern": r"^[0-9A-Fa-f:.]+/[1-9][0-9]{0,2}$"}),
]
InsideAddress: TypeAlias = Annotated[
    Any, PlainValidator(_inside), _json({"type": "string", "pattern": r"^[0-9A-Fa-f:.]+$"})
]
