"""Bring firewall, sysctls and routes of a gateway into force from the files that lie there."""

from __future__ import annotations

from collections.abc import Iterable

from ipsecctl.errors import ApplyFailed
from ipsecctl.gateway import NFT_TABLE, ROUTE_PROTOCOL, Handle
from ipsecctl.plan import GatewayPlan, Kind, Part
from ipsecctl.render import FIREWALL_FILE, ROUTES_FILE, SYSCTL_FILE

__all__ = ["activate"]

# A setting that already has its value is not written: in a container /proc/sys can be read-only.
_SCRIPT = r"""
LC_ALL=C; export LC_ALL
firewall_file=$1; table=$2; sysctl_file=$3; routes_file=$4; protocol=$5; sys=$6; shift 6

try() {
    what=$1; shift
    said=$("$@" 2>&1) || { printf '%s: %s\n' "$what" "$(printf '%s' "$said" | head -n 1)" >&2; exit 1; }
}
# A router listens to other routers only with 2: with 1 the kernel drops the routes that they announced.
keep_announced() {
    for heard in "$sys"/net/ipv6/conf/*/accept_ra; do
        case $heard in */all/accept_ra | */default/accept_ra) continue ;; esac
        [ "$(cat "$heard" 2>/dev/null)" != 1 ] || echo 2 >"$heard" || exit 1
    done
}
set_sysctls() {
    grep '^[a-z]' "$sysctl_file" | while IFS='=' read -r key value; do
        key=$(echo $key); value=$(echo $value)
        for place in "$sys"/$(echo $key | tr . /); do
            [ -f "$place" ] || continue
            [ "$(tr -s '[:blank:]' ' ' <"$place")" = "$value" ] && continue
            [ "$key" != net.ipv6.conf.all.forwarding ] || [ "$value" != 1 ] || keep_announced || exit 1
            echo "$value" >"$place" || exit 1
        done
    done
}
for task in "$@"; do
    case $task in
        firewall) try 'nft refuses the firewall' nft -f "$firewall_file" ;;
        no-firewall) try 'nft cannot delete our table' nft delete table $table ;;
        sysctl) try 'a sysctl cannot be set' set_sysctls ;;
        routes) try 'a route cannot be set' ip -force -batch "$routes_file" ;;
        *) try "the route to $task cannot be removed" ip route del unreachable "$task" proto "$protocol" ;;
    esac
done
if listed=$(nft -s list table $table 2>/dev/null); then printf '%s' "$listed" | sha256sum | cut -d' ' -f1; fi
"""


async def activate(handle: Handle, plan: GatewayPlan) -> str | None:
    """Do what a plan says about firewall, sysctls and routes, in one round trip.

    Returns the SHA-256 of our table as nft now lists it ("" without one), ``None`` when there was nothing to
    do. Raises ``ApplyFailed`` with what failed first.
    """
    tasks = list(_tasks(plan))
    if not tasks:
        return None
    paths = (FIREWALL_FILE, " ".join(NFT_TABLE), SYSCTL_FILE, ROUTES_FILE, ROUTE_PROTOCOL, "/proc/sys")
    completed = await handle.run(("sh", "-c", _SCRIPT, "activate", *paths, *tasks), timeout_s=30.0)
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
