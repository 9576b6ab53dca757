"""What a gateway has to work with, as far as a topology's meaning hangs on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from netaddr import IPNetwork

from ipsecctl.topology import DataPath

__all__ = ["Means", "Version"]

Version: TypeAlias = tuple[int, ...]
"""A version of charon for comparing: (6, 0, 1)."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a gateway was found to have. What is not known is ``None`` and gives the conservative choice.

    ``data_path`` is what ``datapath: auto`` is there (``AUTO``, not known: the kernel's).
    ``xfrm_interfaces`` says whether the kernel can make them, ``version`` and ``algorithms`` are charon's
    (the latter by the names of ``get-algorithms``). ``connected`` are the networks that the gateway has an
    address in, as its main routing table tells them.
    """

    data_path: DataPath = DataPath.AUTO
    xfrm_interfaces: bool | None = None
    version: Version | None = None
    algorithms: frozenset[str] | None = None
    connected: frozenset[IPNetwork] = frozenset()
