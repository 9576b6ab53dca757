"""Plain values to a ``Document``; what is wrong with them in plain words, each at its place.

What is wrong is reported and left out, and the rest read again, so that the checks of meaning can still see
it: an unknown key must not hide two networks that overlap. A key whose name is nearly that of a missing one
is reported and read as that one, so that what stands behind it takes part in everything. So is a value that
can only mean one thing: a network with host bits counts as the network that it lies in.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from ipsecctl.topology._findings import Findings, listed
from ipsecctl.topology._options import OptionsDoc
from ipsecctl.topology._scalars import WRONG, shown
from ipsecctl.topology._yaml import Reading, Source
from ipsecctl.topology.document import (
    CredentialDoc,
    DefaultsDoc,
    Document,
    FlowDoc,
    GatewayDoc,
    ProfileDoc,
    SiteDoc,
    TunnelDoc,
)
from ipsecctl.topology.model import Path

__all__ = ["validate"]

_ROUNDS: Final = 12
_NEAR: Final = 0.6
# From here on, and with no other key as near, a mistyped key is read as the one that is meant.
_SURELY: Final = 0.75
# Without these nothing could be checked; what stands in for a missing one is never seen.
_STAND_INS: Final[dict[str, Any]] = {"ipsecctl": 1, "name": "unnamed", "sites": {}}
_ANY: Final = "*"
# What must be there: without it the rest of its mapping could not be checked either.
_WANTED: Final[tuple[Path, ...]] = (
    ("sites", _ANY, "gateway", "address"),
    ("sites", _ANY, "gateways", _ANY, "address"),
    ("tunnels", _ANY, "flows", _ANY, "from"),
    ("tunnels", _ANY, "flows", _ANY, "to"),
)
_MODELS: Final[tuple[tuple[Path, type[BaseModel]], ...]] = (
    ((), Document),
    (("defaults",), DefaultsDoc),
    (("defaults", "credential"), CredentialDoc),
    (("credentials", _ANY), CredentialDoc),
    (("profiles", _ANY), ProfileDoc),
    (("profiles", _ANY, "options"), OptionsDoc),
    (("sites", _ANY), SiteDoc),
    (("sites", _ANY, "credential"), CredentialDoc),
    (("sites", _ANY, "gateway"), GatewayDoc),
    (("sites", _ANY, "gateways", _ANY), GatewayDoc),
    (("tunnels", _ANY), TunnelDoc),
    (("tunnels", _ANY, "credential"), CredentialDoc),
    (("tunnels", _ANY, "options"), OptionsDoc),
    (("tunnels", _ANY, "flows", _ANY), FlowDoc),
)
_BOOLEANS: Final = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_LONGEST_NAME: Final = 63
_NAME_HINT: Final = "use letters, digits, '-' and '_', at most 63, with a letter or digit first and last"


def validate(reading: Reading, findings: Findings) -> Document | None:
    """Return the document without what is wrong in it; ``None`` when nothing is left to check."""
    data = reading.data
    if not isinstance(data, dict):
        hint = "begin with 'ipsecctl: 1'; 'ipsecctl init FILE' writes a commented starter"
        findings.error("IP010", (), f"a topology is a mapping, not {shown(data)}", hint)
        return None
    if reading.has_null:
        _report_nulls(data, reading.source, findings)
    for _ in range(_ROUNDS):
        try:
            return Document.model_validate(data)
        except ValidationError as refused:
            errors = refused.errors(include_url=False)
        mistyped = _mistyped(errors, data)
        wrong: list[Path] = []
        meant: dict[Path, Any] = {}
        for error in errors:
            place = _existing(data, tuple(error["loc"]))
            path = _translate(error, data, mistyped, findings)
            if (value := _meant(error)) is None:
                wrong.append(path)
            else:
                meant[place] = value
        read = {path: _at(data, (*path[:-1], key.written)) for path, key in mistyped.items() if key.sure}
        for place, value in meant.items():
            _put(data, place, value)
        _remove(data, wrong, reading.source)
        for path, value in read.items():
            written = mistyped[path].written
            wrong = [each for each in wrong if each not in (path, (*path[:-1], written))]
            _put(data, path, value)
            reading.source.read_as(path[:-1], written, str(path[-1]))
        for path in (*wrong, *(path for path in mistyped if path not in read)):
            findings.damage(path)
    return None


@dataclass(frozen=True, slots=True)
class _Mistyped:
    """A key as it is written in place of one that is missing; ``sure`` when it can hardly be another."""

    written: str
    sure: bool


def _mistyped(errors: Iterable[Any], data: Any) -> dict[Path, _Mistyped]:
    """Return the keys that are missing because they stand there under a name that is nearly theirs."""
    found: dict[Path, _Mistyped] = {}
    for error in errors:
        path: Path = tuple(error["loc"])
        if error["type"] == "extra_forbidden":
            container, written = path[:-1], str(path[-1])
            near = _nearest(written, _keys(container))
            if near is not None and near[0] not in (_at(data, container) or {}):
                found.setdefault((*container, near[0]), _Mistyped(written, near[1]))
    return found


def _nearest(written: str, known: Iterable[str]) -> tuple[str, bool] | None:
    """Return the known key that is nearest to one as written, and whether it surely is meant."""
    ratios = [(difflib.SequenceMatcher(None, key, written.lower()).ratio(), key) for key in known]
    (best, key), (second, _) = sorted([(0.0, ""), (0.0, ""), *ratios], reverse=True)[:2]
    if best < _NEAR:
        return None
    return key, best > second and (best >= _SURELY or _is_slip(written.lower(), key))


def _is_slip(written: str, key: str) -> bool:
    """Return whether one letter is another, or two have changed places: a short key is soon unlike itself."""
    unlike = [pair for pair in zip(written, key, strict=False) if pair[0] != pair[1]]
    swapped = len(unlike) == 2 and unlike[0] == unlike[1][::-1]
    return len(written) == len(key) and (len(unlike) == 1 or swapped)


def _report_nulls(data: Any, source: Source, findings: Findings) -> None:
    """Report keys with nothing behind them: an empty value is always a mistake here."""
    missing = list(_nulls(data, ()))
    for path in missing:
        in_list = isinstance(path[-1], int)
        summary = "nothing stands after this '-'" if in_list else f"nothing stands after '{path[-1]}:'"
        hint = f"write a value, or remove the {'-' if in_list else 'key'}"
        findings.error("IP013", path, summary, hint, key=True)
    _remove(data, missing, source)
    for path in missing:
        findings.damage(path)


def _nulls(value: Any, path: Path) -> Iterator[Path]:
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for step, inner in items:
        if inner is None:
            yield (*path, step)
        else:
            yield from _nulls(inner, (*path, step))


def _translate(error: Any, data: Any, mistyped: Collection[Path], findings: Findings) -> Path:
    """Report one of pydantic's errors unless it follows from an earlier one; return what must be left out."""
    path: Path = tuple(error["loc"])
    kind: str = error["type"]
    at_key = path[-1:] == ("[key]",)
    if at_key:
        path = path[:-1]
    if kind == "missing":
        if path not in mistyped and not findings.damaged(path):
            _report_missing(path, findings)
        # ``_remove`` lets something stand in.
        return path
    written = _existing(data, path)
    context = error.get("ctx", {}) if kind.startswith("IP") else {}
    within: Path = context.get("at", ())
    if not _follows(kind, written, context, findings):
        code, summary, hint = _words(kind, written, error, findings, at_key=at_key)
        key = bool(at_key or within or kind == "extra_forbidden")
        findings.error(code, (*written, *within), summary, hint, key=key)
    return path if _matches_any(path, _WANTED) else (*written, *within)


