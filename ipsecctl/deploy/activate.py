"""Bring firewall, sysctls, routes and the unit of a gateway into force from the files that lie there."""

from __future__ import annotations

from collections.abc import Iterable

from ipsecctl.desired import GUARD_FILE, GUARD_UNIT_FILE, SYSCTL_FILE
from ipsecctl.errors import ApplyFailed
from ipsecctl.gateway import NFT_TABLE, ROUTE_PROTOCOL, Handle
from ipsecctl.plan import GatewayPlan, Kind, Part

__all__ = ["activate"]

# What lies in files is brought into force by the script that does it at boot, too: the two cannot differ.
_SCRIPT = r"""
LC_ALL=C; export LC_ALL
guard=$1; table=$2; protocol=$3; unit_file=$4; shift 4
unit=${unit_file##*/}

try() {
    what=$1; shift
    said=$("$@" 2>&1) || { printf '%s: %s\n' "$what" "$(printf '%s' "$said" | head -n 1)" >&2; exit 1; }
}
for task in "$@"; do
    case $task in
        firewall | sysctl | routes) sh "$guard" "$task" || exit 1 ;;
        no-firewall) try 'nft cannot delete our table' nft delete table $table ;;
        unit)
            try 'systemd cannot read its units' systemctl daemon-reload
            try "systemd cannot enable $unit" systemctl --quiet enable "$unit"
            try "systemd cannot start $unit" systemctl start "$unit" ;;
        no-unit)
            # Its file is gone, and without it systemctl does not know what to disable.
            rm -f "${unit_file%/*}"/*.wants/"$unit"
            try "systemd cannot stop $unit" systemctl stop "$unit"
            try 'systemd cannot read its units' systemctl daemon-reload ;;
        *) try "the route to $task cannot be removed" ip route del unreachable "$task" proto "$protocol" ;;
    esac
done
if listed=$(nft -s list table $table 2>/dev/null); then printf '%s' "$listed" | sha256sum | cut -d' ' -f1; fi
"""


async def activate(handle: Handle, plan: GatewayPlan) -> str | None:
    """Do what a plan says about firewall, sysctls, routes and unit, in one round trip.

    Returns the SHA-256 of our table as nft now lists it ("" without one), ``None`` when there was nothing to
    do. Raises ``ApplyFailed`` with what failed first.
    """
    tasks = list(_tasks(plan))
    if not tasks:
        return None
    names = (GUARD_FILE, " ".join(NFT_TABLE), ROUTE_PROTOCOL, GUARD_UNIT_FILE)
    completed = await handle.run(("sh", "-c", _SCRIPT, "activate", *names, *tasks), timeout_s=30.0)
    if completed.status != 0:
        raise ApplyFailed(f"{handle.name}: {completed.error}")
    return completed.stdout.decode().strip()


def _tasks(plan: GatewayPlan) -> Iterable[str]:
    if plan.of(Part.FIREWALL, Kind.CREATE, Kind.CHANGE):
        yield "firewall"
    if plan.of(Part.FIREWALL, Kind.REMOVE):
        yield "no-firewall"
    if plan.of(Part.SYSCTL) or any(change.name == SYSCTL_FILE for change in plan.of(Part.FILE)):
        yield "sysctl"
    if plan.of(Part.ROUTE, Kind.CREATE):
        yield "routes"
    yield from (change.name for change in plan.of(Part.ROUTE, Kind.REMOVE))
    if plan.of(Part.UNIT, Kind.CREATE, Kind.CHANGE):
        yield "unit"
    if plan.of(Part.UNIT, Kind.REMOVE):
        yield "no-unit"
