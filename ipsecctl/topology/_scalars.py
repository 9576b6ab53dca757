"""The small words of the language: names, prefixes, addresses, durations, ports, references to secrets.

Each is a type for pydantic: a function that reads it and says in plain words what is wrong, and its schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn, TypeAlias

from netaddr import AddrFormatError, IPAddress, IPNetwork
from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetJsonSchemaHandler,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, core_schema

from ipsecctl.topology.spelling import identity_fault

__all__ = [
    "DYNAMIC",
    "NAME",
    "WRONG",
    "Address",
    "ControlText",
    "Duration",
    "FilePath",
    "GatewayRef",
    "Identity",
    "Key",
    "Name",
    "NetworkRef",
    "OrWrong",
    "PortRange",
    "Prefix",
    "ProtocolNumber",
    "PublicAddress",
    "Short",
    "SpokeRef",
    "Text",
    "refuse",
    "refuse_home",
    "refuse_several",
    "shown",
]

DYNAMIC: Final = "dynamic"
_SEPARATORS: Final = re.compile(r"[\s,;]+")
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./*:-]*(?<!:)")
"""What YAML takes for a text, or for a number where that is one, in a list without quotation marks."""
_WORDS_SHOWN: Final = 4
NAME: Final = r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_DNS: Final = re.compile(
    r"(?=.{1,253}\Z)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?"
)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}


WRONG: Final = object()
"""What stands in for a wanted value that is missing or wrong, and is already reported."""


def refuse(
    code: str,
    summary: str,
    hint: str,
    *,
    at: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    meant: str | list[str] | None = None,
) -> NoReturn:
    """Refuse a value with a code of our own; pydantic adds the place.

    ``at`` is the place within a mapping at which something stands that must go: the rest is still checked.
    ``without`` names the keys that the mapping lacks: if one of them was wrong, that is the mistake.
    ``meant`` is how the value is written as it can only be meant: with that, all other checks see it.
    """
    context = {"summary": summary, "hint": hint, "at": at, "without": without, "meant": meant}
    raise PydanticCustomError(code, "{summary}", context)


def refuse_several(value: Any) -> Any:
    """Refuse a text of several words where each should be an item of a list; return all else as it is."""
    words = [word for word in _SEPARATORS.split(value) if word] if isinstance(value, str) else []
    if len(words) > 1:
        refuse("IP013", f"a list is wanted here, not {shown(value)}", _list_hint(words), meant=words)
    return value


def _list_hint(words: Sequence[str]) -> str:
    quoted = [word if _PLAIN.fullmatch(word) else json.dumps(word, ensure_ascii=False) for word in words]
    more = ", ..." if len(words) > _WORDS_SHOWN else ""
    return f"write a list: [{', '.join(quoted[:_WORDS_SHOWN])}{more}]"


def shown(value: Any) -> str:
    """Return what kind of value this is, in plain words and never longer than a few of them."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {'true' if value else 'false'}"
    if isinstance(value, int):
        return f"the number {value}"
    if isinstance(value, float):
        return f"the number {value!r}"
    if isinstance(value, str):
        return f"the text {value[:57] + '...' if len(value) > 60 else value!r}"
    return "a list" if isinstance(value, list) else "a mapping"


@dataclass(frozen=True, slots=True)
class OrWrong:
    """Take ``WRONG`` for a value, and make ``instead`` of it: no file can say that."""

    instead: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        def read(value: Any, inner: Any) -> Any:
            return self.instead if value is WRONG else inner(value)

        return core_schema.no_info_wrap_validator_function(read, handler(source))


@dataclass(frozen=True, slots=True)
class Short:
    """Allow a short form in place of a mapping or list: ``expand`` makes the long form of it.

    ``schema`` is the JSON Schema of the short form, offered to editors beside that of the long one.
    """

    expand: Callable[[Any], Any]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [self.schema, handler(schema)]}


