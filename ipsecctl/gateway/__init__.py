"""Reach a gateway: its charon, its files, its commands; see what is on it."""

from ipsecctl.gateway.container import Container
from ipsecctl.gateway.files import NewFile, write_files
from ipsecctl.gateway.handle import Completed, Handle
from ipsecctl.gateway.local import LocalHost
from ipsecctl.gateway.names import (
    NFT_TABLE,
    RECORD_PATH,
    ROUTE_PROTOCOL,
    STATE_DIR,
    VICI_SOCKETS,
    container_name,
)
from ipsecctl.gateway.observe import Facts, FileSeen, LiveView, Observed, list_connections, look, observe
from ipsecctl.gateway.reach import reach
from ipsecctl.gateway.record import Record, Seen, StartUp, canonical

__all__ = [
    "NFT_TABLE",
    "RECORD_PATH",
    "ROUTE_PROTOCOL",
    "STATE_DIR",
    "VICI_SOCKETS",
    "Completed",
    "Container",
    "Facts",
    "FileSeen",
    "Handle",
    "LiveView",
    "LocalHost",
    "NewFile",
    "Observed",
    "Record",
    "Seen",
    "StartUp",
    "canonical",
    "container_name",
    "list_connections",
    "look",
    "observe",
    "reach",
    "write_files",
]
