"""Crypto profiles as they stand in the file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ipsecctl.crypto import PROFILES
from ipsecctl.topology._doc import Doc, one_to_list
from ipsecctl.topology._options import OptionsDoc
from ipsecctl.topology._scalars import Duration, Name, Short, Text

__all__ = ["ProfileDoc"]


class ProfileDoc(Doc):
    """A crypto profile of one's own: what it does not say it takes from `based_on`."""

    description: Text = Field(default="", description="What it is for.")
    based_on: Name = Field(
        default="modern",
        description=f"A built-in profile ({', '.join(f'`{n}`' for n in PROFILES)}) or another of this file.",
        examples=["modern"],
    )
    ike: Annotated[list[str], Short(one_to_list, {"type": "string"}), Field(min_length=1)] = Field(
        default=[],
        description="IKE proposals in swanctl's keywords, the preferred one first.",
        examples=[["aes256gcm16-prfsha384-ecp384"]],
    )
    esp: Annotated[list[str], Short(one_to_list, {"type": "string"}), Field(min_length=1)] = Field(
        default=[],
        description="ESP proposals in swanctl's keywords; a key exchange in them gives PFS.",
        examples=[["aes256gcm16-ecp384"]],
    )
    ike_rekey: Duration = Field(
        default=None, description="An IKE SA is rekeyed after this time at the latest.", examples=["4h"]
    )
    ike_life: Duration = Field(
        default=None,
        description="An IKE SA that was not rekeyed ends after this time; default 110 % of `ike_rekey`.",
        examples=["264m"],
    )
    esp_rekey: Duration = Field(
        default=None, description="A CHILD_SA is rekeyed after this time at the latest.", examples=["1h"]
    )
    esp_life: Duration = Field(
        default=None,
        description="A CHILD_SA that was not rekeyed ends after this time; default 110 % of `esp_rekey`.",
        examples=["66m"],
    )
    dpd_delay: Duration = Field(
        default=None,
        description="A silent peer is asked for a sign of life after this time.",
        examples=["15s"],
    )
    pfs: bool = Field(
        default=True,
        description="Whether each CHILD_SA has its own key exchange; `false` removes those of `based_on`.",
    )
    reason: Text = Field(
        default="",
        description="Why there is no PFS; wanted with `pfs: false`.",
        examples=["The partner has none."],
    )
    options: OptionsDoc = Field(
        default=OptionsDoc(),
        description="Options of the SAs of tunnels that use it; a tunnel's own come first.",
    )
