"""The options of a child that only stand where somebody asked for them: swanctl's keys and values.

Files and messages take them from here alike. What the gateway's charon does not know is left out, as it would
refuse the whole connection for it; ``ipsecctl.desired.unmet`` says what that is.
"""

from __future__ import annotations

from collections.abc import Iterator

from ipsecctl.crypto import Offload
from ipsecctl.desired import Child, Knows, Version, knows
from ipsecctl.render.quoting import mark, number, yes_no

__all__ = ["child_mode", "child_options"]


def child_mode(child: Child, version: Version | None) -> str:
    """Return a child's ``mode``: ``tunnel``, or ``iptfs``, which is tunnel mode with AGGFRAG payloads."""
    return "iptfs" if child.options.iptfs and knows(version, Knows.IPTFS) else "tunnel"


def child_options(child: Child, version: Version | None) -> tuple[tuple[str, str], ...]:
    """Return the keys and values of a child beside those that every child has, in the order of the file.

    Raises ``CannotQuote`` for a mark that is none.
    """
    return tuple(
        (key, value) for key, value, needs in _options(child) if needs is None or knows(version, needs)
    )


def _options(child: Child) -> Iterator[tuple[str, str, Knows | None]]:
    options = child.options
    if child.if_id:
        yield "if_id_in", number(child.if_id), Knows.IF_ID
        yield "if_id_out", number(child.if_id), Knows.IF_ID
    if options.mark_in:
        yield "mark_in", mark(options.mark_in), None
    if options.mark_out:
        yield "mark_out", mark(options.mark_out), None
    if options.replay_window is not None:
        yield "replay_window", number(options.replay_window), None
    if options.copy_df is not None:
        yield "copy_df", yes_no(options.copy_df), Knows.COPY_DF
    if options.copy_dscp is not None:
        yield "copy_dscp", str(options.copy_dscp), Knows.COPY_DSCP
    if options.hw_offload is not None:
        yield from _offload(options.hw_offload)
    if options.per_cpu_sas is not None:
        yield "per_cpu_sas", yes_no(options.per_cpu_sas), Knows.PER_CPU_SAS


def _offload(offload: Offload) -> Iterator[tuple[str, str, Knows]]:
    if offload is Offload.CRYPTO:
        yield "hw_offload", "yes", Knows.HW_OFFLOAD  # all versions have this word for it
    elif offload is Offload.PACKET:
        yield "hw_offload", "packet", Knows.HW_OFFLOAD_PACKET
    else:
        yield "hw_offload", str(offload), Knows.HW_OFFLOAD
