"""The options of SAs as they stand in the file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ipsecctl.crypto import NO_OPTIONS, CopyDscp, Offload, SaOptions
from ipsecctl.topology._doc import Doc
from ipsecctl.topology._route_words import Mark, ReplayWindow

__all__ = ["OptionsDoc", "sa_options"]


class OptionsDoc(Doc):
    """What can be asked of the SAs of tunnels beside their suites; charon's defaults hold for the rest.

    Extended sequence numbers are asked for in a proposal (`-esn`). What a gateway cannot do is found before
    anything is pushed to it.
    """

    replay_window: ReplayWindow = Field(
        default=None,
        description="How many packets late one may come and still be taken; 0 takes any, twice, too. "
        "charon's default is 32.",
        examples=[1024],
    )
    copy_df: bool = Field(
        default=True, description="Whether the outer header takes the inner one's Don't Fragment bit."
    )
    copy_dscp: Literal["no", "in", "out", "yes"] = Field(
        default="out",
        description="Which way the traffic class (DSCP) is copied between inner and outer header.",
    )
    hw_offload: Literal["no", "crypto", "packet", "auto"] = Field(
        default="no", description="What of ESP the network card takes over; `auto` tries and does without."
    )
    per_cpu_sas: bool = Field(
        default=False, description="An SA for each CPU (strongSwan 6.0.2, Linux 6.13; RFC 9611)."
    )
    iptfs: bool = Field(
        default=False,
        description="Inner packets as a stream, several in one or one in several (strongSwan 6.0.2, Linux "
        "6.14; RFC 9347).",
    )
    mark_in: Mark = Field(
        default="", description="The mark that arriving packets have.", examples=[42, "0x2a/0xff"]
    )
    mark_out: Mark = Field(
        default="", description="The mark that leaving packets must have to enter the tunnel.", examples=[42]
    )
    force_udp: bool = Field(
        default=False, description="ESP in UDP port 4500 also where no NAT is in the way."
    )


def sa_options(doc: OptionsDoc) -> SaOptions:
    """Return the options that a mapping of the file names; the others are not said."""
    if not doc.model_fields_set:
        return NO_OPTIONS
    said = {name: getattr(doc, name) for name in doc.model_fields_set}
    if "copy_dscp" in said:
        said["copy_dscp"] = CopyDscp(said["copy_dscp"])
    if "hw_offload" in said:
        said["hw_offload"] = Offload(said["hw_offload"])
    return SaOptions(**said)
