"""Bring what lies in files into force on a gateway, and take away what is no longer wanted.

``activate`` comes before charon is told of connections: interfaces, routes and rules, firewall, settings.
``retire`` comes after, the other way round: routes and rules, interfaces, the firewall last. So while
anything changes, the firewall holds what is declared before or after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ipsecctl.desired import (
    CHARON_UNIT_FILE,
    GUARD_FILE,
    GUARD_UNIT_FILE,
    NETWORK_MANAGER_FILE,
    NETWORKD_FILE,
    SYSCTL_FILE,
    Interface,
)
from ipsecctl.errors import ApplyFailed
from ipsecctl.gateway import NFT_TABLE, ROUTE_PROTOCOL, Handle, Link
from ipsecctl.patience import PATIENCE
from ipsecctl.plan import GatewayPlan, Kind, Part, rule_of

__all__ = ["activate", "in_the_way", "retire"]

_SET = (Kind.CREATE, Kind.CHANGE)

# What lies in files is brought into force by the script that does it at boot, too: the two cannot differ.
_SCRIPT = r"""
LC_ALL=C; export LC_ALL
guard=$1; table=$2; protocol=$3; unit_file=$4; shift 4
unit=${unit_file##*/}

try() {
    what=$1; shift
    said=$("$@" 2>&1) || { printf '%s: %s\n' "$what" "$(printf '%s' "$said" | head -n 1)" >&2; exit 1; }
}
# Our rules of one group: to a network, those for the gateway's own packets, or others; as they are deleted.
rules_of() {
    ip -N "$family" rule show | sed -n "s/[[:blank:]]*\$//; / proto $protocol\$/{
        s/ \[unresolved\]//; s/\( to [^ ]*\) 7 proto/\1 unreachable proto/
        s/^\([0-9]*\):[[:blank:]]*/rule delete pref \1 /p
    }" | case $1 in
        'to '*) network=${1%/32}; grep -F " ${network%/128} " ;;
        'own packets') grep -E ' (goto|nop) ' ;;
        *) grep -Ev ' (to|goto|nop) ' ;;
    esac
}
delete_rules() { printf '%s\n' "$rules" | ip "$family" -force -batch -; }
for task in "$@"; do
    name=${task#* }
    case $task in
        # It leaves our interfaces alone only if it has read that before they are there. networkctl would
        # need D-Bus.
        networkd)
            ! systemctl is-active --quiet systemd-networkd ||
                try 'systemd-networkd cannot read its files' systemctl reload systemd-networkd ;;
        network-manager)
            ! systemctl is-active --quiet NetworkManager ||
                try 'NetworkManager cannot read its files' systemctl reload NetworkManager ;;
        interfaces | firewall | sysctl | routes) sh "$guard" "$task" || exit 1 ;;
        no-firewall) try 'nft cannot delete our table' nft delete table $table ;;
        units)
            [ ! -d /run/systemd/system ] || try 'systemd cannot read its units' systemctl daemon-reload ;;
        unit)
            try 'systemd cannot read its units' systemctl daemon-reload
            try "systemd cannot enable $unit" systemctl --quiet enable "$unit"
            try "systemd cannot start $unit" systemctl start "$unit" ;;
        no-unit)
            # Its file is gone, and without it systemctl does not know what to disable.
            rm -f "${unit_file%/*}"/*.wants/"$unit"
            try "systemd cannot stop $unit" systemctl stop "$unit"
            try 'systemd cannot read its units' systemctl daemon-reload ;;
        # One that somebody else has removed meanwhile is gone as it should be.
        'no-interface '*)
            [ ! -e "/sys/class/net/$name" ] || try "$name cannot be removed" ip link delete "$name" ;;
        'no-route '*)
            # shellcheck disable=SC2086 # $name is words
            said=$(ip route del $name proto "$protocol" 2>&1) || case $said in
                *'No such process'* | *'Cannot find device'*) ;;
                *) printf 'the route to %s cannot be removed: %s\n' "$name" "$said" >&2; exit 1 ;;
            esac ;;
        # charon brings its routes back when it hears of it; where it has no policies there are none.
        'device-up '*)
            try "charon's device $name cannot be set up" ip link set dev "$name" up
            for _ in 1 2 3 4 5 6 7 8 9 10; do
                [ -z "$(ip route show table all dev "$name" proto static)" ] || break
                sleep 0.1
            done ;;
        # Just as charon makes it, so that charon takes it away when it ends.
        'charons-rule '*)
            set -- $name
            said=$(ip "-$1" rule add pref "$2" from all lookup "$3" 2>&1) || case $said in
                *'File exists'*) ;;
                *) printf "charon's rule cannot be made: %s\n" "$said" >&2; exit 1 ;;
            esac ;;
        'no-rule '*)
            family=${name%% *} family=-${family#ipv} group=${name#ipv?}
            rules=$(rules_of "${group# }")
            [ -z "$rules" ] || try 'a rule cannot be removed' delete_rules ;;
    esac
done
if listed=$(nft -s list table $table 2>/dev/null); then printf '%s' "$listed" | sha256sum | cut -d' ' -f1; fi
"""


async def activate(handle: Handle, plan: GatewayPlan, first: Iterable[str] = ()) -> str | None:
    """Do what a plan says about interfaces, routes, rules, firewall, sysctls and unit, in one round trip.

    ``first`` are interfaces that must go before others can be made. Returns the SHA-256 of our table as nft
    now lists it ("" without one), ``None`` when there was nothing to do. Raises ``ApplyFailed`` with what
    failed first.
    """
    return await _run(handle, [*(f"no-interface {name}" for name in first), *_to_set(plan)])


async def retire(handle: Handle, plan: GatewayPlan) -> str | None:
    """Take away routes, rules, interfaces, firewall and unit that a plan removes, in one round trip.

    Returns and raises as ``activate`` does.
    """
    return await _run(handle, list(_to_remove(plan)))


def in_the_way(
    plan: GatewayPlan, interfaces: Mapping[str, Interface], links: Mapping[str, Link]
) -> tuple[str, ...]:
    """Return which interfaces of ours must go before the declared ones can be made, sorted.

    The kernel has one interface for each if_id, and that for life: one that has another's is in the way of
    it, and one that is to have another itself is made anew.
    """
    changed = {change.name: interfaces[change.name] for change in plan.of(Part.INTERFACE, *_SET)}
    wanted = {interface.if_id: name for name, interface in changed.items() if interface.if_id}
    return tuple(
        sorted(
            link.name
            for link in links.values()
            if link.ours
            and (
                (link.if_id in wanted and wanted[link.if_id] != link.name)
                or (link.name in changed and (changed[link.name].if_id or None) != link.if_id)
            )
        )
    )


async def _run(handle: Handle, tasks: list[str]) -> str | None:
    if not tasks:
        return None
    names = (GUARD_FILE, " ".join(NFT_TABLE), ROUTE_PROTOCOL, GUARD_UNIT_FILE)
    completed = await handle.run(("sh", "-c", _SCRIPT, "activate", *names, *tasks), timeout_s=30.0 * PATIENCE)
    if completed.status != 0:
        raise ApplyFailed(f"{handle.name}: {completed.error}")
    return completed.stdout.decode().strip()


def _to_set(plan: GatewayPlan) -> Iterator[str]:
    interfaces = plan.of(Part.INTERFACE, *_SET)
    if any(change.name == NETWORKD_FILE for change in plan.of(Part.FILE)):
        yield "networkd"
    if any(change.name == NETWORK_MANAGER_FILE for change in plan.of(Part.FILE)):
        yield "network-manager"
    if interfaces:
        yield "interfaces"
    # An interface that is made anew has lost its routes.
    if interfaces or plan.of(Part.ROUTE, *_SET) or plan.of(Part.RULE, *_SET):
        yield "routes"
    for change in plan.of(Part.DEVICE):
        rule = rule_of(change)
        yield f"charons-rule {' '.join(rule)}" if rule else f"device-up {change.name}"
    if plan.of(Part.FIREWALL, *_SET):
        yield "firewall"
    if plan.of(Part.SYSCTL) or any(change.name == SYSCTL_FILE for change in plan.of(Part.FILE)):
        yield "sysctl"
    if plan.of(Part.UNIT, *_SET):
        yield "unit"
    elif any(change.name == CHARON_UNIT_FILE for change in plan.of(Part.FILE)):
        yield "units"


def _to_remove(plan: GatewayPlan) -> Iterator[str]:
    for change in plan.of(Part.ROUTE, Kind.REMOVE):
        leads = " dev " in change.name or " table " in change.name
        yield f"no-route {change.name if leads else f'unreachable {change.name}'}"
    yield from (f"no-rule {change.name}" for change in plan.of(Part.RULE, Kind.REMOVE))
    yield from (f"no-interface {change.name}" for change in plan.of(Part.INTERFACE, Kind.REMOVE))
    if plan.of(Part.FIREWALL, Kind.REMOVE):
        yield "no-firewall"
    if plan.of(Part.UNIT, Kind.REMOVE):
        yield "no-unit"
