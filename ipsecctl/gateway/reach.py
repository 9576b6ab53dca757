"""From a gateway of the topology to a handle."""

from __future__ import annotations

from ipsecctl.gateway.container import Container
from ipsecctl.gateway.handle import Handle
from ipsecctl.gateway.local import LocalHost
from ipsecctl.gateway.names import container_name
from ipsecctl.resources import lab_place
from ipsecctl.topology import Control, ControlKind, Gateway, Topology

__all__ = ["reach", "reach_at"]


def reach(gateway: Gateway, topology: Topology, lab: str | None = None) -> Handle:
    """Return the handle of a gateway, without touching it.

    ``lab`` overrides the gateway's ``control``: it is then the container of that lab. A control of ``lab``
    without a name means the lab named as the topology.
    """
    return reach_at(gateway.name, gateway.control, topology.name, topology.file, lab)


def reach_at(name: str, control: Control, topology: str, file: str, lab: str | None = None) -> Handle:
    """Return the handle of a gateway of a topology, by the names of these and the topology's file."""
    if lab is not None:
        return _container(name, lab, file)
    match control.kind:
        case ControlKind.LAB:
            return _container(name, control.target or topology, file)
        case ControlKind.LOCAL:
            return LocalHost(name)
        case ControlKind.SSH:
            from ipsecctl.gateway.ssh import SshHost  # and with it asyncssh, which takes its time

            return SshHost(name, control.target)


def _container(name: str, lab: str, file: str) -> Container:
    return Container(name, container_name(lab, name), lab_place=lab_place(lab, near=file))
