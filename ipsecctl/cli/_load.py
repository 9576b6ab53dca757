"""Reading a topology file for a command: read, check, look at its secrets, refuse what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ipsecctl.cli._view import print_diagnostics
from ipsecctl.errors import IpsecctlError, Severity, TopologyRefused

if TYPE_CHECKING:
    from ipsecctl.errors import Diagnostic
    from ipsecctl.topology import Loaded, Topology

__all__ = ["base_dir", "check_file", "load_topology", "read_bytes"]


def load_topology(file: Path, *, quiet: bool = False) -> Topology:
    """Read a topology file and check it with its secrets; warnings go to standard error unless ``quiet``.

    Raises ``TopologyRefused`` with every finding when there is an error, and ``IpsecctlError`` when the file
    cannot be read.
    """
    loaded, diagnostics = check_file(file)
    if loaded.topology is None or any(d.severity is Severity.ERROR for d in diagnostics):
        raise TopologyRefused(diagnostics)
    if not quiet:
        print_diagnostics([d for d in diagnostics if d.severity is Severity.WARNING], sys.stderr)
    return loaded.topology


def check_file(file: Path, *, secrets: bool = True) -> tuple[Loaded, tuple[Diagnostic, ...]]:
    """Return what a topology file says and every finding, worst first, those about its secrets included.

    Secrets are looked at only when the rest is right: before, nobody knows which of them are meant.
    """
    from ipsecctl.errors import worst_first
    from ipsecctl.topology import load_bytes

    loaded = load_bytes(read_bytes(file), str(file))
    if loaded.topology is None or not secrets:
        return loaded, loaded.diagnostics
    from ipsecctl.secrets import inspect

    found = inspect(loaded.topology, base_dir(loaded.topology), loaded.source.locate)
    return loaded, worst_first((*loaded.diagnostics, *found))


def read_bytes(file: Path) -> bytes:
    """Return the content of a topology file, ``-`` being standard input."""
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except IsADirectoryError as error:
        raise IpsecctlError(f"{file} is a directory", "name the topology file in it") from error
    except OSError as error:
        hint = (
            "'ipsecctl init FILE' writes a commented starter" if isinstance(error, FileNotFoundError) else ""
        )
        raise IpsecctlError(f"cannot read {file}: {error.strerror}", hint) from error


def base_dir(topology: Topology) -> Path:
    """Return the directory that paths in a topology are relative to: that of its file."""
    return Path() if topology.file == "-" else Path(topology.file).parent
