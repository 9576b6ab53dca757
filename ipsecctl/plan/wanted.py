"""What a gateway must be, as files and VICI messages: one side of the comparison."""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ipsecctl.desired import GatewayState, Interface, Means, OwnNetwork, Route, Rule
from ipsecctl.gateway import NewFile, Trials
from ipsecctl.render import Messages, RenderedFile
from ipsecctl.topology import DataPath

__all__ = [
    "NEXT",
    "PPK_PREFIX",
    "SHARED_PREFIX",
    "Wanted",
    "certificate_digest",
    "sysctls",
    "tunnel_of",
    "wanted",
]

SHARED_PREFIX = "ike-"
"""What charon's id of a tunnel's pre-shared key begins with; the tunnel's name follows."""

PPK_PREFIX = "ppk-"
"""What charon's id of a tunnel's PPK (RFC 8784) begins with."""

NEXT = ".next"
"""What charon's id of a new key ends with as long as the old one is accepted beside it."""

_PEM = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----\s*(.*?)\s*-----END", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A gateway's files by path and VICI messages by name.

    ``connections`` are load-conn messages (without the outermost name), ``shared`` load-shared messages by
    id, ``certificates`` and ``keys`` load-cert and load-key messages by the file that holds the same.
    ``interfaces`` (by name), ``routes`` and ``rules`` are the ways into tunnels, ``own`` the networks to
    which a way home is needed. ``means`` is what each gateway of the topology has, as far as known,
    ``trials`` what was tried on this one: both are for its record. ``foreign`` are the connections whose
    far end is not ours.
    """

    gateway: str
    topology: str
    files: Mapping[str, NewFile] = field(default_factory=dict)
    connections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    certificates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keys: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data_path: DataPath = DataPath.KERNEL
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    own: tuple[OwnNetwork, ...] = ()
    means: Mapping[str, Means] = field(default_factory=dict)
    trials: Trials | None = None
    foreign: frozenset[str] = frozenset()


def wanted(
    topology: str,
    state: GatewayState,
    files: Iterable[RenderedFile],
    messages: Messages,
    means: Mapping[str, Means],
    trials: Trials | None = None,
    foreign: frozenset[str] = frozenset(),
) -> Wanted:
    """Return what a gateway must be from its state and the two renderings of it."""
    return Wanted(
        gateway=state.name,
        topology=topology,
        files={file.path: NewFile(file.path, file.content, file.mode) for file in files},
        connections={name: message[name] for name, message in messages.connections.items()},
        shared=messages.shared,
        certificates={
            file.target: message
            for file, message in zip(state.certificates, messages.certificates, strict=True)
        },
        keys={file.target: message for file, message in zip(state.private_keys, messages.keys, strict=True)},
        data_path=state.data_path,
        interfaces={interface.name: interface for interface in state.interfaces},
        routes=state.routes,
        rules=state.rules,
        own=state.own,
        means=means,
        trials=trials,
        foreign=foreign,
    )


def tunnel_of(key: str) -> str:
    """Return the name of the tunnel that a shared key or PPK is for, of charon's id of it."""
    prefix = PPK_PREFIX if key.startswith(PPK_PREFIX) else SHARED_PREFIX
    return key.removeprefix(prefix)


def certificate_digest(data: bytes | str) -> str:
    """Return the SHA-256, in hexadecimal digits, of the DER of a certificate given as PEM or DER."""
    data = data.encode() if isinstance(data, str) else data
    found = _PEM.search(data)
    return hashlib.sha256(binascii.a2b_base64(found[1]) if found else data).hexdigest()


def sysctls(content: bytes) -> dict[str, str]:
    """Return the settings of a sysctl.d file, blanks within a value made one."""
    settings = {}
    for line in content.decode().splitlines():
        name, equals, value = line.strip().removeprefix("-").partition("=")
        if equals and not name.startswith(("#", ";")):
            settings[name.strip()] = " ".join(value.split())
    return settings
