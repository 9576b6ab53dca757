"""``ipsecctl overhead``: what ESP costs on a link."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._view import paint, print_json, say
from ipsecctl.crypto import (
    IPV6_MIN_MTU,
    LIBIPSEC_MTU,
    EspSuite,
    Overhead,
    Proposal,
    ProposalError,
    Status,
    esp_suites,
    overhead,
    parse_esp_proposal,
)

__all__ = ["app"]

app = command_app()


class Outer(StrEnum):
    """The IP version outside."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def version(self) -> int:
        return 4 if self is Outer.IPV4 else 6


def _bytes(text: str) -> int:
    """Return a number of bytes given on the command line; the refusal is in our own words."""
    if not (text.isascii() and text.isdecimal()):
        raise typer.BadParameter(f"{text!r} is no number of bytes: write one such as 1500")
    return int(text)


def _outer(text: str) -> Outer:
    if text not in tuple(Outer):
        raise typer.BadParameter(f"{text!r} is no version of IP: write ipv4 or ipv6")
    return Outer(text)


@app.command()
def show(
    link_mtu: Annotated[
        int, typer.Option("--link-mtu", metavar="N", parser=_bytes, help="MTU of the WAN link in bytes.")
    ],
    esp: Annotated[str, typer.Option("--esp", metavar="KEYWORD", help="An ESP proposal in swanctl's words.")],
    outer: Annotated[
        Outer,
        typer.Option("--outer", metavar="ipv4|ipv6", parser=_outer, help="The IP version outside."),
    ] = Outer.IPV4,
    nat_t: Annotated[bool, typer.Option("--nat-t", help="ESP in UDP port 4500 (behind NAT).")] = False,
    libipsec: Annotated[
        bool,
        typer.Option("--libipsec", help=f"kernel-libipsec: at most {LIBIPSEC_MTU} bytes inside."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what ESP costs on a link: the largest inner packet and the TCP MSS.

    Where a proposal allows several suites, the one that costs most decides.

    \b
    Examples:
      ipsecctl overhead --link-mtu 1500 --esp aes256gcm16
      ipsecctl overhead --link-mtu 1492 --esp aes256-sha256-modp2048 --nat-t
      ipsecctl overhead --link-mtu 1500 --esp aes256gcm16 --outer ipv6 --json
    """
    proposal = _proposal(esp)
    cap = LIBIPSEC_MTU if libipsec else None

    def cost(suite: EspSuite) -> Overhead:
        return overhead(link_mtu, suite, outer=outer.version, nat_t=nat_t, cap=cap)

    try:
        costs = [cost(suite) for suite in esp_suites(proposal)]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--link-mtu'") from error
    worst = min(costs, key=lambda one: one.inner_mtu)
    _warn(proposal, worst)
    if as_json:
        print_json(_document(worst, costs))
    else:
        typer.echo("\n".join(_lines(worst, others=len(costs) - 1)))


def _proposal(text: str) -> Proposal:
    try:
        return parse_esp_proposal(text)
    except ProposalError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise typer.BadParameter(f"{error.summary}{hint}", param_hint="'--esp'") from error


def _warn(proposal: Proposal, cost: Overhead) -> None:
    for algorithm in proposal.algorithms:
        if algorithm.status is not Status.GOOD:
            say(f"note: {algorithm} is {algorithm.status}: {algorithm.source}")
    if not cost.carries_ipv6:
        say(f"note: {cost.inner_mtu} bytes inside cannot carry IPv6, which needs {IPV6_MIN_MTU}")


def _document(worst: Overhead, costs: list[Overhead]) -> dict[str, Any]:
    return {
        "schema": "ipsecctl/overhead/1",
        "link_mtu": worst.link_mtu,
        "outer": f"ipv{worst.outer}",
        "nat_t": worst.nat_t,
        **_figures(worst),
        "suites": [_figures(cost) for cost in costs],
    }


def _figures(cost: Overhead) -> dict[str, Any]:
    return {
        "suite": cost.suite.name,
        "inner_mtu": cost.inner_mtu,
        "mss_ipv4": cost.mss_ipv4,
        "mss_ipv6": cost.mss_ipv6,
        "carries_ipv6": cost.carries_ipv6,
        "overhead_bytes": cost.overhead_bytes,
        "breakdown": {
            "outer_bytes": cost.outer_bytes,
            "udp_bytes": cost.udp_bytes,
            "esp_header_bytes": cost.esp_header_bytes,
            "iv_bytes": cost.iv_bytes,
            "trailer_bytes": cost.trailer_bytes,
            "icv_bytes": cost.icv_bytes,
            "unused_bytes": cost.unused_bytes,
            "capped_bytes": cost.capped_bytes,
        },
    }


def _lines(cost: Overhead, *, others: int) -> Iterator[str]:
    more = f" (of {others + 1} suites the one that costs most)" if others else ""
    yield paint(f"ESP tunnel mode, {cost.suite}{more}", "bold", sys.stdout)
    rows = [
        (" ", "link MTU", cost.link_mtu),
        ("-", f"outer IPv{cost.outer} header", cost.outer_bytes),
        ("-", "UDP header (NAT-T)", cost.udp_bytes),
        ("-", "SPI and sequence number", cost.esp_header_bytes),
        ("-", "IV", cost.iv_bytes),
        ("-", "pad length and next header", cost.trailer_bytes),
        ("-", "ICV", cost.icv_bytes),
        ("-", f"too few for a block of {cost.suite.alignment_bytes}", cost.unused_bytes),
        ("-", f"above kernel-libipsec's limit of {LIBIPSEC_MTU}", cost.capped_bytes),
        ("=", "largest inner packet", cost.inner_mtu),
        (" ", "TCP MSS, IPv4 inside", cost.mss_ipv4),
        (" ", "TCP MSS, IPv6 inside", cost.mss_ipv6 if cost.carries_ipv6 else 0),
    ]
    for sign, label, size in rows:
        if size:
            yield f"  {sign} {label:<40}{size:>6}"
