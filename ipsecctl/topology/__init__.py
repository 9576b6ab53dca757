"""Read a topology: YAML with line numbers, checked, typed.

What reads files is imported when it is first asked for: it needs pydantic, and who has a topology does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from ipsecctl.topology.model import (
    AddressKind,
    ChildPer,
    Control,
    ControlKind,
    Credential,
    DataPath,
    End,
    Flow,
    FlowEnd,
    Gateway,
    Mode,
    Network,
    Path,
    Ppk,
    SecretKind,
    SecretRef,
    Site,
    Topology,
    Tunnel,
    VaultServer,
)
from ipsecctl.topology.naming import HOLDING_INTERFACE, INTERFACE_PREFIX, derived_if_id, interface_name
from ipsecctl.topology.spelling import RESERVED_NAME, identity_fault

if TYPE_CHECKING:
    from ipsecctl.topology._scalars import shown
    from ipsecctl.topology._yaml import Reading, read_yaml
    from ipsecctl.topology.loading import Loaded, load_bytes, load_text
    from ipsecctl.topology.schema import SCHEMA_ID, json_schema

__all__ = [
    "HOLDING_INTERFACE",
    "INTERFACE_PREFIX",
    "RESERVED_NAME",
    "SCHEMA_ID",
    "AddressKind",
    "ChildPer",
    "Control",
    "ControlKind",
    "Credential",
    "DataPath",
    "End",
    "Flow",
    "FlowEnd",
    "Gateway",
    "Loaded",
    "Mode",
    "Network",
    "Path",
    "Ppk",
    "Reading",
    "SecretKind",
    "SecretRef",
    "Site",
    "Topology",
    "Tunnel",
    "VaultServer",
    "derived_if_id",
    "identity_fault",
    "interface_name",
    "json_schema",
    "load_bytes",
    "load_text",
    "read_yaml",
    "shown",
]

_LATER: Final = {
    "Loaded": "loading",
    "Reading": "_yaml",
    "SCHEMA_ID": "schema",
    "json_schema": "schema",
    "load_bytes": "loading",
    "load_text": "loading",
    "read_yaml": "_yaml",
    "shown": "_scalars",
}


def __getattr__(name: str) -> Any:
    """Import what is named in ``_LATER`` (PEP 562)."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
