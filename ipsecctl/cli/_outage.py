"""A gateway of a lab from which everything is taken but its firewall, and what that firewall counts."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ipsecctl.desired import HOLDING_METRIC, HOLDING_TABLE
from ipsecctl.errors import LabError
from ipsecctl.gateway import NFT_TABLE, ROUTE_PROTOCOL
from ipsecctl.lab import Lab, run

__all__ = ["COUNTER", "Victim"]

COUNTER = "leaving_in_clear"
"""The counter in our table of what should have gone into a tunnel and did not."""

_FAMILIES = ("-4", "-6")


@dataclass(frozen=True, slots=True)
class Victim:
    """A gateway by its name in a lab that is up. All methods raise ``LabError`` when it cannot be asked."""

    lab: Lab
    gateway: str

    def second_layer(self) -> tuple[tuple[str, ...], ...]:
        """Return the commands that take away what holds traffic back beside the firewall.

        These are our routes; a kernel that carries ESP goes on with the policies and SAs of a charon that was
        killed, so there these go, too.
        """
        flush = ("route", "flush", "table", "all", "proto", ROUTE_PROTOCOL)
        routes = tuple(("ip", family, *flush) for family in _FAMILIES)
        if run(self.lab, self.gateway, ["/usr/lib/ipsecctl-lab/has-esp"]).status != 0:
            return routes
        return (*routes, ("ip", "xfrm", "policy", "flush"), ("ip", "xfrm", "state", "flush"))

    def holding_routes(self) -> frozenset[str]:
        """Return the routes of ours that lead nowhere, as ``ip route`` prints them."""
        show = ("route", "show", "table", "all", "proto", ROUTE_PROTOCOL)
        lines = (line for family in _FAMILIES for line in self._ask("ip", family, *show).splitlines())
        marks = (f" metric {HOLDING_METRIC}", f" table {HOLDING_TABLE} ")
        return frozenset(line.strip() for line in lines if any(mark in line for mark in marks))

    def dropped(self) -> int:
        """Return how many packets the firewall has dropped because they were leaving in clear."""
        listed = json.loads(self._ask("nft", "-j", "list", "counter", *NFT_TABLE, COUNTER))
        return sum(item["counter"]["packets"] for item in listed["nftables"] if "counter" in item)

    def _ask(self, *argv: str) -> str:
        done = run(self.lab, self.gateway, argv)
        if done.status != 0:
            raise LabError(f"{self.gateway}: '{' '.join(argv)}' failed: {done.error}")
        return done.stdout.decode()
