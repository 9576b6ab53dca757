"""A crypto profile: proposals and lifetimes under a name."""

from __future__ import annotations

from dataclasses import dataclass

from ipsecctl.crypto.options import NO_OPTIONS, SaOptions

__all__ = ["Profile"]


@dataclass(frozen=True, order=True, slots=True)
class Profile:
    """IKE and ESP proposals (swanctl keywords, in order of preference) and lifetimes in seconds.

    ``ike_life_s`` and ``esp_life_s`` are hard limits; rekeying begins at a random moment before
    ``..._rekey_s`` (swanctl's ``rand_time`` is life less rekey). ``pfs`` says whether ESP proposals carry key
    exchanges; where they do not, ``reason`` says why. ``options`` are for all tunnels that use the profile.
    """

    name: str
    summary: str
    ike_proposals: tuple[str, ...]
    esp_proposals: tuple[str, ...]
    ike_rekey_s: int = 4 * 3600
    ike_life_s: int = 4 * 3600 + 24 * 60
    esp_rekey_s: int = 3600
    esp_life_s: int = 3600 + 6 * 60
    dpd_delay_s: int = 15
    pfs: bool = True
    reason: str = ""
    options: SaOptions = NO_OPTIONS
