"""Options that charon reads only when it starts: which are in force, and for which it must be restarted.

A plugin reads its own section when charon creates it (kernel_netlink_net.c, kernel_libipsec_plugin.c);
``reload-settings`` comes too late for these, and no VICI command tells them.
"""

from __future__ import annotations

from ipsecctl.gateway import NO_CHARON, Observed, StartUp
from ipsecctl.plan.wanted import Wanted
from ipsecctl.render import STRONGSWAN_FILE
from ipsecctl.topology import DataPath

__all__ = ["may_restart", "plugin_options", "restart_for", "start_up"]

_ROUTE_MTU = "kernel-netlink.mtu"


def start_up(wanted: Wanted, observed: Observed) -> StartUp:
    """Return what a record must say of charon's start after the wanted files have been written.

    A charon that was started since the last apply has read what was written then; another one still has what
    it had. Where nothing is recorded, a data path that runs is taken to run as we want it. A charon that does
    not run will read all of it.
    """
    file = wanted.files.get(STRONGSWAN_FILE)
    options = plugin_options(file.content if file else b"")
    if observed.charon_down is not None:
        return StartUp(NO_CHARON, options, options)
    before = observed.facts.record.start_up if observed.facts.record else StartUp()
    if not before.charon:
        libipsec = observed.data_path is DataPath.LIBIPSEC
        read = {n: value for n, value in options.items() if libipsec and n.startswith("kernel-libipsec.")}
    else:
        read = dict(before.read if before.charon == observed.facts.charon else before.written)
    if wanted.data_path is DataPath.KERNEL:
        # An earlier version wanted it there, too. It does no harm, and is no reason to end all tunnels.
        read.pop(_ROUTE_MTU, None)
    return StartUp(observed.facts.charon, read, options)


def restart_for(state: StartUp) -> tuple[str, ...]:
    """Return the options for which charon must be restarted, sorted, as ``name = value``."""
    names = state.read.keys() | state.written.keys()
    return tuple(
        f"{name} = {state.written.get(name, 'default')}"
        for name in sorted(names)
        if state.read.get(name) != state.written.get(name)
    )


def may_restart(observed: Observed, *, cut_off: bool = False) -> bool:
    """Return whether a restart of charon would disturb nobody, and can be done.

    It has no IKE_SA at all, no connection that is not ours, and what runs it is known. ``cut_off`` says that
    none of its SAs carries anything, whatever it has.
    """
    record = observed.facts.record
    ours = record.connections.keys() if record else frozenset[str]()
    return (
        observed.charon_down is None
        and (observed.ike_sas == 0 or cut_off)
        and observed.connections.keys() <= ours
        and bool(observed.facts.restart_command)
    )


def plugin_options(content: bytes) -> dict[str, str]:
    """Return the options of charon's plugins in a settings file of ours: ``kernel-netlink.mtu`` and so on."""
    options: dict[str, str] = {}
    sections: list[str] = []
    for line in map(str.strip, content.decode().splitlines()):
        if line.endswith("{"):
            sections.append(line.removesuffix("{").strip())
        elif line == "}":
            sections.pop()
        elif "=" in line and not line.startswith("#") and sections[:2] == ["charon", "plugins"]:
            name, _, value = line.partition("=")
            options[".".join((*sections[2:], name.strip()))] = value.strip()
    return options
