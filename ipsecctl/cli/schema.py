"""``ipsecctl schema``: the language, for editors and for people."""

from __future__ import annotations

from typing import Annotated

import typer

from ipsecctl.cli._app import command_app

__all__ = ["app"]

app = command_app()


@app.command()
def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the reference for people (docs/topology.md) instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of topology files, for editors.

    With the YAML language server (VS Code, Neovim, Emacs): write it to a file, and name that in the first
    line of a topology: # yaml-language-server: $schema=ipsecctl.schema.json

    \b
    Examples:
      ipsecctl schema > ipsecctl.schema.json
      ipsecctl schema --markdown
    """
    if markdown:
        from ipsecctl.topology.reference import reference

        print(reference(), end="")
        return
    from ipsecctl.cli._view import print_json
    from ipsecctl.topology import json_schema

    print_json(json_schema())
