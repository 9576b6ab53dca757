"""Desired against observed: changes, graded, with reasons."""

from ipsecctl.plan.between import between
from ipsecctl.plan.change import Cause, Change, Conflict, Disruption, GatewayPlan, Kind, Note, Part, plan_json
from ipsecctl.plan.compare import plan_gateway
from ipsecctl.plan.host import file_entry
from ipsecctl.plan.start_up import may_restart, restart_for, start_up
from ipsecctl.plan.wanted import Wanted, wanted
from ipsecctl.plan.ways import interface_text

__all__ = [
    "Cause",
    "Change",
    "Conflict",
    "Disruption",
    "GatewayPlan",
    "Kind",
    "Note",
    "Part",
    "Wanted",
    "between",
    "file_entry",
    "interface_text",
    "may_restart",
    "plan_gateway",
    "plan_json",
    "restart_for",
    "start_up",
    "wanted",
]
