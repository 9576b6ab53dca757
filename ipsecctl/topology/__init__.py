"""Read a topology: YAML with line numbers, checked, typed."""

from ipsecctl.topology.loading import Loaded, load_bytes, load_text
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
    Network,
    Path,
    SecretKind,
    SecretRef,
    Site,
    Topology,
    Tunnel,
)
from ipsecctl.topology.schema import SCHEMA_ID, json_schema

__all__ = [
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
    "Network",
    "Path",
    "SecretKind",
    "SecretRef",
    "Site",
    "Topology",
    "Tunnel",
    "json_schema",
    "load_bytes",
    "load_text",
]
