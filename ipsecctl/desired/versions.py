"""Which charon knows which option: the one table that rendering and planning consult.

Found in strongSwan's git history (the first release that has the option in vici_config.c, in the keywords of
proposals, or in the plugin's source) and in its NEWS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ipsecctl.crypto import Offload
from ipsecctl.desired.means import Version

if TYPE_CHECKING:
    from ipsecctl.desired.state import Connection, GatewayState

__all__ = ["SINCE", "Knows", "Unmet", "knows", "longest_names", "unmet", "version_text"]


class Knows(StrEnum):
    """What some version came to know, in swanctl.conf's or strongswan.conf's words."""

    IF_ID = "if_id_in, if_id_out"
    COPY_DF = "copy_df"
    COPY_DSCP = "copy_dscp"
    HW_OFFLOAD = "hw_offload"
    HW_OFFLOAD_PACKET = "hw_offload = packet"
    PER_CPU_SAS = "per_cpu_sas"
    IPTFS = "mode = iptfs"
    ADDITIONAL_KEY_EXCHANGES = "additional key exchanges (ke1_ to ke7_)"
    ML_KEM = "ML-KEM"
    RAW_ESP = "kernel-libipsec.raw_esp"
    LIBIPSEC_TRAPS = "traps of kernel-libipsec"
    SOURCELESS_ROUTES = "routes of kernel-libipsec without a source address"
    LONG_NAMES = "long names of sections"


SINCE: Mapping[Knows, Version] = MappingProxyType(
    {
        Knows.IF_ID: (5, 8, 0),  # 18ed5a07db vici: Make interface ID configurable
        Knows.COPY_DF: (5, 7, 0),  # dc8b015d78
        Knows.COPY_DSCP: (5, 7, 0),  # c993eaf9d1
        Knows.HW_OFFLOAD: (5, 5, 3),  # 7c4f88d4be
        Knows.HW_OFFLOAD_PACKET: (5, 9, 10),  # 2b8f26308f: "crypto" and "packet"; before, "yes" is crypto
        Knows.PER_CPU_SAS: (6, 0, 2),  # fbfae44dd1, with Linux 6.13
        Knows.IPTFS: (6, 0, 2),  # 1afc76dd56, with Linux 6.14
        Knows.ADDITIONAL_KEY_EXCHANGES: (6, 0, 0),  # NEWS of 6.0.0 (RFC 9370)
        Knows.ML_KEM: (6, 0, 0),  # 47de9ef9a1: the keywords; whether it can do it get-algorithms says
        Knows.RAW_ESP: (5, 9, 11),  # e306fa5f73
        Knows.LIBIPSEC_TRAPS: (5, 9, 11),  # b0eb88f703: acquires; before, traffic without an SA is lost
        Knows.SOURCELESS_ROUTES: (5, 9, 12),  # 190d8cbe19; before, a CHILD_SA fails without one
        Knows.LONG_NAMES: (6, 0, 4),  # 9fe4f9fc9f, 80e2cf44a3
    }
)
"""The first release that knows each of them."""

_SHORT_NAME: Final = 127
"""A section's name before 6.0.4: ``char buf[128]`` of settings.c."""
_SHORT_PATH: Final = 233
"""A connection's and a child's name together before 6.0.4.

``connections.``, ``.children.`` and both names are in ``char buf[256]`` of swanctl's load_conns.c.
"""
_LONG_NAME: Final = 255
"""VICI counts the bytes of a name in one byte (vici_message.h)."""


@dataclass(frozen=True, order=True, slots=True)
class Unmet:
    """What a topology asks for and the gateway's charon does not know.

    ``since`` is the release that does, ``needed_by`` the tunnel that asks.
    """

    what: str
    since: Version
    needed_by: str


def knows(version: Version | None, what: Knows) -> bool:
    """Return whether a charon of this version knows an option; one that is not known is taken to know all."""
    return version is None or version >= SINCE[what]


def version_text(version: Version) -> str:
    """Return a version as strongSwan writes it: ``6.0.2``."""
    return ".".join(map(str, version))


def longest_names(version: Version | None) -> tuple[int, int]:
    """Return how long a section's name may be, and a connection's and one of its children's together."""
    if knows(version, Knows.LONG_NAMES):
        return _LONG_NAME, 2 * _LONG_NAME
    return _SHORT_NAME, _SHORT_PATH


def unmet(state: GatewayState) -> tuple[Unmet, ...]:
    """Return what a gateway's state asks for and its charon does not know, sorted; empty when that is all.

    Rendering leaves these options out (key exchanges and names cannot be left out), so who carries a state to
    a gateway must refuse it first. ``raw_esp`` is not asked for by anybody: without it ESP travels in UDP.
    """
    if state.version is None:
        return ()
    found = set()
    for connection in state.connections:
        for what in _asked_by(connection, state.version):
            if not knows(state.version, what):
                found.add(Unmet(str(what), SINCE[what], connection.name))
    return tuple(sorted(found))


def _asked_by(connection: Connection, version: Version) -> Iterator[Knows]:
    proposals = [
        *connection.ike_proposals,
        *(p for child in connection.children for p in child.esp_proposals),
    ]
    if any("-ke" in proposal for proposal in proposals):
        yield Knows.ADDITIONAL_KEY_EXCHANGES
    if any("mlkem" in proposal for proposal in proposals):
        yield Knows.ML_KEM
    longest, both = longest_names(version)
    name = len(connection.name)
    if any(max(name, len(c.name)) > longest or name + len(c.name) > both for c in connection.children):
        yield Knows.LONG_NAMES
    for child in connection.children:
        options = child.options
        if child.if_id:
            yield Knows.IF_ID
        if options.copy_df is not None:
            yield Knows.COPY_DF
        if options.copy_dscp is not None:
            yield Knows.COPY_DSCP
        if options.hw_offload is not None:
            packet = options.hw_offload is Offload.PACKET
            yield Knows.HW_OFFLOAD_PACKET if packet else Knows.HW_OFFLOAD
        if options.per_cpu_sas:
            yield Knows.PER_CPU_SAS
        if options.iptfs:
            yield Knows.IPTFS
