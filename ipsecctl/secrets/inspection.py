"""Checking every credential that a topology refers to: the findings IP301 to IP329."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ipsecctl.errors import Diagnostic, Severity, worst_first
from ipsecctl.resources import resource_dir
from ipsecctl.secrets import certificates
from ipsecctl.secrets.certificates import CertificateProblem, Fault
from ipsecctl.secrets.reading import Examined, SecretProblem, examine, examine_all
from ipsecctl.secrets.strength import STRONG_BITS, WEAK_BITS, guess_bits

if TYPE_CHECKING:
    from ipsecctl.secrets.secret import Secret
    from ipsecctl.topology import Credential, End, SecretRef, Topology, Tunnel
    from ipsecctl.topology.model import Path as DocumentPath

__all__ = ["inspect", "unusable_psks"]

_SHOWN: Final = 3
_PPK_BITS: Final = 240  # the estimate of 256 random bits may be some bits low
_UNASKED: Final = Examined(None)
_STRONGER: Final = "make one with 'ipsecctl secret generate', and give it to both ends"


@dataclass(frozen=True, slots=True)
class _Finding:
    """A finding that can be told with others of its kind: ``what`` is the same, ``subject`` differs."""

    severity: Severity
    code: str
    where: DocumentPath
    what: str
    hint: str
    subject: str


def inspect(
    topology: Topology,
    base: Path,
    locate: Callable[[DocumentPath], tuple[int, int]],
    *,
    now: datetime | None = None,
    also: Iterable[Credential] = (),
    resolve: bool = False,
) -> tuple[Diagnostic, ...]:
    """Check the PSKs, certificates and keys of a topology; return the findings, worst first.

    ``base`` is the directory of the topology file, ``locate`` gives line and column of a path in the
    document, ``now`` (default: the clock) decides what has expired. Findings of one kind at one place are
    told together. Of an end that is not managed only the CA is checked. ``also`` are PSKs of no tunnel: they
    may be missing, as whether they are wanted is not known. Vault is asked, and commands are run, only with
    ``resolve``; without it a remark (IP307) says which secrets were not looked at.
    """
    inspection = _Inspection(topology, base, now or datetime.now(UTC), resolve=resolve)
    return _told([*inspection.findings(), *inspection.psks_of_no_tunnel(also)], topology, locate)


def unusable_psks(
    topology: Topology, base: Path, locate: Callable[[DocumentPath], tuple[int, int]]
) -> tuple[Diagnostic, ...]:
    """Return what ``inspect`` says of PSK files out of which no PSK can be had, worst first."""
    inspection = _Inspection(topology, base, datetime.now(UTC))
    return _told(inspection.unusable_psks(), topology, locate)


def _told(
    findings: Iterable[_Finding], topology: Topology, locate: Callable[[DocumentPath], tuple[int, int]]
) -> tuple[Diagnostic, ...]:
    groups: dict[tuple[Severity, str, DocumentPath, str, str], list[str]] = defaultdict(list)
    for finding in findings:
        key = (finding.severity, finding.code, finding.where, finding.what, finding.hint)
        groups[key].append(finding.subject)
    return worst_first(
        Diagnostic(severity, code, f"{what}: {_some(subjects)}", hint, topology.file, *locate(where))
        for (severity, code, where, what, hint), subjects in groups.items()
    )


def _some(subjects: list[str]) -> str:
    """Return the first few of many names, sorted."""
    names = sorted(set(subjects))
    rest = len(names) - _SHOWN
    return ", ".join(names) if rest <= 1 else f"{', '.join(names[:_SHOWN])} and {rest} more"


class _Inspection:
    """One walk over a topology; reads every file once."""

    def __init__(self, topology: Topology, base: Path, now: datetime, *, resolve: bool = False) -> None:
        self._topology = topology
        self._base = base
        self._now = now
        self._secrets: dict[SecretRef, Examined] = {}
        self._resolve = resolve
        self._file = "FILE" if topology.file == "-" else shlex.quote(topology.file)
        self._making = _making(topology)

    def findings(self) -> Iterator[_Finding]:
        if self._resolve:
            self._secrets |= examine_all(_remote(self._topology), self._base)
        yield from self._psks()
        yield from self._ppks()
        ends = [end for tunnel in self._topology.tunnels for end in (tunnel.left, tunnel.right)]
        ends = [end for end in ends if not end.credential.is_psk]
        managed = [end for end in ends if end.gateway.managed and end.credential.certificate]
        for end in {(end.gateway.name, end.credential): end for end in managed}.values():
            yield from self._certificate(end)
        for ca in {end.credential.ca: end.credential for end in ends if end.credential.ca}.values():
            yield from self._faults(certificates.faults_of_ca(ca.ca, self._base, self._now), ca, "ca")
        between = [end.credential for end in ends if end.credential.chain]
        for ca in {(credential.chain, credential.ca): credential for credential in between}.values():
            checks = certificates.faults_of_ca(ca.chain, self._base, self._now, above=ca.ca)
            yield from self._faults(checks, ca, "chain")
        for ref, found in self._secrets.items():
            if found is _UNASKED:
                hint = f"'ipsecctl validate --resolve {self._file}' asks Vault and runs the commands"
                yield _Finding(Severity.INFO, "IP307", ref.where, "not looked at", hint, str(ref))

    def psks_of_no_tunnel(self, credentials: Iterable[Credential]) -> Iterator[_Finding]:
        """Yield what is wrong with PSKs that lie there, whoever they are for."""
        for ref in dict.fromkeys(c.psk for c in credentials if c.psk is not None):
            found = self._look(ref)
            for problem in found.problems:
                if problem.code != "IP301":
                    yield self._problem_of_psk(problem, ref)
            if found.secret is not None:
                yield from _weaknesses(ref, found.secret, [])

    def unusable_psks(self) -> Iterator[_Finding]:
        """Yield why no PSK can be had out of a file that a managed end refers to."""
        ends = [end for tunnel in self._topology.tunnels for end in (tunnel.left, tunnel.right)]
        refs = dict.fromkeys(end.credential.psk for end in ends if end.gateway.managed)
        for ref in (*refs, *_ppks(self._topology)):
            if ref is not None and ref.kind.value == "file":
                found = self._look(ref)
                if found.secret is None:
                    yield from (self._problem_of_psk(problem, ref) for problem in found.problems)

    def _look(self, ref: SecretRef) -> Examined:
        if ref not in self._secrets:
            unasked = ref.is_remote and not self._resolve
            self._secrets[ref] = _UNASKED if unasked else examine(ref, self._base)
        return self._secrets[ref]

    def _problem(self, problem: SecretProblem | CertificateProblem, where: DocumentPath) -> _Finding:
        """Return the finding for what cannot be had: a file that a lab would make can be made by it."""
        missing = problem.code in {"IP301", "IP320"} and problem.is_missing
        hint = self._making if self._making and missing else problem.hint
        return _Finding(Severity.ERROR, problem.code, where, problem.what, hint, problem.subject)

    def _problem_of_psk(self, problem: SecretProblem, ref: SecretRef) -> _Finding:
        """Return the finding for a PSK that cannot be had: one that is not there can be made."""
        finding = self._problem(problem, ref.where)
        if problem.is_missing and ref.kind.value == "file":
            hint = f"make it with 'ipsecctl secret generate {self._file}', or put it there"
            return replace(finding, hint=hint)
        return finding

    def _psks(self) -> Iterator[_Finding]:
        uses: dict[SecretRef, list[Tunnel]] = defaultdict(list)
        for tunnel in self._topology.tunnels:
            managed = [end.credential.psk for end in (tunnel.left, tunnel.right) if end.gateway.managed]
            refs = dict.fromkeys(ref for ref in managed if ref is not None)
            for ref in refs:
                uses[ref].append(tunnel)
            yield from self._psks_agree(tunnel, list(refs))
        for ref, tunnels in uses.items():
            found = self._look(ref)
            for problem in found.problems:
                yield self._problem_of_psk(problem, ref)
            if found.secret is not None:
                yield from _weaknesses(ref, found.secret, tunnels)
        yield from self._shared(uses)

    def _ppks(self) -> Iterator[_Finding]:
        """Yield what is wrong with PPKs: one that can be guessed protects nothing (RFC 8784 section 6)."""
        psks = {found.secret for found in self._secrets.values() if found.secret is not None}
        for ref, tunnels in _ppks(self._topology).items():
            is_psk = ref in self._secrets
            found = self._look(ref)
            for problem in found.problems:
                yield self._problem_of_psk(problem, ref)
            if found.secret is None:
                continue
            weak = list(_weaknesses(ref, found.secret, tunnels))
            yield from (replace(each, what=each.what.replace("PSK", "PPK")) for each in weak)
            bits = guess_bits(bytes(found.secret).decode("utf-8", "replace"))
            if not weak and bits < _PPK_BITS:
                what, subject = "PPK of less than 256 bits (RFC 8784 section 6)", f"{ref} (about {bits} bits)"
                yield _Finding(Severity.WARNING, "IP315", ref.where, what, _STRONGER, subject)
            if is_psk or found.secret in psks:
                what, hint = "a PPK that is a PSK, too", f"make another with 'secret generate {self._file}'"
                yield _Finding(Severity.WARNING, "IP316", ref.where, what, hint, str(ref))

    def _psks_agree(self, tunnel: Tunnel, refs: list[SecretRef]) -> Iterator[_Finding]:
        found = {secret for ref in refs if (secret := self._look(ref).secret) is not None}
        if len(found) > 1:
            subject = f"{tunnel.name} ({' and '.join(map(str, refs))})"
            hint = "both ends of a tunnel need the same PSK"
            yield _Finding(
                Severity.ERROR, "IP314", refs[0].where, "different PSKs at the two ends", hint, subject
            )

    def _shared(self, uses: dict[SecretRef, list[Tunnel]]) -> Iterator[_Finding]:
        """Yield the PSKs that several tunnels have in common, be it by reference or by content."""
        sharers: dict[Secret, list[tuple[SecretRef, Tunnel]]] = defaultdict(list)
        for ref, tunnels in uses.items():
            secret = self._look(ref).secret
            if secret is not None:
                sharers[secret] += [(ref, tunnel) for tunnel in tunnels]
        for pairs in sharers.values():
            names = sorted({tunnel.name for _, tunnel in pairs})
            if len(names) > 1:
                hint = (
                    "give each tunnel its own: '{tunnel}' in the path, then "
                    f"'ipsecctl secret generate {self._file}'"
                )
                what, where = f"one PSK for {len(names)} tunnels", pairs[0][0].where
                yield _Finding(Severity.WARNING, "IP312", where, what, hint, _some(names))

    def _certificate(self, end: End) -> Iterator[_Finding]:
        credential, gateway = end.credential, end.gateway
        path, base = credential.certificate, self._base
        checks = certificates.faults_of_certificate(
            path, base, credential.ca, gateway.identity, self._now, chain=credential.chain
        )
        yield from self._faults(checks, credential, "certificate")
        if credential.key is None:
            return
        key = self._look(credential.key)
        for problem in key.problems:
            yield self._problem(problem, credential.key.where)
        if key.secret is not None:
            checks = certificates.faults_of_key(key.secret, str(credential.key), path, base)
            yield from self._faults(checks, credential, "key")

    def _faults(self, faults: Iterator[Fault], credential: Credential, key: str) -> Iterator[_Finding]:
        """Turn faults into findings at ``key`` of the credential; what cannot be read is one, too."""
        try:
            for fault in faults:
                where = (*credential.where, key)
                yield _Finding(fault.severity, fault.code, where, fault.what, fault.hint, fault.subject)
        except CertificateProblem as problem:
            places = {credential.ca: "ca", credential.chain: "chain"}
            at = places.get(problem.subject, "certificate")
            yield self._problem(problem, (*credential.where, at))


def _ppks(topology: Topology) -> dict[SecretRef, list[Tunnel]]:
    """Return the PPKs of tunnels with an end that is ours, and the tunnels of each."""
    found: dict[SecretRef, list[Tunnel]] = defaultdict(list)
    for tunnel in topology.tunnels:
        if tunnel.ppk is not None and (tunnel.left.gateway.managed or tunnel.right.gateway.managed):
            found[tunnel.ppk.secret].append(tunnel)
    return found


def _remote(topology: Topology) -> Iterator[SecretRef]:
    """Yield the references of managed ends that something is asked or run for."""
    for tunnel in topology.tunnels:
        for end in (tunnel.left, tunnel.right):
            refs = (end.credential.psk, end.credential.key) if end.gateway.managed else ()
            yield from (ref for ref in refs if ref is not None and ref.is_remote)
    yield from (ref for ref in _ppks(topology) if ref.is_remote)


def _making(topology: Topology) -> str:
    """Return how to make the certificates of an example where ipsecctl keeps it, else ``""``."""
    file = Path(topology.file)
    if file.parent.resolve() != resource_dir("topologies").resolve():
        return ""
    return f"its lab makes it: 'ipsecctl lab up {file.stem}'"


def _weaknesses(ref: SecretRef, secret: Secret, tunnels: list[Tunnel]) -> Iterator[_Finding]:
    psk = bytes(secret).decode("utf-8", "replace")
    names = [name for t in tunnels for name in (t.name, t.left.site, t.right.site)]
    bits = guess_bits(psk, names)
    if bits < STRONG_BITS:
        severity, code, what = (
            (Severity.ERROR, "IP310", "PSK that can be guessed")
            if bits < WEAK_BITS
            else (Severity.WARNING, "IP311", "PSK weaker than the keys it protects")
        )
        yield _Finding(severity, code, ref.where, what, _STRONGER, f"{ref} (about {bits} bits)")
    if psk != psk.strip():
        hint = "remove it, unless the other end has it, too"
        yield _Finding(Severity.WARNING, "IP313", ref.where, "PSK with a space at an end", hint, str(ref))
