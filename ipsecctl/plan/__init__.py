"""Desired against observed: changes, graded, with reasons."""

from ipsecctl.plan.batches import Batch, Share, batches, parse_share
from ipsecctl.plan.between import between
from ipsecctl.plan.change import (
    Cause,
    Change,
    Conflict,
    Disruption,
    GatewayPlan,
    Hold,
    Kind,
    Note,
    Part,
    plan_json,
)
from ipsecctl.plan.compare import plan_gateway
from ipsecctl.plan.device import GONE, barred, device_gone, rule_of, unroutable, unrouted
from ipsecctl.plan.halves import calm, half_notes, halves, needs, touched
from ipsecctl.plan.hold import holding
from ipsecctl.plan.host import file_entry
from ipsecctl.plan.limit import gateways_of_sites, limited, with_far_ends
from ipsecctl.plan.safety import Limit, Safety, Standing, Stop, StopKind, parse_limit, stops
from ipsecctl.plan.saved import SavedGateway, SavedPlan, is_saved_plan, load_plan, stale_because
from ipsecctl.plan.stages import End, Move, Step, loses_routes, move_of, widened
from ipsecctl.plan.start_up import may_restart, restart_for, start_up
from ipsecctl.plan.undeclared import traps_of, undeclared_sas
from ipsecctl.plan.wanted import NEXT, PPK_PREFIX, SHARED_PREFIX, Wanted, sysctls, tunnel_of, wanted
from ipsecctl.plan.ways import interface_text

__all__ = [
    "GONE",
    "NEXT",
    "PPK_PREFIX",
    "SHARED_PREFIX",
    "Batch",
    "Cause",
    "Change",
    "Conflict",
    "Disruption",
    "End",
    "GatewayPlan",
    "Hold",
    "Kind",
    "Limit",
    "Move",
    "Note",
    "Part",
    "Safety",
    "SavedGateway",
    "SavedPlan",
    "Share",
    "Standing",
    "Step",
    "Stop",
    "StopKind",
    "Wanted",
    "barred",
    "batches",
    "between",
    "calm",
    "device_gone",
    "file_entry",
    "gateways_of_sites",
    "half_notes",
    "halves",
    "holding",
    "interface_text",
    "is_saved_plan",
    "limited",
    "load_plan",
    "loses_routes",
    "may_restart",
    "move_of",
    "needs",
    "parse_limit",
    "parse_share",
    "plan_gateway",
    "plan_json",
    "restart_for",
    "rule_of",
    "stale_because",
    "start_up",
    "stops",
    "sysctls",
    "touched",
    "traps_of",
    "tunnel_of",
    "undeclared_sas",
    "unroutable",
    "unrouted",
    "wanted",
    "widened",
    "with_far_ends",
]
