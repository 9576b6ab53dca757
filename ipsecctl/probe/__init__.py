"""Packets instead of claims: what is really on the wire.

::

    topology + scene -> paths -> probes -> craft -> send          what is sent, and from where
                                            captures -> recordings   what is heard, parsed by wire/
                          charons before and after -> views        what is claimed
                          gateways -> guards                       whether they hold back what must not leave
                          compiled states, negotiated suites -> expected
                                                     all of it -> evidence -> checks -> report

``wire/`` and the checks are pure; ``capture``, ``send`` and ``charons`` are the edges.
"""

from ipsecctl.probe.checks import CHECKS
from ipsecctl.probe.guard import GUARD
from ipsecctl.probe.leak import LeakReport, LeakWatch, watch_for_leaks, watch_while
from ipsecctl.probe.report import Check, NotApplicable, Outcome, TunnelReport, exit_status, report_json
from ipsecctl.probe.scene import Host, Scene, Tap, WanLink
from ipsecctl.probe.tunnel import probe_tunnels

__all__ = [
    "CHECKS",
    "GUARD",
    "Check",
    "Host",
    "LeakReport",
    "LeakWatch",
    "NotApplicable",
    "Outcome",
    "Scene",
    "Tap",
    "TunnelReport",
    "WanLink",
    "exit_status",
    "probe_tunnels",
    "report_json",
    "watch_for_leaks",
    "watch_while",
]
