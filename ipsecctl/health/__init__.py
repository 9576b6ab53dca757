"""Declared tunnels and live SAs to verdicts for a person on call."""

from ipsecctl.health.astray import astray_obstacles
from ipsecctl.health.device import OwnDevice, device_gone_cause
from ipsecctl.health.document import exit_status, headline, left_over, nothing_known_json, status_json
from ipsecctl.health.judge import judge
from ipsecctl.health.kernel import kernel_lacks
from ipsecctl.health.outdated import outdated
from ipsecctl.health.sa import ChildSa, IkeSa, parse_list_sas
from ipsecctl.health.shortfall import shortfall
from ipsecctl.health.start_up import start_up_causes
from ipsecctl.health.traffic import Traffic, narrower
from ipsecctl.health.tunnel import Declared, EndState, EndView, TunnelHealth, Verdict, declare
from ipsecctl.health.way import Way, WayView, lost_homes
from ipsecctl.health.way_out import runs_otherwise, way_out_obstacles

__all__ = [
    "ChildSa",
    "Declared",
    "EndState",
    "EndView",
    "IkeSa",
    "OwnDevice",
    "Traffic",
    "TunnelHealth",
    "Verdict",
    "Way",
    "WayView",
    "astray_obstacles",
    "declare",
    "device_gone_cause",
    "exit_status",
    "headline",
    "judge",
    "kernel_lacks",
    "left_over",
    "lost_homes",
    "narrower",
    "nothing_known_json",
    "outdated",
    "parse_list_sas",
    "runs_otherwise",
    "shortfall",
    "start_up_causes",
    "status_json",
    "way_out_obstacles",
]
