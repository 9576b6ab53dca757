"""Desired against observed: changes, graded, with reasons."""

from ipsecctl.plan.between import between
from ipsecctl.plan.change import Change, Conflict, Disruption, GatewayPlan, Kind, Note, Part, plan_json
from ipsecctl.plan.compare import file_entry, plan_gateway
from ipsecctl.plan.start_up import may_restart, restart_for, start_up
from ipsecctl.plan.wanted import Wanted, sysctls, wanted
from ipsecctl.plan.ways import interface_text

__all__ = [
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
    "sysctls",
    "wanted",
]
