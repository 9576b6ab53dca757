"""Filters for templates: each lets through only what its place in a file can hold, and refuses the rest.

What charon's settings files can hold (strongSwan's settings_lexer.l): section names end at white space and at
``# { } : . , = "``, and one that reads ``include`` would be taken for the directive. An unquoted value ends
at ``# } "`` and line ends. A quoted one ends at ``"``, takes ``\\`` as escape, drops carriage returns, and
cannot hold NUL. Lists are plain values that swanctl splits at commas.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NoReturn, SupportsBytes

from netaddr import IPNetwork

from ipsecctl.desired import (
    DEFAULT_LENGTHS,
    MAIN_TABLE,
    Interface,
    InterfaceKind,
    Route,
    RouteKind,
    Rule,
    RuleKind,
    TrafficSelector,
)
from ipsecctl.errors import CannotQuote
from ipsecctl.topology import RESERVED_NAME, identity_fault

__all__ = [
    "FILTERS",
    "bare",
    "checked_identity",
    "decimal",
    "elements",
    "file_name",
    "identity",
    "interface",
    "listed",
    "mark",
    "number",
    "option",
    "prefix",
    "quoted",
    "route",
    "rule",
    "seconds",
    "secret",
    "section",
    "selector",
    "selectors",
    "units",
    "yes_no",
]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LIST_ITEM = re.compile(r"[A-Za-z0-9%:_][A-Za-z0-9%._:/\[\]-]*")
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9@_.-]*")
_MARK = re.compile(r"(0x[0-9a-f]{1,8}|[0-9]{1,10})(/(0x[0-9a-f]{1,8}|[0-9]{1,10}))?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def bare(value: str) -> str:
    """Return a name as it is: ASCII letters, digits, ``_`` and ``-``. Raises ``CannotQuote`` for others."""
    if not _BARE.fullmatch(value):
        _refuse(value, "a name may hold letters, digits, '_' and '-' only")
    return value


def section(value: str) -> str:
    """Return the name of a section as ``bare`` does.

    Raises ``CannotQuote`` also for ``include``, which charon would take for its directive.
    """
    if value == RESERVED_NAME:
        _refuse(value, "strongSwan reads this name as a directive; choose another")
    return bare(value)


def quoted(value: str) -> str:
    """Return text as a string in double quotes, ``\\`` and ``"`` escaped.

    Raises ``CannotQuote`` for control characters, line separators and lone surrogates.
    """
    if _CONTROL.search(value):
        _refuse(value, "control characters cannot be written to a configuration file")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def identity(value: str) -> str:
    """Return an IKE identity as a string in double quotes.

    Raises ``CannotQuote`` for what charon refuses or cuts (other than printable ASCII, over 255 characters),
    and for what it takes as a pattern that several peers match (identification.c): ``%any``, wildcards,
    address blocks, regular expressions.
    """
    return quoted(checked_identity(value))


def checked_identity(value: str) -> str:
    """Return an identity unchanged. Raises ``CannotQuote`` as ``identity`` does."""
    if why := identity_fault(value):
        _refuse(value, why)
    return value


def listed(values: Iterable[str]) -> str:
    """Return addresses, DNS names, proposals or selectors as a list, separated by commas.

    Raises ``CannotQuote`` for an item with any character that such values never have.
    """
    items = list(values)
    for item in items:
        if not _LIST_ITEM.fullmatch(item):
            _refuse(item, "an item of a list may hold letters, digits and . : / % [ ] _ - only")
    return ", ".join(items)


def selector(value: TrafficSelector) -> str:
    """Return a traffic selector with protocol and ports as numbers: ``10.1.0.0/24[6/104]``.

    charon looks names up in /etc/protocols, which small systems do not have.
    """
    if value.protocol is None:
        return str(value.prefix)
    if value.ports is None:
        return f"{value.prefix}[{value.protocol}]"
    first, last = value.ports
    return f"{value.prefix}[{value.protocol}/{first}{'' if first == last else f'-{last}'}]"


def selectors(values: Iterable[TrafficSelector]) -> str:
    """Return traffic selectors as a list, separated by commas."""
    return ", ".join(map(selector, values))


def secret(value: SupportsBytes) -> str:
    """Return a PSK in swanctl's ``0s`` form (base64): every byte can be written, none is taken for syntax."""
    return f"0s{base64.b64encode(bytes(value)).decode('ascii')}"


def seconds(value: int) -> str:
    """Return a time in seconds with its unit, ``3600s``."""
    return f"{value:d}s"


def number(value: int) -> str:
    """Return a whole number in decimal."""
    return f"{value:d}"


