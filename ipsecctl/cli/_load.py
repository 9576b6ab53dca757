"""Reading a topology file for a command: read, check, look at its secrets, refuse what is wrong."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipsecctl.cli._files import read_bytes
from ipsecctl.cli._view import print_diagnostics, print_json
from ipsecctl.errors import Diagnostic, IpsecctlError, Severity, TopologyRefused, diagnostics_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipsecctl.topology import Loaded, Topology

__all__ = [
    "base_dir",
    "check_file",
    "checked",
    "checked_with_warnings",
    "error_json",
    "errors_as_json",
    "findings_of",
    "lab_called",
    "load_topology",
    "load_with_text",
]


def load_topology(file: Path, *, quiet: bool = False, json: bool = False, secrets: bool = True) -> Topology:
    """Read a topology file and check it with its secrets; warnings go to standard error unless ``quiet``.

    Without ``secrets`` no PSK, certificate or key is looked at: that is for commands that use none.
    With ``json`` a refusal is also printed to standard output as ``ipsecctl/diagnostics/1``, so that who
    reads JSON gets JSON. Raises ``TopologyRefused`` with every finding when there is an error, and
    ``IpsecctlError`` when the file cannot be read.
    """
    return load_with_text(file, quiet=quiet, json=json, secrets=secrets)[0]


def load_with_text(
    file: Path, *, quiet: bool = False, json: bool = False, secrets: bool = True
) -> tuple[Topology, str]:
    """Return with the topology the text that it was read from; else as ``load_topology``."""
    with errors_as_json(file, wanted=json):
        data = read_bytes(file)
    return checked(data, file, quiet=quiet, json=json, secrets=secrets), data.decode()


def checked(
    data: bytes, file: Path, *, quiet: bool = False, json: bool = False, secrets: bool = True
) -> Topology:
    """Return the topology in the content of a file; else as ``load_topology``."""
    topology, warnings = checked_with_warnings(data, file, json=json, secrets=secrets)
    if not quiet:
        print_diagnostics(warnings, sys.stderr)
    return topology


def checked_with_warnings(
    data: bytes, file: Path, *, json: bool = False, secrets: bool = True
) -> tuple[Topology, tuple[Diagnostic, ...]]:
    """Return the topology in the content of a file and the warnings, which nobody has seen yet; else as
    ``load_topology``."""
    with errors_as_json(file, wanted=json):
        loaded, diagnostics = check_file(file, secrets=secrets, data=data)
        if loaded.topology is None or any(d.severity is Severity.ERROR for d in diagnostics):
            raise TopologyRefused(diagnostics)
    return loaded.topology, tuple(d for d in diagnostics if d.severity is Severity.WARNING)


@contextmanager
def errors_as_json(file: Path, *, wanted: bool = True) -> Iterator[None]:
    """Print an error of the block as JSON to standard output and let it go on its way.

    It still ends the command with its own exit status and its text on standard error. Nothing else of the
    block may print JSON before it fails.
    """
    try:
        yield
    except IpsecctlError as error:
        if wanted:
            print_json(error_json(error, file))
        raise


def error_json(error: IpsecctlError, file: Path) -> dict[str, Any]:
    """Return an error as ``ipsecctl/diagnostics/1``."""
    return diagnostics_json(findings_of(error, file))


def findings_of(error: IpsecctlError, file: Path) -> tuple[Diagnostic, ...]:
    """Return an error as findings; one that is none has the code IP000, and no line."""
    if isinstance(error, TopologyRefused):
        return error.diagnostics
    return (Diagnostic(Severity.ERROR, "IP000", error.summary, error.hint, str(file), 0, 0),)


def check_file(
    file: Path, *, secrets: bool = True, data: bytes | None = None, resolve: bool = False
) -> tuple[Loaded, tuple[Diagnostic, ...]]:
    """Return what a topology file says and every finding, worst first, those about its secrets included.

    Of a topology with errors, the secrets of those tunnels are looked at whose credentials are known.
    ``data`` is the file's content where it was read already. Only with ``resolve`` is Vault asked, and are
    commands run.
    """
    from ipsecctl.errors import worst_first
    from ipsecctl.topology import load_bytes

    loaded = load_bytes(read_bytes(file) if data is None else data, str(file))
    if loaded.known is None or not secrets:
        return loaded, loaded.diagnostics
    from ipsecctl.secrets import inspect

    base, locate = base_dir(loaded.known), loaded.source.locate
    found = inspect(loaded.known, base, locate, also=loaded.unplaced, resolve=resolve)
    return loaded, worst_first((*loaded.diagnostics, *found))


def lab_called(said: str | None) -> str | None:
    """Return the name of the lab that ``--lab`` names, be it by the path of its folder.

    Raises ``LabError`` when it cannot be the name of one.
    """
    if said is None or said.replace("-", "").replace("_", "").isalnum():
        return said
    from ipsecctl.lab.find import name_of

    return name_of(said)


def base_dir(topology: Topology) -> Path:
    """Return the directory that paths in a topology are relative to: that of its file."""
    return Path() if topology.file == "-" else Path(topology.file).parent
