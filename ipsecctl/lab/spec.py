"""``labs/NAME/lab.yaml``: what a topology does not say about its lab.

Pure: text in, a :class:`LabSpec` or findings out, each with line and column. The finding codes of this room:
IP401 (keys), IP402 (values), IP403 (what does not fit the topology), IP404 (files).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
)
from pydantic_core import ErrorDetails

from ipsecctl.errors import Diagnostic, Severity
from ipsecctl.lab.wiring import Init, Release
from ipsecctl.topology import Path, Reading, read_yaml, shown

__all__ = ["BoxSpec", "Finding", "GatewaySpec", "HostSpec", "LabSpec", "LinkSpec", "Places", "parse"]

# Longer than any path in the file.
_DEEPEST = 9
_SOME_MTU = 1500
_NAME = r"^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$"


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _absolute(path: str) -> str:
    if not PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("it is not an absolute path in the node")
    return path


def _address(value: Any) -> IPv4Address | IPv6Address:
    try:
        return ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f"'{value}' is not an IP address") from None


def _one_of(kind: type[StrEnum]) -> Callable[[Any], Any]:
    """Return what makes a value of the file a member of ``kind``, or says which there are."""

    def member(value: Any) -> Any:
        names = list(map(str, kind))
        if value not in names:
            said = f"'{value}'" if isinstance(value, str) else shown(value)
            raise ValueError(f"{said} is none of {', '.join(names)}")
        return kind(value)

    return member


Name = Annotated[str, Field(pattern=_NAME)]
Mtu = Annotated[int, Field(ge=576, le=9216, description="bytes of IP packet")]
Address = Annotated[IPv4Address | IPv6Address, PlainValidator(_address)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HostSpec(_Section):
    """A host beside, or instead of, the one that each network has; ``network`` is ``SITE.NETWORK``."""

    network: str
    address: Annotated[list[Address], BeforeValidator(_as_list)] = Field(default=[], min_length=0)


class BoxSpec(_Section):
    """A NAT box: the gateways behind it, its WAN address, and the network between them.

    ``forward`` says whether UDP 500 and 4500 are passed on to the gateway; without it, they are when the
    topology gives the gateway a public address.
    """

    gateways: Annotated[list[str], BeforeValidator(_as_list)] = Field(min_length=1)
    address: Address | None = None
    inside: IPv4Network | None = None
    forward: bool | None = None


class LinkSpec(_Section):
    """A link that is not as the topology has it."""

    mtu: Mtu


class GatewaySpec(_Section):
    """What the lab itself does at a gateway: its WAN address where the topology has none, files put into it,
    the release of Debian whose charon it runs, and what starts it.

    A file may hold ``@psk:TUNNEL@``: it becomes that tunnel's PSK as swanctl.conf wants it.
    """

    address: Address | None = None
    release: Annotated[Release, BeforeValidator(_one_of(Release))] = Release.FORKY
    init: Annotated[Init, BeforeValidator(_one_of(Init))] = Init.SMALL
    files: dict[Annotated[str, AfterValidator(_absolute)], str] = {}


class LabSpec(_Section):
    """The whole file; ``topology`` is relative to it."""

    version: Literal[1] = Field(default=1, alias="ipsecctl-lab")
    description: str = ""
    topology: str = ""
    hosts: dict[Name, HostSpec] = {}
    nat: dict[Name, BoxSpec] = {}
    links: dict[str, LinkSpec] = {}
    gateways: dict[str, GatewaySpec] = {}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that cannot be: what, how to mend it, and the path of the value in the lab file.

    With ``in_topology`` the path is one of the topology.
    """

    summary: str
    hint: str
    where: Path = ()
    in_topology: bool = False
    code: str = "IP403"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the values of a lab file stand: turns findings into diagnostics."""

    reading: Reading

    def diagnostics(self, findings: Iterable[Finding]) -> tuple[Diagnostic, ...]:
        """Return findings about the lab file as diagnostics."""
        source = self.reading.source
        return tuple(
            Diagnostic(
                Severity.ERROR,
                f.code,
                f.summary,
                f.hint,
                source.file,
                *source.locate(f.where, key=f.code == "IP401"),
            )
            for f in findings
        )


def parse(text: str, file: str) -> tuple[LabSpec | None, LabSpec | None, Places, tuple[Diagnostic, ...]]:
    """Read a lab file.

    Returns the specification (``None`` when there are errors); what is left of it without what is wrong, so
    that this can be checked further (``None`` when it cannot be read at all); the places of its values; and
    the errors.
    """
    reading = read_yaml(text, file)
    places = Places(reading)
    problems = tuple(
        Diagnostic(Severity.ERROR, p.code, p.summary, p.hint, file, p.line, p.column)
        for p in reading.problems
    )
    if problems or not reading.readable:
        return None, None, places, problems
    try:
        spec = LabSpec.model_validate(reading.data)
    except ValidationError as error:
        details = error.errors()
        rest = _without(reading.data, details)
        return None, rest, places, places.diagnostics(_finding(detail) for detail in details)
    return spec, spec, places, ()


def _without(data: Any, details: Iterable[ErrorDetails]) -> LabSpec | None:
    """Return what a file says without the values that are wrong, and without entries that need these.

    A link whose MTU is wrong stays, as its name is still to be checked.
    """
    wrong = [_place(detail) for detail in details]
    for _ in range(_DEEPEST):
        try:
            return LabSpec.model_validate(_with_mtus(_pruned(data, wrong)))
        except ValidationError as error:
            # Where a value is missing now, the entry that is nothing without it goes as a whole.
            further = ((_place(detail), detail["type"]) for detail in error.errors())
            wrong += [place[:-1] if kind == "missing" else place for place, kind in further]
    return None


def _place(detail: ErrorDetails) -> Path:
    """Return the path of what is wrong; "[key]" is pydantic's addition to it, and no value of the file."""
    return tuple(step for step in detail["loc"] if step != "[key]")


