"""Which credential holds at an end of a tunnel, with its placeholders filled in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from typing import Final

from ipsecctl.topology._findings import Findings, listed
from ipsecctl.topology.document import CredentialDoc, Document, TunnelDoc
from ipsecctl.topology.model import Credential, Gateway, Path, Ppk, SecretKind, SecretRef, VaultServer

__all__ = ["Credentials"]

_KEYS: Final = ("psk", "certificate", "key", "chain", "ca")
_PLACEHOLDERS: Final = ("tunnel", "gateway", "site")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")


class Credentials:
    """Finds credentials by the order of precedence: the tunnel's, the site's, the default."""

    def __init__(self, document: Document, findings: Findings) -> None:
        self._document = document
        self._findings = findings
        self._vault = self._server()
        self._used: set[str] = set()
        self._ppks: dict[str, Ppk] = {}
        self._wrong: set[Path] = set()
        self._placeholders: dict[Path, list[str]] = {}
        self._homes: dict[Path, CredentialDoc] = {
            ("credentials", name): doc for name, doc in document.credentials.items()
        }
        self._made: dict[tuple[Path | str, ...], Credential] = {}
        inline: list[tuple[CredentialDoc | str, Path]] = [
            (document.defaults.credential, ("defaults", "credential"))
        ]
        inline += [(doc.credential, ("sites", name, "credential")) for name, doc in document.sites.items()]
        inline += [
            (doc.credential, ("tunnels", name, "credential")) for name, doc in document.tunnels.items()
        ]
        for use, path in inline:
            if isinstance(use, CredentialDoc):
                self._homes[path] = use
            elif use:
                self._check_name(use, path)
        for home, doc in self._homes.items():
            self._check_placeholders(doc, home)

    def _server(self) -> VaultServer:
        doc = self._document.vault
        token = self.secret(doc.token, {}, ("vault", "token"))
        return VaultServer(doc.address, doc.mount, doc.namespace, doc.ca, token, doc.timeout)

    def at(
        self, group: str, tunnel_doc: TunnelDoc, gateway: Gateway, tunnel: str
    ) -> tuple[Credential | None, Path]:
        """Return the credential of a gateway in a tunnel (``None`` when wrong), and where it is chosen."""
        choices: tuple[tuple[CredentialDoc | str, Path], ...] = (
            (tunnel_doc.credential, ("tunnels", group, "credential")),
            (self._document.sites[gateway.site].credential, ("sites", gateway.site, "credential")),
            (self._document.defaults.credential, ("defaults", "credential")),
        )
        for use, path in choices:
            if use:
                return self._resolve(use, path, gateway, tunnel), path
            if self._findings.damaged(path):
                return None, path
        where: Path = ("tunnels", group)
        if self._findings.first("no credential", group):
            summary = f"no credential for {gateway.name!r} in the tunnel {tunnel!r}"
            self._findings.error(
                "IP160", where, summary, "add 'credential:' to 'defaults', to the site or to the tunnel"
            )
        return None, where

    def ppk(self, group: str, doc: TunnelDoc, tunnel: str) -> Ppk | None:
        """Return the PPK of a tunnel, ``None`` when it has none, or a wrong one, which is reported."""
        path: Path = ("tunnels", group, "ppk")
        if doc.ppk is None or any(self._findings.damaged((*path, key)) for key in ("secret", "id")):
            return None
        for word in _PLACEHOLDER.findall(doc.ppk.secret):
            if word != "tunnel":
                if self._findings.first("placeholder of a PPK", group):
                    hint = "both ends have the same PPK: {tunnel} is all that may stand there"
                    self._findings.error("IP163", (*path, "secret"), f"unknown placeholder {{{word}}}", hint)
                return None
        values = {"tunnel": tunnel}
        secret = self.secret(doc.ppk.secret, values, (*path, "secret"))
        ppk = Ppk(secret, _filled(doc.ppk.id, values), doc.ppk.required) if secret is not None else None
        if ppk is not None:
            self._check_ppk(ppk, path)
        return ppk

    def _check_ppk(self, ppk: Ppk, path: Path) -> None:
        """Report an id that stands for two PPKs: charon finds a PPK by its id alone."""
        other = self._ppks.setdefault(ppk.id, ppk)
        if other.secret != ppk.secret and self._findings.first("id of a PPK", ppk.id):
            summary = f"the id {ppk.id!r} stands for two PPKs: {other.secret} and {ppk.secret}"
            self._findings.error("IP166", path, summary, "give each its own id, with {tunnel} in it")

    def words_of(self, credential: Credential) -> Collection[str]:
        """Return the placeholders that a credential was filled in with."""
        return self._placeholders[credential.where]

    def unplaced(self) -> tuple[Credential, ...]:
        """Return the PSKs that came to no tunnel: what is wrong in the file may be why."""
        placed = {credential.where for credential in self._made.values()}
        return tuple(
            Credential(psk=self.secret(doc.psk, {}, (*home, "psk")), where=home)
            for home, doc in self._homes.items()
            if doc.psk is not None and home not in placed and not _PLACEHOLDER.search(doc.psk)
        )

    def secret(self, text: str | None, values: dict[str, str], path: Path) -> SecretRef | None:
        """Return the reference that stands at ``path`` with its placeholders filled in."""
        if text is None:
            return None
        kind, _, value = text.partition(":")
        if kind == SecretKind.COMMAND:
            value = shlex.join(_filled(word, values) for word in shlex.split(value))
        server = self._vault if kind == SecretKind.VAULT else None
        return SecretRef(SecretKind(kind), _filled(value, values), path, server)

    def report_unused(self) -> None:
        for name in self._document.credentials:
            if name not in self._used:
                summary = f"the credential {name!r} is not used"
                self._findings.info("IP181", ("credentials", name), summary, "remove it", key=True)

    def _resolve(
        self, use: CredentialDoc | str, path: Path, gateway: Gateway, tunnel: str
    ) -> Credential | None:
        doc, home = use, path
        if isinstance(doc, str):
            self._used.add(doc)
            home = ("credentials", doc)
            found = self._document.credentials.get(doc)
            if found is None:
                return None
            doc = found
        # A key too many takes nothing away from those that are right.
        if home in self._wrong or any(self._findings.damaged((*home, key)) for key in _KEYS):
            return None
        if gateway.managed and doc.psk is None and not doc.certificate:
            if self._findings.first("only a CA", home):
                summary = f"{gateway.name!r} is managed and needs a certificate and its key, not only a CA"
                self._findings.error("IP165", home, summary, "add 'certificate' and 'key'")
            return None
        return self._filled_in(doc, home, {"tunnel": tunnel, "gateway": gateway.name, "site": gateway.site})

    def _filled_in(self, doc: CredentialDoc, home: Path, values: dict[str, str]) -> Credential:
        """Return the credential for these names: the same one wherever its placeholders come out the same."""
        if home not in self._placeholders:
            texts = (getattr(doc, key) or "" for key in _KEYS)
            self._placeholders[home] = sorted({word for text in texts for word in _PLACEHOLDER.findall(text)})
        key: tuple[Path | str, ...] = (home, *(values[word] for word in self._placeholders[home]))
        if key not in self._made:
            self._made[key] = Credential(
                psk=self.secret(doc.psk, values, (*home, "psk")),
                certificate=_filled(doc.certificate, values),
                key=self.secret(doc.key, values, (*home, "key")),
                ca=_filled(doc.ca, values),
                chain=_filled(doc.chain, values),
                where=home,
            )
        return self._made[key]

    def _check_name(self, name: str, path: Path) -> None:
        known = self._document.credentials
        if name not in known and not self._findings.damaged(("credentials", name)):
            hint = f"known: {listed(known)}" if known else f"add 'credentials: {{{name}: ...}}'"
            hint = self._findings.did_you_mean(name, known, hint)
            self._findings.error("IP105", path, f"there is no credential {name!r}", hint)

    def _check_placeholders(self, doc: CredentialDoc, path: Path) -> None:
        for key in _KEYS:
            text = getattr(doc, key) or ""
            for word in _PLACEHOLDER.findall(text):
                if word not in _PLACEHOLDERS:
                    hint = self._findings.did_you_mean(
                        word, _PLACEHOLDERS, "known: {tunnel}, {gateway}, {site}"
                    )
                    self._findings.error("IP163", (*path, key), f"unknown placeholder {{{word}}}", hint)
                    self._wrong.add(path)
            if alone := re.search(r"[{}]", _PLACEHOLDER.sub("", text)):
                summary = f"a {alone[0]!r} without its {'}' if alone[0] == '{' else '{'!r}"
                self._findings.error("IP163", (*path, key), summary, "write placeholders as {tunnel}")
                self._wrong.add(path)


def _filled(text: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text) if "{" in text else text
