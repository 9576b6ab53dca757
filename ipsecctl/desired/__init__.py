"""Compile a topology into what each gateway must be."""

from ipsecctl.desired.compile import compile_topology
from ipsecctl.desired.state import (
    Action,
    Authentication,
    AuthMethod,
    CertificateFile,
    Child,
    Connection,
    Daemon,
    FirewallRule,
    GatewayState,
    PrivateKey,
    Route,
    SharedKey,
    TrafficSelector,
)

__all__ = [
    "Action",
    "AuthMethod",
    "Authentication",
    "CertificateFile",
    "Child",
    "Connection",
    "Daemon",
    "FirewallRule",
    "GatewayState",
    "PrivateKey",
    "Route",
    "SharedKey",
    "TrafficSelector",
    "compile_topology",
]
