"""What every command's Typer has in common."""

from __future__ import annotations

from typing import Any, Final

import typer

__all__ = ["CONTEXT", "command_app"]

CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}
"""Settings of every command, also of those within a group."""


def command_app(**options: Any) -> typer.Typer:
    """Return the Typer of one command, or with ``options`` (as ``help``) of a group of them.

    Completion is an option of ``ipsecctl`` itself, and errors are told by its ``main``.
    """
    return typer.Typer(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
        **options,
    )
