"""``ipsecctl crypto``: the table of algorithms and the built-in profiles."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._view import folded, paint, print_json, too_narrow
from ipsecctl.crypto import ALGORITHMS, PROFILES, Algorithm, Profile, Status, nearest

__all__ = ["app"]

app = command_app(
    help="""Show algorithms and profiles.

    \b
    Examples:
      ipsecctl crypto algorithms
      ipsecctl crypto profiles pq-hybrid
    """,
    no_args_is_help=True,
)

_COLOURS = {Status.GOOD: "green", Status.LEGACY: "yellow", Status.BROKEN: "red"}

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def algorithms(as_json: _Json = False) -> None:
    """Show every algorithm that a proposal can name, what to think of it, and who says so.

    \b
    Examples:
      ipsecctl crypto algorithms
      ipsecctl crypto algorithms --json
    """
    if as_json:
        rows = [_algorithm(algorithm) for algorithm in ALGORITHMS]
        print_json({"schema": "ipsecctl/algorithms/1", "algorithms": rows})
    else:
        typer.echo("\n".join(_algorithm_lines()))


@app.command()
def profiles(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show only this one.")] = None,
    as_json: _Json = False,
) -> None:
    """Show the built-in profiles: proposals, lifetimes, PFS.

    \b
    Examples:
      ipsecctl crypto profiles
      ipsecctl crypto profiles pq-hybrid --json
    """
    if name is not None and name not in PROFILES:
        near = nearest(name, PROFILES)
        meant = f" Did you mean '{near}'?" if near else f" There are: {', '.join(PROFILES)}."
        raise typer.BadParameter(f"no profile {name!r}.{meant}", param_hint="'NAME'")
    chosen = [profile for profile in PROFILES.values() if name in {None, profile.name}]
    if as_json:
        print_json({"schema": "ipsecctl/profiles/1", "profiles": [_profile(profile) for profile in chosen]})
    else:
        typer.echo("\n\n".join("\n".join(_profile_lines(profile)) for profile in chosen))


def _algorithm(algorithm: Algorithm) -> dict[str, Any]:
    return {
        "kind": algorithm.kind.label,
        "keyword": algorithm.keyword,
        "aliases": list(algorithm.aliases),
        "iana_name": algorithm.iana_name,
        "iana_number": algorithm.iana_number,
        "key_bits": algorithm.key_bits,
        "strength_bits": algorithm.bits,
        "aead": algorithm.aead,
        "status": algorithm.status.value,
        "source": algorithm.source,
    }


def _algorithm_lines() -> Iterator[str]:
    head = ("KEYWORD", "STATUS", "BITS", "IANA", "NAME", "SOURCE")
    cells = [
        (a.keyword, a.status.value, str(a.bits or "-"), str(a.iana_number), a.iana_name, a.source)
        for a in ALGORITHMS
    ]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    room = too_narrow(sum(widths) + 2 * (len(widths) - 1))
    kind = None
    for algorithm, row in zip(ALGORITHMS, cells, strict=True):
        if algorithm.kind is not kind:
            if kind is not None:
                yield ""
            kind = algorithm.kind
            title = f"{kind.label} (IKEv2 transform type {kind.value})"
            yield paint(title[0].upper() + title[1:], "bold", sys.stdout)
            yield from (paint(line, "dim", sys.stdout) for line in _row(head, widths, room))
        for line in _row(row, widths, room):
            good = algorithm.status is Status.GOOD
            yield line if good else paint(line, _COLOURS[algorithm.status], sys.stdout)


def _row(cells: Sequence[str], widths: list[int], room: int | None) -> Iterator[str]:
    """Yield a row of the table as one line; with ``room`` columns only, names and sources below it."""
    below = 1 if room is None else 2
    beside = "  ".join(cell.ljust(width) for cell, width in zip(cells[:-below], widths, strict=False))
    return folded(beside, ": ".join(cells[-below:]), room)


def _profile(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "summary": profile.summary,
        "ike_proposals": list(profile.ike_proposals),
        "esp_proposals": list(profile.esp_proposals),
        "ike_rekey_s": profile.ike_rekey_s,
        "ike_life_s": profile.ike_life_s,
        "esp_rekey_s": profile.esp_rekey_s,
        "esp_life_s": profile.esp_life_s,
        "dpd_delay_s": profile.dpd_delay_s,
        "pfs": profile.pfs,
        "reason": profile.reason,
    }


def _profile_lines(profile: Profile) -> Iterator[str]:
    yield f"{paint(profile.name, 'bold', sys.stdout)}: {profile.summary}"
    for label, proposals in (("IKE", profile.ike_proposals), ("ESP", profile.esp_proposals)):
        for position, proposal in enumerate(proposals):
            yield f"  {label if position == 0 else '':<6}{proposal}"
    for label, rekey_s, life_s in (
        ("IKE SA", profile.ike_rekey_s, profile.ike_life_s),
        ("CHILD_SA", profile.esp_rekey_s, profile.esp_life_s),
    ):
        yield f"  {label} rekeyed after {rekey_s // 60} min, ends after {life_s // 60} min at most"
    yield f"  DPD every {profile.dpd_delay_s} s; PFS {'yes' if profile.pfs else f'no: {profile.reason}'}"
