"""``ipsecctl/facts/1``: what a gateway is and can do, as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

from netaddr import IPNetwork

from ipsecctl.gateway.capabilities import Answer, Capabilities, Has
from ipsecctl.gateway.capability_notes import notes
from ipsecctl.gateway.lacks import Lack

__all__ = ["facts_json"]

_VALUES = {Has.YES: True, Has.NO: False, Has.UNKNOWN: None}


def facts_json(capabilities: Capabilities, lacking: Iterable[Lack] = ()) -> dict[str, Any]:
    """Return the document of a gateway: its capabilities by name, what it lacks, and what to know.

    An answer is ``{"value": true, false or null, "why": text}``, null meaning "not known".
    """
    document: dict[str, Any] = {
        "schema": "ipsecctl/facts/1",
        "gateway": capabilities.gateway,
        "reached": True,
    }
    path = capabilities.data_path
    document["data_path"] = {
        "value": None if path is None else str(path),
        "said": capabilities.data_path_said,
    }
    document["lacks"] = [_plain(lack) for lack in lacking]
    document["notes"] = list(notes(capabilities))
    document |= _plain(capabilities)
    document["kernel"]["suites"] = {name: _plain(answer) for name, answer in capabilities.kernel.suites}
    document["unknown"] = dict(capabilities.unknown)
    if capabilities.charon is not None:
        charon = document["charon"]
        charon["algorithms"] = {kind: list(names) for kind, names in capabilities.charon.algorithms}
        charon["version_numbers"] = list(capabilities.charon.version_numbers)
        charon["ml_kem"] = list(capabilities.charon.ml_kem)
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, Answer):
        return {"value": _VALUES[value.has], "why": value.why}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, IPNetwork) else value
