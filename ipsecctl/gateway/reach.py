"""From a gateway of the topology to a handle."""

from __future__ import annotations

from ipsecctl.gateway.container import Container
from ipsecctl.gateway.handle import Handle
from ipsecctl.gateway.local import LocalHost
from ipsecctl.gateway.names import container_name
from ipsecctl.topology import ControlKind, Gateway

__all__ = ["reach"]


def reach(gateway: Gateway, topology_name: str, lab: str | None = None) -> Handle:
    """Return the handle of a gateway, without touching it.

    ``lab`` overrides the gateway's ``control``: it is then the container of that lab. A control of ``lab``
    without a name means the lab named as the topology.
    """
    if lab is not None:
        return Container(gateway.name, container_name(lab, gateway.name))
    match gateway.control.kind:
        case ControlKind.LAB:
            name = gateway.control.target or topology_name
            return Container(gateway.name, container_name(name, gateway.name))
        case ControlKind.LOCAL:
            return LocalHost(gateway.name)
        case ControlKind.SSH:
            from ipsecctl.gateway.ssh import SshHost  # and with it asyncssh, which takes its time

            return SshHost(gateway.name, gateway.control.target)
