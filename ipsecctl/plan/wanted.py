"""What a gateway must be, as files and VICI messages: one side of the comparison."""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from ipsecctl.desired import GatewayState
from ipsecctl.gateway import NewFile
from ipsecctl.render import Messages, RenderedFile

__all__ = ["Wanted", "certificate_digest", "route_prefixes", "sysctls", "wanted"]

_PEM = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----\s*(.*?)\s*-----END", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A gateway's files by path and VICI messages by name.

    ``connections`` are load-conn messages (without the outermost name), ``shared`` load-shared messages by
    id, ``certificates`` and ``keys`` load-cert and load-key messages by the file that holds the same.
    ``data_paths`` is what each gateway of the topology carries ESP with, as far as known.
    """

    gateway: str
    topology: str
    files: Mapping[str, NewFile] = field(default_factory=dict)
    connections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    certificates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keys: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data_paths: Mapping[str, str] = field(default_factory=dict)


def wanted(
    topology: str,
    state: GatewayState,
    files: Iterable[RenderedFile],
    messages: Messages,
    data_paths: Mapping[str, str],
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
        data_paths=data_paths,
    )


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


def route_prefixes(batch: bytes) -> set[str]:
    """Return the prefixes of an ``ip -batch`` file of unreachable routes, in the form of ``prefix_text``."""
    words = (line.split() for line in batch.decode().splitlines() if not line.startswith("#"))
    return {prefix_text(line[line.index("unreachable") + 1]) for line in words if "unreachable" in line}


def prefix_text(prefix: str) -> str:
    """Return a prefix in one form, as iproute2 leaves out the length of a single host's."""
    return str(ip_network(prefix))
