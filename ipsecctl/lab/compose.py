"""A lab as the document that Docker Compose is given. Pure, and the same for the same lab.

Docker wants a subnet for every link and gives every interface an address of it; both serve only to get the
wires laid. Inside, ``ipsecctl.lab.script`` puts the real addresses in their place, and the machine has none
on the bridge. So labs may use any address, also one that another lab or the machine itself has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from netaddr import IPNetwork, IPSet

from ipsecctl.errors import LabError
from ipsecctl.lab.wiring import Init, Lab, Link, Node, Release, Role
from ipsecctl.patience import PATIENCE

__all__ = [
    "LABEL",
    "LABEL_DIGEST",
    "LABEL_FOLDER",
    "LABEL_LAB",
    "LABEL_LINK",
    "LABEL_NODE",
    "LABEL_PARTS",
    "LABEL_ROLE",
    "bridge_name",
    "choose_subnets",
    "document",
    "network_name",
    "project_name",
]

LABEL = "org.ipsecctl"
LABEL_LAB = "org.ipsecctl.lab"
LABEL_NODE = "org.ipsecctl.node"
LABEL_ROLE = "org.ipsecctl.role"
LABEL_LINK = "org.ipsecctl.link"
LABEL_DIGEST = "org.ipsecctl.digest"
LABEL_FOLDER = "org.ipsecctl.lab.folder"
"""The absolute path of the folder that the lab is made from, by which a lab that is up is found again."""
LABEL_PARTS = {
    "topology": "org.ipsecctl.digest.topology",
    "lab file": "org.ipsecctl.digest.lab-file",
    "image": "org.ipsecctl.digest.image",
}
"""What a lab is made from, and the label with the digest of each: to say what of it has changed."""

_DEEPEST_HOSTNAME = 63
# What systemd needs beside the rest: to mount, and control groups of its own. It is the gateway itself that
# makes the kernel forward, and it does not end for SIGTERM.
_MACHINE = {
    "command": [str(Role.GATEWAY), str(Init.SYSTEMD)],
    "cap_add": ["NET_ADMIN", "NET_RAW", "SYS_ADMIN"],
    "cgroup": "private",
    "sysctls": {"net.ipv4.ip_forward": "0"},
    "stop_signal": "SIGKILL",
}
# For tests of network equipment (RFC 2544, RFC 6890): in no one's network. 2,048 links of up to 61 nodes.
_SUBNETS = IPNetwork("198.18.0.0/15")
_SUBNET_LENGTH = 26


def project_name(lab: str) -> str:
    """Return the name of a lab's Compose project."""
    return f"ipsecctl-{lab}"


def network_name(lab: str, link: str) -> str:
    """Return the name of the Docker network that is a link."""
    return f"ipsecctl-{lab}-{link}"


def bridge_name(lab: str, link: str) -> str:
    """Return the name of the bridge on the machine that is a link; at most 15 bytes, as Linux wants it."""
    return "ipl" + hashlib.sha256(f"{lab} {link}".encode()).hexdigest()[:12]


def choose_subnets(lab: Lab, taken: Iterable[IPNetwork]) -> dict[str, IPNetwork]:
    """Return a subnet for Docker's own use for each link, apart from those that are ``taken``.

    Docker's own pools have about thirty networks, which three labs use up. Where the search begins depends on
    the lab's name, so that two labs that come up at once do not choose the same. Raises ``LabError`` when
    none is left.
    """
    blocks = list(_SUBNETS.subnet(_SUBNET_LENGTH))
    start = int(hashlib.sha256(lab.name.encode()).hexdigest(), 16) % len(blocks)
    busy = IPSet(taken)
    free = (block for block in blocks[start:] + blocks[:start] if busy.isdisjoint(IPSet([block])))
    chosen = dict(zip((link.name for link in lab.links), free, strict=False))
    if len(chosen) < len(lab.links):
        raise LabError(f"Docker's networks fill {_SUBNETS}", "Take down labs that are not needed.")
    return chosen


def document(
    lab: Lab,
    images: Mapping[Release, str],
    subnets: Mapping[str, IPNetwork],
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the Compose document of a lab.

    ``images`` has one for each release that the lab needs, ``subnets`` one for each link, by name; ``labels``
    are for containers beside those that they all have: what they were made from.
    """
    return {
        "name": project_name(lab.name),
        "services": {
            node.name: _service(lab, node, images[node.release], labels or {}) for node in lab.nodes
        },
        "networks": {link.name: _network(lab, link, subnets[link.name]) for link in lab.links},
    }


def _service(lab: Lab, node: Node, image: str, more: Mapping[str, str]) -> dict[str, Any]:
    labels = {
        LABEL: "lab",
        LABEL_LAB: lab.name,
        LABEL_NODE: node.name,
        LABEL_ROLE: str(node.role),
        **more,
    }
    environment = {"IPSECCTL_DATA_PATH": str(node.data_path), "IPSECCTL_PATIENCE": str(ceil(PATIENCE))}
    gateway = {"environment": environment} if node.role is Role.GATEWAY else {}
    return {
        "image": image,
        "pull_policy": "never",
        "container_name": lab.container(node.name),
        "hostname": node.name[:_DEEPEST_HOSTNAME],
        "command": [str(node.role)],
        "cap_add": ["NET_ADMIN", "NET_RAW"],
        "devices": ["/dev/net/tun"],
        # As on a machine, what lies there is gone when it starts anew.
        "tmpfs": ["/run"],
        # Sysctls of its own network are to be written in a node, as on any gateway; see ipsecctl.lab.script.
        "security_opt": ["apparmor=unconfined", "seccomp=unconfined"],
        "sysctls": {"net.ipv4.ip_forward": "0" if node.role is Role.HOST else "1"},
        "stop_grace_period": "1s",
        "restart": "no",
        "labels": labels,
        "networks": {interface.link: {} for interface in node.interfaces},
        **gateway,
        **(_MACHINE if node.init is Init.SYSTEMD else {}),
    }


def _network(lab: Lab, link: Link, subnet: IPNetwork) -> dict[str, Any]:
    return {
        "name": network_name(lab.name, link.name),
        "driver": "bridge",
        "ipam": {"config": [{"subnet": str(subnet)}]},
        "driver_opts": {
            "com.docker.network.driver.mtu": str(link.mtu),
            "com.docker.network.bridge.name": bridge_name(lab.name, link.name),
            # The machine has no address on a lab's wires and translates nothing that comes from them.
            "com.docker.network.bridge.inhibit_ipv4": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "false",
        },
        "labels": {LABEL: "lab", LABEL_LAB: lab.name, LABEL_LINK: link.name},
    }
