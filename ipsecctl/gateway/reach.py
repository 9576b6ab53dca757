"""From a gateway of the topology to a handle."""

from __future__ import annotations

from ipsecctl.gateway.container import Container
from ipsecctl.gateway.handle import Handle
from ipsecctl.gateway.local import LocalHost
from ipsecctl.gateway.names import container_name
from ipsecctl.resources import lab_place
from ipsecctl.topology import ControlKind, Gateway, Topology

__all__ = ["reach"]


def reach(gateway: Gateway, topology: Topology, lab: str | None = None) -> Handle:
    """Return the handle of a gateway, without touching it.

    ``lab`` overrides the gateway's ``control``: it is then the container of that lab. A control of ``lab``
    without a name means the lab named as the topology.
    """
    if lab is not None:
        return _container(gateway, lab, topology)
    match gateway.control.kind:
        case ControlKind.LAB:
            return _container(gateway, gateway.control.target or topology.name, topology)
        case ControlKind.LOCAL:
            return LocalHost(gateway.name)
        case ControlKind.SSH:
            from ipsecctl.gateway.ssh import SshHost  # and with it asyncssh, which takes its time

            return SshHost(gateway.name, gateway.control.target)


def _container(gateway: Gateway, lab: str, topology: Topology) -> Container:
    place = lab_place(lab, near=topology.file)
    return Container(gateway.name, container_name(lab, gateway.name), lab_place=place)