def _meant(error: Any) -> Any:
    """Return what a wrong value can only mean, as it should have been written; ``None`` if nothing."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind.startswith("IP"):
        return context.get("meant")
    if not isinstance(value, str):
        return None
    word = value.strip().lower()
    if kind == "bool_type":
        return _BOOLEANS.get(word)
    if kind == "int_type":
        return int(word) if re.fullmatch(r"[0-9]{1,9}", word) else None
    if kind == "literal_error":
        near = _nearest(value, _choices(context))
        return near[0] if near is not None and near[1] else None
    return None


def _choices(context: Any) -> list[str]:
    return re.findall(r"'([^']*)'", context.get("expected", ""))


def _follows(kind: str, path: Path, context: Any, findings: Findings) -> bool:
    """Return whether an error only follows from one that is already reported."""
    if not kind.startswith("IP"):
        return findings.damaged(path)
    without: Path = context.get("without", ())
    return findings.gone(path) or any(findings.damaged((*path, key)) for key in without)


def _matches(path: Path, pattern: Path) -> bool:
    return len(path) == len(pattern) and all(p in (_ANY, step) for p, step in zip(pattern, path, strict=True))


def _matches_any(path: Path, patterns: Iterable[Path]) -> bool:
    return any(_matches(path, pattern) for pattern in patterns)


def _existing(data: Any, path: Path) -> Path:
    """Cut a path that names the long form of what the file has in its short form."""
    value = data
    for depth, step in enumerate(path):
        inside = (isinstance(value, dict) and step in value) or (
            isinstance(value, list) and isinstance(step, int) and step < len(value)
        )
        if not inside:
            return path[:depth]
        value = value[step]
    return path


def _report_missing(path: Path, findings: Findings) -> None:
    name = str(path[-1])
    hints: dict[Path, tuple[str, str]] = {
        ("ipsecctl",): ("begin the file with 'ipsecctl: 1'", "the version of the language is missing"),
        ("name",): ("add 'name: NAME' near the top", "the topology has no name"),
        ("sites",): ("add 'sites:' with at least two sites", "there are no sites"),
    }
    hint, summary = hints.get(path, (f"add '{name}: ...'", f"the key '{name}' is missing"))
    if name == "address":
        hint = "add 'address:' with an address, a DNS name or 'dynamic'"
    findings.error("IP012", path, summary, hint)


def _words(kind: str, path: Path, error: Any, findings: Findings, *, at_key: bool) -> tuple[str, str, str]:
    """Return code, summary and hint for an error of pydantic."""
    context = error.get("ctx", {})
    value = error["input"]
    name = path[-1] if path else ""
    if kind.startswith("IP"):
        return kind, context["summary"], context["hint"]
    if kind == "extra_forbidden":
        known = _keys(path[:-1])
        return (
            "IP011",
            f"unknown key {name!r}",
            findings.did_you_mean(str(name), known, f"known here: {listed(known, 20)}"),
        )
    if kind in ("string_pattern_mismatch", "string_too_long", "string_too_short"):
        return _bad_name(str(value), path, at_key=at_key)
    if kind == "literal_error":
        return _bad_choice(value, path, context, findings)
    if kind in ("greater_than_equal", "less_than_equal"):
        return "IP014", f"{value} is out of range for '{name}'", "write a number of bytes from 576 to 9216"
    if kind == "too_short":
        return "IP014", f"'{_list_name(path)}' is empty", "write at least one entry, or remove the key"
    wanted = {
        "string_type": "text",
        "int_type": "a number",
        "bool_type": "true or false",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
    }.get(kind)
    if wanted is None:
        return "IP013", str(error["msg"]), "see docs/topology.md"
    label = f"in the list '{_list_name(path)}'" if isinstance(name, int) else f"for '{name}'"
    return "IP013", f"{wanted} is wanted {label}, not {shown(value)}", _type_hint(wanted, value, path)


def _type_hint(wanted: str, value: Any, path: Path) -> str:
    if wanted == "true or false" and isinstance(value, str):
        return "write true or false, in lower case and without quotation marks"
    if wanted == "a number" and isinstance(value, str) and value.isdigit():
        if _is_large(value):
            return "write a number of at most 18 digits"
        return f"write {value} without quotation marks"
    if path[-1:] == ("networks",) and isinstance(value, str):
        return f"give it a name: 'lan: {value}' below 'networks:'"
    if wanted == "a mapping":
        keys = _keys(path)
        return (
            f"write 'key: value' below it; known here: {listed(keys, 20)}"
            if keys
            else "write 'name: value' below it"
        )
    if wanted == "a list":
        return "write a list: [a, b]"
    return f"write {wanted}"


def _is_large(value: Any) -> bool:
    """Return whether a text is a number that is too long to be read as one (see ``_yaml``)."""
    return isinstance(value, str) and value.isdecimal() and len(value) > 18


def _list_name(path: Path) -> str:
    return next((str(step) for step in reversed(path) if isinstance(step, str)), "")


def _bad_name(text: str, path: Path, *, at_key: bool) -> tuple[str, str, str]:
    what = _list_name(path) if isinstance(path[-1], int) else str(path[-1])
    if not at_key and what == "identity":
        return (
            "IP014",
            "this identity cannot be written into a configuration",
            "use printable ASCII, at most 255 characters",
        )
    if len(text) > _LONGEST_NAME and re.fullmatch(r"[\w-]+", text, re.ASCII):
        return "IP015", f"a name of {len(text)} characters is too long", _NAME_HINT
    if not at_key and what in ("from", "to"):
        return "IP015", f"{shown(text)} names no network", "write NETWORK or SITE.NETWORK"
    if not at_key and what in ("between", "hub", "spokes", "mesh", "initiator"):
        if re.search(r"[*?\[]", text):
            return "IP015", f"{shown(text)}: patterns are for 'spokes' and 'mesh' only", "name the site"
        return "IP015", f"{shown(text)} names no site", "write SITE or SITE/GATEWAY"
    return "IP015", f"{shown(text)} cannot be a name", _NAME_HINT


def _bad_choice(value: Any, path: Path, context: Any, findings: Findings) -> tuple[str, str, str]:
    name = path[-1]
    if path == ("ipsecctl",) and not isinstance(value, int) and not _is_large(value):
        return "IP016", f"the version is a number, not {shown(value)}", "write 'ipsecctl: 1'"
    if path == ("ipsecctl",):
        return (
            "IP016",
            f"this is language version {value}, this ipsecctl knows version 1",
            "write 'ipsecctl: 1'",
        )
    choices = _choices(context)
    hint = f"write {' or '.join(choices)}"
    return (
        "IP014",
        f"{shown(value)} is no choice for '{name}'",
        findings.did_you_mean(str(value), choices, hint),
    )


def _keys(path: Path) -> list[str]:
    """Return the keys of the mapping at ``path``; none where names are free."""
    for pattern, model in _MODELS:
        if _matches(path, pattern):
            return [field.alias or name for name, field in model.model_fields.items()]
    return []


def _remove(data: Any, paths: Iterable[Path], source: Source) -> None:
    """Take the values at ``paths`` out of the document; list items keep their place in ``source``."""
    items: dict[Path, set[int]] = defaultdict(set)
    for path in sorted(set(paths), key=len, reverse=True):
        last = path[-1] if path else ""
        container = _at(data, path[:-1])
        if len(path) == 1 and last in _STAND_INS:
            data[last] = _STAND_INS[str(last)]
        elif _matches_any(path, _WANTED):
            _let_stand_in(data, path)
        elif isinstance(container, dict):
            container.pop(last, None)
        elif isinstance(container, list) and isinstance(last, int):
            items[path[:-1]].add(last)
    for path, gone in items.items():
        whole = _at(data, path)
        if isinstance(whole, list):
            kept = [i for i in range(len(whole)) if i not in gone]
            whole[:] = [whole[i] for i in kept]
            source.renumber(path, kept)


def _let_stand_in(data: Any, path: Path) -> None:
    """Put ``WRONG`` in the place of a wanted value, also where the file has the short form of its mapping."""
    mapping = _at(data, path[:-1])
    if isinstance(mapping, dict):
        mapping[path[-1]] = WRONG
    elif isinstance(outer := _at(data, path[:-2]), dict):
        outer[path[-2]] = {path[-1]: WRONG}


def _put(data: Any, path: Path, value: Any) -> None:
    container = _at(data, path[:-1])
    if isinstance(container, dict | list):
        container[path[-1]] = value  # type: ignore[index]


def _at(data: Any, path: Path) -> Any:
    value = data
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value
