"""A gateway's state as VICI messages: what ``swanctl --load-all`` would send, had it read the files.

Lists are lists, certificates and keys are blobs, secrets are plain bytes (README.md of strongSwan's vici
plugin).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsBytes, TypeAlias

from ipsecctl.desired import Authentication, Child, Connection, GatewayState, SharedKey, Version
from ipsecctl.render.options import child_mode, child_options
from ipsecctl.render.quoting import bare, checked_identity, seconds, section, selector, yes_no
from ipsecctl.topology import SecretRef

__all__ = ["Message", "Messages", "render_messages"]

Message: TypeAlias = dict[str, Any]
"""A VICI message as the ``vici`` package wants it: values are text, bytes, lists of these, or sections
(dicts)."""


@dataclass(frozen=True, slots=True)
class Messages:
    """The messages for one gateway, in the order in which they are to be sent.

    ``certificates`` (for load-cert), ``keys`` (load-key), ``shared`` (load-shared, by unique id),
    ``connections`` (load-conn, by name). Each value is the whole message of its command. The ``repr`` shows
    no secret.
    """

    certificates: tuple[Message, ...] = field(repr=False)
    keys: tuple[Message, ...] = field(repr=False)
    shared: Mapping[str, Message] = field(repr=False)
    connections: Mapping[str, Message] = field(repr=False)


def render_messages(
    state: GatewayState,
    secrets: Mapping[SecretRef, SupportsBytes],
    certificates: Mapping[str, bytes],
) -> Messages:
    """Return the messages that bring charon where the files of ``render_files`` would bring it.

    Raises ``KeyError`` when a secret or certificate is missing, ``CannotQuote`` for what a file could not
    hold.
    """
    by_target = {file.target: certificates[file.source] for file in state.certificates}
    return Messages(
        certificates=tuple(
            {"type": "X509", "flag": "CA" if file.ca else "NONE", "data": certificates[file.source]}
            for file in state.certificates
        ),
        keys=tuple({"type": "any", "data": bytes(secrets[key.secret])} for key in state.private_keys),
        shared={key.id: _shared(key, bytes(secrets[key.secret])) for key in state.shared_keys},
        connections={
            connection.name: {section(connection.name): _connection(connection, by_target, state.version)}
            for connection in state.connections
        },
    )


def _shared(key: SharedKey, secret: bytes) -> Message:
    return {
        "id": bare(key.id),
        "type": str(key.kind),
        "data": secret,
        "owners": [checked_identity(owner) for owner in key.owners],
    }


def _connection(connection: Connection, blobs: Mapping[str, bytes], version: Version | None) -> Message:
    return {
        "version": "2",
        "local_addrs": list(connection.local_addrs),
        "remote_addrs": list(connection.remote_addrs),
        "proposals": list(connection.ike_proposals),
        "rekey_time": seconds(connection.rekey_time_s),
        "over_time": seconds(connection.over_time_s),
        "rand_time": seconds(connection.rand_time_s),
        "reauth_time": seconds(0),
        "dpd_delay": seconds(connection.dpd_delay_s),
        "keyingtries": str(connection.keyingtries),
        "unique": "no",
        "mobike": yes_no(connection.mobike),
        "fragmentation": "yes",
        **({"encap": "yes"} if connection.force_udp else {}),
        **_ppk(connection),
        "local": _authentication(connection.local, blobs),
        "remote": _authentication(connection.remote, blobs),
        "children": {section(child.name): _child(child, version) for child in connection.children},
    }


def _ppk(connection: Connection) -> Message:
    """Return which PPK is to be mixed in (RFC 8784), for a connection that has one."""
    if not connection.ppk_id:
        return {}
    return {"ppk_id": checked_identity(connection.ppk_id), "ppk_required": yes_no(connection.ppk_required)}


def _authentication(round_: Authentication, blobs: Mapping[str, bytes]) -> Message:
    message: Message = {"auth": str(round_.method), "id": checked_identity(round_.identity)}
    if round_.certificate:
        message["certs"] = [blobs[round_.certificate]]
    if round_.ca:
        message["cacerts"] = [blobs[round_.ca]]
    return message


def _child(child: Child, version: Version | None) -> Message:
    return {
        "mode": child_mode(child, version),
        "local_ts": [selector(ts) for ts in child.local_ts],
        "remote_ts": [selector(ts) for ts in child.remote_ts],
        "esp_proposals": list(child.esp_proposals),
        "rekey_time": seconds(child.rekey_time_s),
        "life_time": seconds(child.life_time_s),
        "rand_time": seconds(child.rand_time_s),
        "start_action": str(child.start_action),
        "close_action": str(child.close_action),
        "dpd_action": str(child.dpd_action),
        **dict(child_options(child, version)),
    }
