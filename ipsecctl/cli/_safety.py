"""What a command may remove and disturb: the option ``--allow``, and the limit in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ipsecctl.plan import Safety

__all__ = ["AllowOption", "safety_of"]

AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Let the safety stop pass: 'remove', 'disturb', or a tunnel's name. Can be said several times.",
        metavar="WHAT",
    ),
]


def safety_of(allow: Iterable[str] | None) -> Safety:
    """Return what holds with these options. Raises ``IpsecctlError`` for a limit that is none."""
    from ipsecctl.plan import Safety, parse_limit

    return Safety(parse_limit(os.environ), frozenset(allow or ()))
