"""IKE_SAs and CHILD_SAs as charon lists them, typed.

Versions of charon differ in what they report: unknown keys are passed over, missing ones become ``None``, 0
or "".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ChildSa", "IkeSa", "parse_list_sas"]

_ADDITIONAL = tuple(f"ake{n}" for n in range(1, 8))
_ALGORITHMS = ("encr-alg", "encr-keysize", "integ-alg", "prf-alg", "dh-group", *_ADDITIONAL, "esn")


@dataclass(frozen=True, slots=True)
class ChildSa:
    """A CHILD_SA at one end; ``name`` is the child configuration's.

    SPIs are 8 hexadecimal digits. ``age_s``, ``rekey_in_s`` and ``life_in_s`` are in seconds, ``None`` where
    charon does not say; ``encapsulated`` is ESP in UDP. ``suite`` is like ``AES_GCM_16-256/ECP_384``,
    ``algorithms`` the same as charon's fields (``list_child_ipsec`` in its vici_query.c). ``cpu`` is the one
    that it is for, where each has its own (RFC 9611), ``None`` for one that is for all. ``if_ids`` are those
    of its policies, in and out, 0 for none. ``heard_s`` is how many seconds ago it last received something,
    ``None`` if it never did.
    """

    name: str
    unique_id: int
    state: str
    spi_in: str
    spi_out: str
    suite: str
    encapsulated: bool
    local_ts: tuple[str, ...]
    remote_ts: tuple[str, ...]
    bytes_in: int
    packets_in: int
    bytes_out: int
    packets_out: int
    age_s: int | None
    rekey_in_s: int | None
    life_in_s: int | None
    algorithms: tuple[tuple[str, str], ...] = ()
    cpu: int | None = None
    heard_s: int | None = None
    if_ids: tuple[int, int] = (0, 0)

    @property
    def installed(self) -> bool:
        """Whether it is in state ``INSTALLED``."""
        return self.state == "INSTALLED"

    @property
    def carries(self) -> bool:
        """Whether it carries traffic both ways: one that is being rekeyed still does."""
        return self.state in ("INSTALLED", "REKEYING")


@dataclass(frozen=True, slots=True)
class IkeSa:
    """An IKE_SA at one end with its CHILD_SAs, sorted by their unique ids; ``name`` is the connection's.

    ``age_s`` is ``None`` in all states but ``ESTABLISHED``. ``nat_local`` and ``nat_remote`` say which end
    charon found behind a NAT. SPIs are 16 hexadecimal digits. ``ppk``: a PPK was mixed in (RFC 8784).
    """

    name: str
    unique_id: int
    state: str
    local_host: str
    local_port: int
    local_id: str
    remote_host: str
    remote_port: int
    remote_id: str
    initiator: bool
    initiator_spi: str
    responder_spi: str
    nat_local: bool
    nat_remote: bool
    suite: str
    age_s: int | None
    rekey_in_s: int | None
    children: tuple[ChildSa, ...]
    algorithms: tuple[tuple[str, str], ...] = ()
    ppk: bool = False

    @property
    def established(self) -> bool:
        return self.state in ("ESTABLISHED", "REKEYING")


def parse_list_sas(messages: Iterable[Mapping[str, Any]]) -> tuple[IkeSa, ...]:
    """Return the IKE_SAs in ``list-sa`` messages with values of ``str``, sorted by name and unique id."""
    sas = (_ike(name, sa) for message in messages for name, sa in message.items() if isinstance(sa, Mapping))
    return tuple(sorted(sas, key=lambda sa: (sa.name, sa.unique_id)))


def _ike(name: str, sa: Mapping[str, Any]) -> IkeSa:
    listed = sa.get("child-sas")
    sections = listed.items() if isinstance(listed, Mapping) else ()
    children = (_child(key, child) for key, child in sections if isinstance(child, Mapping))
    return IkeSa(
        name=name,
        unique_id=_int(sa, "uniqueid") or 0,
        state=_text(sa, "state"),
        local_host=_text(sa, "local-host"),
        local_port=_int(sa, "local-port") or 0,
        local_id=_text(sa, "local-id"),
        remote_host=_text(sa, "remote-host"),
        remote_port=_int(sa, "remote-port") or 0,
        remote_id=_text(sa, "remote-id"),
        initiator=_text(sa, "initiator") == "yes",
        initiator_spi=_text(sa, "initiator-spi"),
        responder_spi=_text(sa, "responder-spi"),
        nat_local=_text(sa, "nat-local") == "yes",
        nat_remote=_text(sa, "nat-remote") == "yes",
        suite=_suite(sa),
        age_s=_int(sa, "established"),
        rekey_in_s=_int(sa, "rekey-time"),
        children=tuple(sorted(children, key=lambda child: child.unique_id)),
        algorithms=_algorithms(sa),
        ppk=_text(sa, "ppk") == "yes",
    )


def _child(key: str, sa: Mapping[str, Any]) -> ChildSa:
    return ChildSa(
        name=_text(sa, "name") or key.rpartition("-")[0],
        unique_id=_int(sa, "uniqueid") or 0,
        state=_text(sa, "state"),
        spi_in=_text(sa, "spi-in"),
        spi_out=_text(sa, "spi-out"),
        suite=_suite(sa),
        encapsulated=_text(sa, "encap") == "yes",
        local_ts=_texts(sa, "local-ts"),
        remote_ts=_texts(sa, "remote-ts"),
        bytes_in=_int(sa, "bytes-in") or 0,
        packets_in=_int(sa, "packets-in") or 0,
        bytes_out=_int(sa, "bytes-out") or 0,
        packets_out=_int(sa, "packets-out") or 0,
        age_s=_int(sa, "install-time"),
        rekey_in_s=_int(sa, "rekey-time"),
        life_in_s=_int(sa, "life-time"),
        algorithms=_algorithms(sa),
        cpu=_int(sa, "cpu"),
        heard_s=_int(sa, "use-in"),
        if_ids=(_hex(sa, "if-id-in"), _hex(sa, "if-id-out")),
    )


def _algorithms(sa: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, _text(sa, key)) for key in _ALGORITHMS if _text(sa, key))


def _suite(sa: Mapping[str, Any]) -> str:
    """Return the negotiated algorithms in charon's words: cipher, integrity, PRF, key exchanges, ESN."""
    encryption = "-".join(filter(None, (_text(sa, "encr-alg"), _text(sa, "encr-keysize"))))
    exchanges = (_text(sa, key) for key in ("dh-group", *_ADDITIONAL))
    esn = "ESN" if _text(sa, "esn") else ""
    parts = (encryption, _text(sa, "integ-alg"), _text(sa, "prf-alg"), *exchanges, esn)
    return "/".join(filter(None, parts))


def _text(sa: Mapping[str, Any], key: str) -> str:
    value = sa.get(key)
    return value if isinstance(value, str) else ""


def _texts(sa: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = sa.get(key)
    return tuple(sorted(value)) if isinstance(value, list) else ()


def _hex(message: Mapping[str, Any], key: str) -> int:
    try:
        return int(_text(message, key) or "0", 16)
    except ValueError:
        return 0


def _int(sa: Mapping[str, Any], key: str) -> int | None:
    try:
        return int(sa[key])
    except (KeyError, TypeError, ValueError):
        return None
