"""From the text of a topology file to the checked model: the passes, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ipsecctl.collecting import without_collecting
from ipsecctl.crypto import DEFAULT_PROFILE
from ipsecctl.errors import Diagnostic
from ipsecctl.topology._checks import check_tunnels, report_unused_sites
from ipsecctl.topology._credentials import Credentials
from ipsecctl.topology._findings import Findings
from ipsecctl.topology._flows import add_flows
from ipsecctl.topology._interfaces import check_interfaces
from ipsecctl.topology._overlaps import check_overlaps
from ipsecctl.topology._profiles import Profiles
from ipsecctl.topology._route_mode import check_inside, check_modes
from ipsecctl.topology._routing import check_shadows, settle_routes
from ipsecctl.topology._sites import make_sites
from ipsecctl.topology._tunnels import expand_groups
from ipsecctl.topology._twins import check_twins
from ipsecctl.topology._validate import validate
from ipsecctl.topology._yaml import Source, read_yaml
from ipsecctl.topology.document import Document
from ipsecctl.topology.model import Credential, Path, Topology

__all__ = ["Loaded", "load_bytes", "load_text"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of a topology file.

    ``topology`` is ``None`` exactly when a diagnostic is an error. ``known`` is what is known of it even
    then: the tunnels with those credentials that are right, so that these can be looked at, too; nothing else
    in it can be relied on. ``unplaced`` are the PSKs of a file with errors that came to no tunnel, perhaps
    for these. ``diagnostics`` holds every finding, worst first. ``source`` finds the line and column of
    whatever the topology says ``where`` of.
    """

    topology: Topology | None
    diagnostics: tuple[Diagnostic, ...]
    source: Source
    known: Topology | None = None
    unplaced: tuple[Credential, ...] = ()


def load_text(text: str, file: str) -> Loaded:
    """Read a topology; ``file`` is its name for findings. Never raises, whatever the text is."""
    with without_collecting():
        return _load(text, file)


def _load(text: str, file: str) -> Loaded:
    reading = read_yaml(text, file)
    findings = Findings(reading.source)
    for problem in reading.problems:
        findings.at(problem.code, problem.line, problem.column, problem.summary, problem.hint)
    known: Topology | None = None
    unplaced: tuple[Credential, ...] = ()
    if reading.readable:
        document = validate(reading, findings)
        if document is not None:
            if not document.sites and not reading.problems and not findings.damaged(("sites",)):
                findings.error("IP012", ("sites",), "there are no sites", "write at least two below 'sites:'")
            known, unplaced = _build(document, file, findings)
    topology = None if findings.has_errors else known
    return Loaded(topology, findings.sorted(), reading.source, known, unplaced)


def load_bytes(data: bytes, file: str) -> Loaded:
    """Read a topology from the bytes of its file: UTF-8, with or without a byte order mark."""
    try:
        return load_text(data.decode("utf-8"), file)
    except UnicodeDecodeError as error:
        source = Source(file)
        findings = Findings(source)
        if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
            findings.at("IP001", 1, 1, "this is UTF-32, not UTF-8 text", "save the file as UTF-8")
        elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
            findings.at("IP001", 1, 1, "this is UTF-16, not UTF-8 text", "save the file as UTF-8")
        else:
            before = data[: error.start]
            line = before.count(b"\n") + 1
            column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
            summary = f"the byte 0x{data[error.start]:02X} is not UTF-8 text"
            findings.at("IP001", line, column, summary, "save the file as UTF-8")
        return Loaded(None, findings.sorted(), source)


def _build(document: Document, file: str, findings: Findings) -> tuple[Topology, tuple[Credential, ...]]:
    """Work out what the document means and check it; with errors only what is known of it all the same.

    Returns with it the PSKs that errors may have kept from their tunnels.
    """
    profiles = Profiles(document.profiles, findings)
    sites = make_sites(document, findings)
    credentials = Credentials(document, findings)
    groups = expand_groups(document, sites, profiles, credentials, findings)
    for name, path in _profile_names(document):
        profiles.check_name(name, path)
    for group in groups:
        add_flows(group, sites, findings)
    settle_routes(groups, findings)
    check_tunnels(groups, findings)
    check_inside(sites, findings)
    check_modes(groups, findings)
    drafts = [draft for group in groups for draft in group.drafts]
    check_overlaps(drafts, sites, findings)
    check_twins(groups, findings)
    check_interfaces(drafts, sites, findings)
    check_shadows(drafts, findings)
    if not findings.has_errors:
        # What a wrong tunnel would have used is not unused.
        report_unused_sites(groups, sites, findings)
        profiles.report_unused()
        credentials.report_unused()
    topology = Topology(
        name=document.name,
        file=file,
        sites=tuple(sites.by_name[name] for name in sorted(sites.by_name)),
        tunnels=tuple(
            draft.known() if findings.has_errors else draft.finished()
            for draft in sorted(drafts, key=lambda d: d.name)
        ),
    )
    return topology, credentials.unplaced() if findings.has_errors else ()


def _profile_names(document: Document) -> Iterator[tuple[str, Path]]:
    """Yield every use of a profile, also those at places that come to no tunnel."""
    yield document.defaults.profile or DEFAULT_PROFILE, ("defaults", "profile")
    for site, doc in document.sites.items():
        yield doc.profile or DEFAULT_PROFILE, ("sites", site, "profile")
    for group, tunnel in document.tunnels.items():
        yield tunnel.profile or DEFAULT_PROFILE, ("tunnels", group, "profile")
