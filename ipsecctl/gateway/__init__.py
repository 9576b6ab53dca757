"""Reach a gateway: its charon, its files, its commands; see what is on it."""

from ipsecctl.gateway.ask import capabilities
from ipsecctl.gateway.barred import Obstacle, Pair, bars
from ipsecctl.gateway.capabilities import (
    Answer,
    Capabilities,
    Charon,
    Clock,
    Firewall,
    Frr,
    Has,
    Interface,
    Kernel,
)
from ipsecctl.gateway.capability_document import facts_json
from ipsecctl.gateway.capability_notes import notes
from ipsecctl.gateway.container import Container
from ipsecctl.gateway.device import CHARONS_TABLE, DEVICE, Device
from ipsecctl.gateway.files import NewFile, write_files
from ipsecctl.gateway.handle import Completed, Handle
from ipsecctl.gateway.kernel_sas import KernelView, NotInKernel
from ipsecctl.gateway.lacks import Lack, lacks, unknown_options
from ipsecctl.gateway.local import LocalHost
from ipsecctl.gateway.lock import locked
from ipsecctl.gateway.look import LOOK_S, CharonSilent, Guard, LiveView, ShellView, look, look_at_guard
from ipsecctl.gateway.names import (
    LINK_ALIAS,
    NFT_TABLE,
    RECORD_PATH,
    ROUTE_PROTOCOL,
    STATE_DIR,
    VICI_SOCKETS,
    container_name,
)
from ipsecctl.gateway.needs import Feature, Needs, needs_of
from ipsecctl.gateway.observe import (
    Facts,
    FileSeen,
    Observed,
    ike_sas,
    list_connections,
    names_of_sas,
    observe,
)
from ipsecctl.gateway.reach import reach, reach_at
from ipsecctl.gateway.record import NO_CHARON, Record, Seen, StartUp, canonical
from ipsecctl.gateway.restart import restart_charon
from ipsecctl.gateway.traps import Traps, list_traps
from ipsecctl.gateway.trials import Trials
from ipsecctl.gateway.undo import (
    Armament,
    Pending,
    Request,
    UndoState,
    Way,
    arm,
    confirm,
    extend,
    forget,
    how_it_is,
    undo_at_once,
)
from ipsecctl.gateway.way_home import WayHome
from ipsecctl.gateway.way_out import WayOut, addresses_of, led_astray, no_way_out, way_out_questions
from ipsecctl.gateway.ways import Link, RouteSeen, RuleSeen, WaysSeen

__all__ = [
    "CHARONS_TABLE",
    "DEVICE",
    "LINK_ALIAS",
    "LOOK_S",
    "NFT_TABLE",
    "NO_CHARON",
    "RECORD_PATH",
    "ROUTE_PROTOCOL",
    "STATE_DIR",
    "UNDO_DIR",
    "VICI_SOCKETS",
    "Answer",
    "Armament",
    "Capabilities",
    "Charon",
    "CharonSilent",
    "Clock",
    "Completed",
    "Container",
    "Device",
    "Facts",
    "Feature",
    "FileSeen",
    "Firewall",
    "Frr",
    "Guard",
    "Handle",
    "Has",
    "Interface",
    "Kernel",
    "KernelView",
    "Lack",
    "Link",
    "LiveView",
    "LocalHost",
    "Needs",
    "NewFile",
    "NotInKernel",
    "Observed",
    "Obstacle",
    "Pair",
    "Pending",
    "Record",
    "Request",
    "RouteSeen",
    "RuleSeen",
    "Seen",
    "ShellView",
    "StartUp",
    "Traps",
    "Trials",
    "UndoState",
    "Way",
    "WayHome",
    "WayOut",
    "WaysSeen",
    "addresses_of",
    "arm",
    "bars",
    "canonical",
    "capabilities",
    "confirm",
    "container_name",
    "extend",
    "facts_json",
    "forget",
    "how_it_is",
    "ike_sas",
    "lacks",
    "led_astray",
    "list_connections",
    "list_traps",
    "locked",
    "look",
    "look_at_guard",
    "names_of_sas",
    "needs_of",
    "no_way_out",
    "notes",
    "observe",
    "reach",
    "reach_at",
    "restart_charon",
    "undo_at_once",
    "unknown_options",
    "way_out_questions",
    "write_files",
]
