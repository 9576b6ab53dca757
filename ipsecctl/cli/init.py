"""``ipsecctl init``: a topology to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipsecctl.cli._app import command_app

__all__ = ["app"]

app = command_app()


@app.command()
def init(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write; - is standard output.")
    ] = Path("topology.yaml"),
    example: Annotated[
        str,
        typer.Option("--example", metavar="NAME", help="Copy one of the examples instead of the starter."),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented starter topology, or copy an example.

    \b
    Examples:
      ipsecctl init clinics.yaml
      ipsecctl init --example clinic-dc my-clinics.yaml
      ipsecctl init -
    """
    from ipsecctl.cli._files import write_text
    from ipsecctl.cli._view import say

    text = _template(example)
    if str(file) == "-":
        print(text, end="")
        return
    write_text(file, text, replace=force)
    say(f"wrote {file}")
    say("next: edit it, then")
    if "file:" in text:
        say(f"  ipsecctl secret generate {file}")
    say(f"  ipsecctl validate {file}")


def _template(example: str) -> str:
    from ipsecctl.resources import resource_dir

    if not example:
        return (resource_dir("templates") / "starter.yaml").read_text(encoding="utf-8")
    examples = {path.stem: path for path in sorted(resource_dir("topologies").glob("*.yaml"))}
    if example not in examples:
        raise typer.BadParameter(
            f"no example {example!r}; there are: {', '.join(examples)}", param_hint="--example"
        )
    return examples[example].read_text(encoding="utf-8")