def decimal(value: int, divisor: int) -> str:
    """Return ``value / divisor`` with as few digits as are exact: ``1400, 1000`` is ``1.4``."""
    return f"{value / divisor:g}"


def prefix(value: IPNetwork) -> str:
    """Return a network as ``address/length``."""
    return f"{value.network}/{value.prefixlen:d}"


def elements(values: Iterable[str]) -> str:
    """Return the elements of an nftables set, one a line, as ``guard_sets`` makes them."""
    return ",\n            ".join(values)


def interface(value: Interface) -> str:
    """Return an interface as one line of the guard's file: name, if_id, MTU, addresses.

    The if_id is written as ``ip -d link`` shows it; ``dummy`` stands for it where there is none.
    """
    what = f"{value.if_id:#x}" if value.kind is InterfaceKind.XFRM else value.kind.value
    addresses = (f"{address.ip}/{address.prefixlen:d}" for address in value.addresses)
    return " ".join((bare(value.name), what, f"{value.mtu:d}", *addresses))


def route(value: Route) -> str:
    """Return a route in the words that follow ``ip route replace``."""
    if value.interface:
        where = f"{prefix(value.prefix)} dev {bare(value.interface)}"
    else:
        kind = "throw" if value.kind is RouteKind.PASSED_ON else "unreachable"
        where = f"{kind} {prefix(value.prefix)}"
    table = "" if value.table == MAIN_TABLE else f" table {value.table:d}"
    metric = f" metric {value.metric:d}" if value.metric else ""
    source = "" if value.source is None else f" src {value.source}"
    mtu = f" mtu {value.mtu:d}" if value.mtu else ""
    return f"{where}{table} proto 213{metric}{source}{mtu}"


def rule(value: Rule) -> str:
    """Return a rule as one line of the guard's file: family, priority, and the words of ``ip -N rule``.

    There the type of an unreachable one is a number; a host's prefix has no length.
    """
    network = ""
    if value.prefix is not None:
        whole = value.prefix.prefixlen == (32 if value.family == 4 else 128)
        network = str(value.prefix.network) if whole else prefix(value.prefix)
    words = {
        RuleKind.OWN_PACKETS: f"from all iif lo goto {value.leads_to:d}",
        RuleKind.WAY_HOME: f"from all to {network} lookup {value.table:d} suppress_prefixlength "
        f"{DEFAULT_LENGTHS[value.family]:d}",
        RuleKind.NO_WAY_HOME: f"from all to {network} unreachable",
        RuleKind.BEHIND: "from all nop",
        RuleKind.HOLDING: f"not from all iif lo lookup {value.table:d}",
    }[value.kind]
    return f"-{value.family:d} {value.priority:d} {words} proto 213"


def mark(value: str) -> str:
    """Return a mark as ``VALUE`` or ``VALUE/MASK``. Raises ``CannotQuote`` for anything else."""
    if not _MARK.fullmatch(value):
        _refuse(value, "a mark is a number, or a number and a mask as 0x10/0xff")
    return value


def option(value: str) -> str:
    """Return the value of an option: a word, a number or a mark. Raises ``CannotQuote`` for others."""
    return value if _MARK.fullmatch(value) else bare(value)


def yes_no(value: bool) -> str:
    """Return ``yes`` or ``no``."""
    return "yes" if value else "no"


def units(values: Iterable[str]) -> str:
    """Return names of systemd's units, separated by blanks. Raises ``CannotQuote`` for other words."""
    names = list(values)
    for name in names:
        if not _UNIT.fullmatch(name):
            _refuse(name, "a unit's name may hold letters, digits and @ _ . - only")
    return " ".join(names)


def file_name(value: str) -> str:
    """Return the last part of a path below /etc/swanctl. Raises ``CannotQuote`` as ``listed`` does."""
    return listed([value.rpartition("/")[2]])


def _refuse(value: str, why: str) -> NoReturn:
    raise CannotQuote(f"{value!r} cannot be written to a configuration file", why)


FILTERS: Mapping[str, Callable[..., str]] = MappingProxyType(
    {
        "bare": bare,
        "decimal": decimal,
        "elements": elements,
        "file_name": file_name,
        "identity": identity,
        "interface": interface,
        "listed": listed,
        "number": number,
        "option": option,
        "prefix": prefix,
        "quoted": quoted,
        "route": route,
        "rule": rule,
        "seconds": seconds,
        "secret": secret,
        "section": section,
        "selectors": selectors,
        "units": units,
        "yes_no": yes_no,
    }
)
"""Every filter that a template may use, by name. A test holds that no template writes a value without one."""
