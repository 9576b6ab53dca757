"""Files that a lab puts into a node: a partner's own configuration, with the topology's PSKs in it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

from ipsecctl import secrets
from ipsecctl.errors import LabError
from ipsecctl.lab.spec import Finding, LabSpec
from ipsecctl.lab.wiring import Lab, Node
from ipsecctl.topology import SecretRef, Topology

__all__ = ["node_files", "wrong_files"]

_PSK = re.compile(rb"@psk:([A-Za-z0-9_-]+)@")


def wrong_files(lab_file: Path, spec: LabSpec, topology: Topology | None) -> Iterator[Finding]:
    """Yield what is wrong with a lab's files: one is not there, or wants a PSK that there is not.

    PSKs are looked for where the ``topology`` is known, and has the gateway.
    """
    gateways = {gateway.name for gateway in topology.gateways()} if topology else set()
    for gateway, own in spec.gateways.items():
        for target, name in sorted(own.files.items()):
            where = ("gateways", gateway, "files", target)
            file = lab_file.parent / name
            try:
                content = file.read_bytes()
            except OSError as exc:
                hint = "the path is relative to the lab file"
                yield Finding(f"cannot read {file}: {exc.strerror}", hint, where, code="IP404")
                continue
            if topology is None or gateway not in gateways:
                continue
            for tunnel in _PSK.findall(content):
                if _psk(topology, gateway, tunnel.decode()) is None:
                    summary = f"{file}: @psk:{tunnel.decode()}@ is no PSK of {gateway}"
                    yield Finding(summary, f"its tunnels: {_tunnels(topology, gateway)}", where, code="IP404")


def node_files(lab: Lab, node: Node) -> dict[str, bytes]:
    """Return the files of a node by their path in it, PSKs filled in.

    Raises ``SecretUnavailable`` when a PSK cannot be read, ``LabError`` when a file has gone.
    """
    base = Path(lab.topology.file).parent

    def fill(match: re.Match[bytes]) -> bytes:
        reference = _psk(lab.topology, node.name, match[1].decode())
        if reference is None:
            raise LabError(f"{node.name} has no PSK for tunnel {match[1].decode()}")
        # swanctl.conf: a secret that begins with "0s" is base64, which needs no quoting.
        return b"0s" + base64.b64encode(bytes(secrets.read(reference, base)))

    return {target: _PSK.sub(fill, _content(Path(lab.file).parent / name)) for target, name in node.files}


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise LabError(f"cannot read {file}: {exc.strerror}") from exc


def _psk(topology: Topology, gateway: str, tunnel: str) -> SecretRef | None:
    for candidate in topology.tunnels:
        for end in (candidate.left, candidate.right):
            if candidate.name == tunnel and end.gateway.name == gateway:
                return end.credential.psk
    return None


def _tunnels(topology: Topology, gateway: str) -> str:
    own = [t.name for t in topology.tunnels if gateway in (t.left.gateway.name, t.right.gateway.name)]
    return ", ".join(own) or "none"
