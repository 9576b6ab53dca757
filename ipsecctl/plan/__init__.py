"""Desired against observed: changes, graded, with reasons."""

from ipsecctl.plan.between import between
from ipsecctl.plan.change import Cause, Change, Conflict, Disruption, GatewayPlan, Kind, Note, Part, plan_json
from ipsecctl.plan.compare import plan_gateway
from ipsecctl.plan.device import GONE, barred, device_gone, rule_of, unrouted
from ipsecctl.plan.host import file_entry
from ipsecctl.plan.safety import Limit, Safety, Standing, Stop, parse_limit, stops
from ipsecctl.plan.saved import SavedGateway, SavedPlan, is_saved_plan, load_plan, stale_because
from ipsecctl.plan.stages import End, Move, Step, move_of, widened
from ipsecctl.plan.start_up import may_restart, restart_for, start_up
from ipsecctl.plan.wanted import SHARED_PREFIX, Wanted, sysctls, wanted
from ipsecctl.plan.ways import interface_text

__all__ = [
    "GONE",
    "SHARED_PREFIX",
    "Cause",
    "Change",
    "Conflict",
    "Disruption",
    "End",
    "GatewayPlan",
    "Kind",
    "Limit",
    "Move",
    "Note",
    "Part",
    "Safety",
    "SavedGateway",
    "SavedPlan",
    "Standing",
    "Step",
    "Stop",
    "Wanted",
    "barred",
    "between",
    "device_gone",
    "file_entry",
    "interface_text",
    "is_saved_plan",
    "load_plan",
    "may_restart",
    "move_of",
    "parse_limit",
    "plan_gateway",
    "plan_json",
    "restart_for",
    "rule_of",
    "stale_because",
    "start_up",
    "stops",
    "sysctls",
    "unrouted",
    "wanted",
    "widened",
]