def _as_text(value: Any) -> Any:
    """Return the text of a scalar that YAML takes for a number or boolean: a site may be called 7 or true."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def _text_or_refuse(value: Any, wanted: str, hint: str) -> str:
    if not isinstance(value, str):
        refuse("IP013", f"{wanted} is wanted here, not {shown(value)}", hint)
    return value


_PREFIX_HINT: Final = "write it as 10.10.0.0/24 or fd00:10::/64"
_Range: TypeAlias = "tuple[int, int, int, str]"  # version, first, last, name


def _ranges(*named: tuple[str, str]) -> tuple[_Range, ...]:
    networks = ((IPNetwork(text), name) for text, name in named)
    return tuple((network.version, network.first, network.last, name) for network, name in networks)


# What no tunnel can carry.
_REFUSED: Final = _ranges(
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("::1/128", "loopback"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
)
# What else is no address of one host (RFC 6890, section 2.2.2).
_NO_GATEWAYS: Final = _ranges(
    ("0.0.0.0/32", "unspecified"),
    ("0.0.0.0/8", "of this network (RFC 1122)"),
    ("255.255.255.255/32", "the broadcast address"),
    ("240.0.0.0/4", "reserved (class E)"),
    ("::/128", "unspecified"),
)


def _kind_of(version: int, first: int, last: int, ranges: tuple[_Range, ...] = _REFUSED) -> str | None:
    return next((n for v, low, high, n in ranges if v == version and low <= first and last <= high), None)


def _prefix(value: Any) -> IPNetwork:
    text = _text_or_refuse(value, "a network", _PREFIX_HINT)
    address, slash, length = text.partition("/")
    try:
        network = IPNetwork(text)
    except (AddrFormatError, ValueError):
        refuse("IP110", f"{text!r} is not a network", _PREFIX_HINT)
    if not slash:
        whole = 32 if network.version == 4 else 128
        refuse(
            "IP110", f"{text!r} has no prefix length", f"write '{address}/{whole}' if you mean this one host"
        )
    if not (length.isascii() and length.isdigit()) or str(int(length)) != length or " " in text:
        hint = f"write '{network.cidr}'"
        refuse("IP110", f"{text!r} is not written as address/length", hint, meant=str(network.cidr))
    if not network.prefixlen:
        # What a gateway guards would hold its own LAN: it would be cut off.
        summary = f"{text!r} is a default route: a tunnel for everything is not possible in this version"
        refuse("IP118", summary, "name the networks that are reached through the tunnel")
    if network.value != network.first:
        summary = f"{text!r} has bits set in its host part"
        refuse("IP111", summary, f"the network is '{network.cidr}'", meant=str(network.cidr))
    kind = _kind_of(network.version, network.first, network.last)
    if kind is not None:
        refuse("IP112", f"'{network}' is {kind}: no tunnel can carry it", "name the network of the hosts")
    return network


_ADDRESS_HINT: Final = (
    "write an address such as 198.51.100.10, a DNS name such as gw.example.org, or 'dynamic'"
)


def _address(value: Any) -> IPAddress | str:
    text = _text_or_refuse(value, "an address, a DNS name or 'dynamic'", _ADDRESS_HINT)
    if text == DYNAMIC:
        return text
    bare, slash, _ = text.partition("/")
    try:
        address = IPAddress(bare)
    except (AddrFormatError, ValueError):
        if _DNS.fullmatch(text):
            return text
        dynamic = text.lower().startswith("dyn")
        hint = "did you mean 'dynamic'?" if dynamic else _ADDRESS_HINT
        meant = DYNAMIC if dynamic else None
        refuse("IP120", f"{text!r} is neither an address nor a DNS name", hint, meant=meant)
    if slash:
        hint = f"write '{bare}'"
        refuse("IP120", f"{text!r} is a network, not the address of a gateway", hint, meant=bare)
    if address.is_ipv4_mapped():
        plain = str(address.ipv4())
        summary = f"'{address}' is an IPv4 address written as IPv6: no packet has it"
        refuse("IP119", summary, f"write '{plain}'", meant=plain)
    number = int(address)
    kind = _kind_of(address.version, number, number, (*_REFUSED, *_NO_GATEWAYS))
    if kind is not None:
        refuse("IP119", f"'{address}' is {kind}: no gateway can be reached there", _ADDRESS_HINT)
    return address


def _public_address(value: Any) -> IPAddress | str:
    address = _address(value)
    if address == DYNAMIC:
        hint = "leave 'public_address' out when nothing forwards to this gateway"
        refuse("IP120", "'public_address' is where peers call: it cannot be dynamic", hint)
    return address


def _duration(value: Any) -> int:
    hint = "write it as 4h, 90m, 3600s or 1h30m"
    if isinstance(value, int) and not isinstance(value, bool):
        seconds = value
    else:
        text = _text_or_refuse(value, "a time", hint)
        if not re.fullmatch(r"([0-9]{1,9}[smhd])+", text):
            refuse("IP014", f"{text!r} is not a time", hint, meant=_plain_duration(text))
        seconds = sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"([0-9]+)([smhd])", text))
    if not 1 <= seconds <= 365 * 86400:
        refuse("IP014", f"a time of {seconds} seconds is out of range", "write one from 1s to 365d")
    return seconds


def _plain_duration(text: str) -> str | None:
    """Return a time as it is to be written, of one with blanks, capitals or whole words."""
    units = "(?:s|sec|second|m|min|minute|h|hour|d|day)"
    found = re.fullmatch(rf"\s*([0-9]{{1,9}})\s*({units})?s?\s*", text.lower())
    return f"{found[1]}{(found[2] or 's')[0]}" if found else None


def _protocol(value: Any) -> int:
    hint = f"write {', '.join(_PROTOCOLS)}, or a protocol number from 1 to 255"
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 255:
            refuse("IP014", f"there is no IP protocol {value}", hint)
        return value
    text = _text_or_refuse(value, "a protocol", hint)
    if text not in _PROTOCOLS:
        meant = text.strip().lower()
        refuse("IP014", f"unknown protocol {text!r}", hint, meant=meant if meant in _PROTOCOLS else None)
    return _PROTOCOLS[text]


def _ports(value: Any) -> tuple[int, int]:
    hint = 'write a port such as 443, or a range such as "8000-8080"'
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    text = _text_or_refuse(text, "a port", hint)
    if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", text):
        refuse("IP014", f"{text!r} is not a port", hint)
    first, _, last = text.partition("-")
    ports = int(first), int(last or first)
    if not 1 <= ports[0] <= ports[1] <= 65535:
        summary = f"{text!r} is not a range of ports" if last else f"there is no port {text}"
        meant = f"{ports[1]}-{ports[0]}" if 1 <= ports[1] < ports[0] <= 65535 else None
        refuse("IP014", summary, "ports go from 1 to 65535, the smaller first", meant=meant)
    return ports


_CONTROL: Final = re.compile(
    rf"local|lab(:{NAME})?|ssh://([^@/\s:]+@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{{1,5}}))?"
)


def _control(value: Any) -> str:
    hint = "write local, lab, lab:NAME or ssh://USER@HOST:PORT"
    text = _text_or_refuse(value, "a way to reach the gateway", hint)
    found = _CONTROL.fullmatch(text)
    if not found:
        refuse("IP014", f"{text!r} is no way to reach a gateway", hint)
    if (port := found["port"]) and not 1 <= int(port) <= 65535:
        refuse("IP014", f"there is no port {port}", "ports go from 1 to 65535")
    return text


def refuse_home(path: str) -> None:
    """Refuse a path that begins with ``~``."""
    if re.match(r"~[^/]*/", path):
        summary = f"{path!r}: '~' stands for no home directory here"
        refuse("IP164", summary, "write the whole path, or one relative to the topology file")


def _one_peer(value: str) -> str:
    if why := identity_fault(value):
        hint = "write that of one peer: a name, an address, an e-mail address or a distinguished name"
        refuse("IP014", f"{shown(value)} cannot be an identity: {why}", hint)
    return value


def _path(value: Any) -> str:
    hint = "write the path of a PEM or DER file, relative to the topology file"
    text = _text_or_refuse(value, "the path of a file", hint)
    if not text.strip() or "\n" in text:
        refuse("IP014", "the path of a file is empty or has several lines", hint)
    if text.startswith("file:"):
        summary = f"{text!r}: a certificate is no secret and needs no 'file:'"
        refuse("IP014", summary, f"write {text[5:]!r}", meant=text[5:])
    refuse_home(text)
    return text


Key: TypeAlias = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
Name: TypeAlias = Annotated[Key, BeforeValidator(_as_text)]
GatewayRef: TypeAlias = Annotated[
    str, StringConstraints(pattern=f"^{NAME}(/{NAME})?$"), BeforeValidator(_as_text)
]
SpokeRef: TypeAlias = Annotated[
    str,
    StringConstraints(pattern=rf"^[A-Za-z0-9_*?\[\]!-]+(/{NAME})?$"),
    BeforeValidator(_as_text),
]
NetworkRef: TypeAlias = Annotated[
    str, StringConstraints(pattern=rf"^{NAME}(\.{NAME})?$"), BeforeValidator(_as_text)
]
Text: TypeAlias = Annotated[str, BeforeValidator(_as_text)]
Identity: TypeAlias = Annotated[
    str,
    StringConstraints(pattern=r"^[!-~]([ -~]*[!-~])?$", max_length=255),
    AfterValidator(_one_peer),
    BeforeValidator(_as_text),
]


def _json(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema(schema)


Prefix: TypeAlias = Annotated[
    Any, PlainValidator(_prefix), _json({"type": "string", "pattern": r"^[0-9A-Fa-f:.]+/[1-9][0-9]{0,2}$"})
]
Address: TypeAlias = Annotated[Any, PlainValidator(_address), _json({"type": "string"})]
PublicAddress: TypeAlias = Annotated[Any, PlainValidator(_public_address), _json({"type": "string"})]
Duration: TypeAlias = Annotated[
    Any,
    PlainValidator(_duration),
    _json({"anyOf": [{"type": "string", "pattern": "^([0-9]+[smhd])+$"}, {"type": "integer", "minimum": 1}]}),
]
ProtocolNumber: TypeAlias = Annotated[
    Any,
    PlainValidator(_protocol),
    _json({"anyOf": [{"enum": list(_PROTOCOLS)}, {"type": "integer", "minimum": 1, "maximum": 255}]}),
]
PortRange: TypeAlias = Annotated[
    Any,
    PlainValidator(_ports),
    _json(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$"},
            ]
        }
    ),
]
ControlText: TypeAlias = Annotated[
    Any, PlainValidator(_control), _json({"type": "string", "pattern": "^(local|lab(:.+)?|ssh://.+)$"})
]
FilePath: TypeAlias = Annotated[Any, PlainValidator(_path), _json({"type": "string", "minLength": 1})]
