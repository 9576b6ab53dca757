"""Labs on disk: which there are, and reading one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from ipsecctl.errors import Diagnostic, LabError, Severity, TopologyRefused
from ipsecctl.lab.build import wire
from ipsecctl.lab.files import wrong_files
from ipsecctl.lab.spec import Finding, LabSpec, Places, parse
from ipsecctl.lab.wiring import Lab
from ipsecctl.resources import resource_dir
from ipsecctl.topology import Loaded, load_text

__all__ = ["LAB_FILE", "check_name", "is_path", "known", "load", "name_of"]

LAB_FILE = "lab.yaml"
# What Compose allows as a project's name.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_TOPOLOGY = re.compile(r"^ipsecctl:", re.MULTILINE)


def known() -> tuple[str, ...]:
    """Return the names of the labs of this installation, sorted."""
    return tuple(sorted(file.parent.name for file in resource_dir("labs").glob(f"*/{LAB_FILE}")))


def check_name(name: str) -> str:
    """Return a lab's name if it can be one; raises ``LabError``."""
    if not _NAME.fullmatch(name):
        raise LabError(f"'{name}' cannot be the name of a lab", "Use small letters, digits, '-' and '_'.")
    return name


def is_path(said: str) -> bool:
    """Whether a lab is named by the path of its folder or file; a single word is a name."""
    return "/" in said or said in (".", "..") or Path(said).suffix in (".yaml", ".yml")


def name_of(said: str) -> str:
    """Return the name of a lab that may be named by a path, which need not be there; raises ``LabError``."""
    return check_name(_lab_file(said).parent.name if is_path(said) else said)


def load(name: str) -> Lab:
    """Read and wire a lab: one of the installation by its name, or one anywhere by the path of its folder or
    file.

    Raises ``LabError`` when there is none or it is a topology, ``TopologyRefused`` with every finding about
    the lab file, its topology, and what of the one does not fit the other.
    """
    file = _file(name)
    text = _read(file)
    spec, rest, places, findings = parse(text, str(file))
    if spec is None and _TOPOLOGY.search(text):
        raise LabError(
            f"{file} is a topology, not a lab", "A lab's file says 'ipsecctl-lab: 1'; see docs/labs.md."
        )
    if rest is None:
        raise TopologyRefused(findings)
    missing = places.diagnostics(wrong_files(file, rest, None))
    loaded = _topology(file, rest, places, (*findings, *missing))
    if loaded.topology is None:
        raise TopologyRefused((*findings, *missing, *loaded.diagnostics))
    lab, wrong = wire(check_name(file.absolute().parent.name), loaded.topology, rest, str(file))
    findings = (*findings, *places.diagnostics(wrong_files(file, rest, loaded.topology)))
    if lab is None or findings:
        raise TopologyRefused((*findings, *_diagnostics(wrong, places, loaded)))
    return lab


def _file(name: str) -> Path:
    if is_path(name):
        file = _lab_file(name)
        if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises where a name is too long
            raise LabError(f"there is no lab file {_short(file)}", "A lab is a folder with a file lab.yaml.")
        return _short(file)
    file = resource_dir("labs") / check_name(name) / LAB_FILE
    if not os.path.isfile(file):  # noqa: PTH113
        near = get_close_matches(name, known(), n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(known())}."
        raise LabError(f"there is no lab '{name}'", hint)
    return _short(file)


def _lab_file(said: str) -> Path:
    """Return the absolute path of the lab file that a path means, without "..": its folder gives the name."""
    path = Path(os.path.abspath(said))  # noqa: PTH100 - Path.absolute() leaves ".." in
    return path if path.suffix in (".yaml", ".yml") and not os.path.isdir(path) else path / LAB_FILE  # noqa: PTH112


def _short(file: Path) -> Path:
    """Return a path as a person in this directory would write it."""
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise LabError(f"cannot read {file}: {reason}") from exc


def _topology(file: Path, spec: LabSpec, places: Places, before: tuple[Diagnostic, ...]) -> Loaded:
    """Read the topology of a lab; one that is not there is refused after the findings ``before``."""
    if spec.topology:
        path = _short(Path(os.path.realpath(file.parent / spec.topology)))  # Path.resolve raises at loops
    else:
        path = _short(resource_dir("topologies") / f"{file.absolute().parent.name}.yaml")
    if not os.path.isfile(path):  # noqa: PTH113
        hint = "the path is relative to the lab file"
        finding = Finding(f"there is no topology {path}", hint, ("topology",), code="IP404")
        raise TopologyRefused((*before, *places.diagnostics([finding])))
    return load_text(_read(path), str(path))


def _diagnostics(wrong: tuple[Finding, ...], places: Places, loaded: Loaded) -> Iterator[Diagnostic]:
    """Yield findings as diagnostics: most are about the lab file, some about its topology."""
    yield from places.diagnostics(finding for finding in wrong if not finding.in_topology)
    source = loaded.source
    for finding in wrong:
        if finding.in_topology:
            place = source.locate(finding.where)
            yield Diagnostic(Severity.ERROR, finding.code, finding.summary, finding.hint, source.file, *place)
