"""What can be asked of the SAs of a tunnel beside their suites; charon decides where nothing is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["NO_OPTIONS", "CopyDscp", "Offload", "SaOptions"]


class CopyDscp(StrEnum):
    """Which way the DSCP of the header is copied: swanctl's ``copy_dscp``."""

    NO = "no"
    IN = "in"
    OUT = "out"
    YES = "yes"


class Offload(StrEnum):
    """What of ESP a network card takes over: swanctl's ``hw_offload``."""

    NO = "no"
    CRYPTO = "crypto"
    PACKET = "packet"
    AUTO = "auto"


@dataclass(frozen=True, order=True, slots=True)
class SaOptions:
    """Options of CHILD_SAs, ``None`` (or "" for a mark) where nothing is said and charon's default holds.

    ``replay_window`` counts packets, 0 is no protection. ``mark_in`` and ``mark_out`` are swanctl's
    ``VALUE`` or ``VALUE/MASK``. ``force_udp`` sends ESP in UDP 4500 without a NAT (``encap``). ``iptfs``
    packs inner packets into a stream (RFC 9347). Source: swanctl.conf(5).
    """

    replay_window: int | None = None
    copy_df: bool | None = None
    copy_dscp: CopyDscp | None = None
    hw_offload: Offload | None = None
    per_cpu_sas: bool | None = None
    iptfs: bool | None = None
    mark_in: str = ""
    mark_out: str = ""
    force_udp: bool | None = None

    def over(self, base: SaOptions) -> SaOptions:
        """Return these options, and those of ``base`` where these say nothing."""
        if self is NO_OPTIONS:
            return base
        said = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) not in (None, "")
        }
        return dataclasses.replace(base, **said)


NO_OPTIONS: Final = SaOptions()
"""Nothing is asked for."""