def _with_mtus(data: Any) -> Any:
    """Return the values of a file with an MTU for each link that has none left."""
    links = data.get("links") if isinstance(data, dict) else None
    if not isinstance(links, dict):
        return data
    some = {"mtu": _SOME_MTU}
    mtus = {name: some | link if isinstance(link, dict) else some for name, link in links.items()}
    return {**data, "links": mtus}


def _pruned(value: Any, paths: Iterable[Path]) -> Any:
    """Return a copy of a YAML value without those that ``paths`` lead to."""
    paths = [path for path in paths if path]
    if isinstance(value, dict):
        items = (
            (key, inner, [p[1:] for p in paths if str(p[0]) == str(key)]) for key, inner in value.items()
        )
        return {key: _pruned(inner, below) for key, inner, below in items if () not in below}
    if isinstance(value, list):
        entries = (
            (inner, [p[1:] for p in paths if p[0] == position]) for position, inner in enumerate(value)
        )
        return [_pruned(inner, below) for inner, below in entries if () not in below]
    return value


# ---------------------------------------------------------------------------------------- pydantic's findings

_SECTIONS: dict[str, type[_Section]] = {
    "hosts": HostSpec,
    "nat": BoxSpec,
    "links": LinkSpec,
    "gateways": GatewaySpec,
}
_MTU_HINT = "MTUs are from 576 to 9216 bytes"
# pydantic's kind of error: what is wanted instead, or "" where it is said in full in ``_said``; the hint.
_WANTED = {
    "bool_type": ("true or false", "write true or false"),
    "bool_parsing": ("true or false", "write true or false"),
    "int_type": ("a whole number", "write a number"),
    "int_parsing": ("a whole number", "write a number"),
    "int_from_float": ("a whole number", "write a number"),
    "string_type": ("text", "write text, in quotation marks where YAML would take it for something else"),
    "list_type": ("a list", "write it as [a, b]"),
    "model_type": ("a mapping", "write 'key: value' pairs"),
    "dict_type": ("a mapping", "write 'name: ...' pairs"),
    "ip_v4_network": ("an IPv4 network", "such as 192.168.178.0/24"),
    "literal_error": ("1", "this ipsecctl knows version 1"),
}
_NAME_HINT = "letters, digits, '-' and '_', at most 63, a letter or digit at both ends"


def _finding(detail: ErrorDetails) -> Finding:
    where = _place(detail)
    if detail["type"] == "extra_forbidden":
        return _unknown_key(where)
    if detail["type"] == "missing":
        summary, hint = f"'{where[-1]}' is missing", f"add '{where[-1]}: ...'"
        return Finding(summary, hint, where[:-1], code="IP401")
    said, hint = _said(detail)
    name = ".".join(step for step in where if isinstance(step, str)) or "the file"
    return Finding(f"{name}: {said}", hint, where, code="IP402")


def _said(detail: ErrorDetails) -> tuple[str, str]:
    """Return what is wrong with a value, in our own words, and how to mend it."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _WANTED:
        wanted, hint = _WANTED[kind]
        return f"{wanted} is wanted, not {shown(value)}", hint
    if kind in ("greater_than_equal", "less_than_equal"):
        number = shown(value) if isinstance(value, bool) else value
        return f"{number} is out of range", _MTU_HINT
    if kind == "string_pattern_mismatch":
        return f"{shown(value)} cannot be a name", _NAME_HINT
    if kind == "too_short":
        return "the list is empty", "write at least one entry"
    # What our own validators say; of pydantic's words only those of kinds that this file cannot have.
    said = str(context.get("error", detail["msg"]))
    return said, "see docs/labs.md"


def _unknown_key(where: Path) -> Finding:
    key = str(where[-1])
    section = _SECTIONS.get(str(where[0]), LabSpec) if len(where) > 1 else LabSpec
    known = [field.alias or name for name, field in section.model_fields.items()]
    near = get_close_matches(key, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
    return Finding(f"unknown key '{key}'", hint, where, code="IP401")
