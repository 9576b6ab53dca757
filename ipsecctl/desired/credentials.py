"""Credentials as files and keys of one gateway, under names that stay the same from run to run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from ipsecctl.desired.state import Authentication, AuthMethod, CertificateFile, KeyKind, PrivateKey, SharedKey
from ipsecctl.topology import Credential, End, SecretRef, Tunnel

__all__ = ["GatewayCredentials", "gateway_credentials", "ppk_of", "shared_key"]

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class GatewayCredentials:
    """Where the certificates that one gateway needs lie on it: paths below /etc/swanctl.

    ``own`` is by certificate and key as the topology names them, ``trusted`` by CA file: the roots, and the
    CAs between them and a certificate. A peer is accepted by its root: charon takes no other as an anchor.
    """

    own: dict[tuple[str, SecretRef | None], str]
    trusted: dict[str, str]

    def local(self, end: End) -> Authentication:
        """Return how this gateway proves who it is."""
        credential, identity = end.credential, end.gateway.identity
        if credential.is_psk:
            return Authentication(AuthMethod.PSK, identity)
        certificate = self.own[credential.certificate, credential.key]
        return Authentication(AuthMethod.PUBKEY, identity, certificate=f"x509/{certificate}")

    def remote(self, end: End) -> Authentication:
        """Return how the peer must prove who it is."""
        credential, identity = end.credential, end.gateway.identity
        if credential.is_psk:
            return Authentication(AuthMethod.PSK, identity)
        return Authentication(AuthMethod.PUBKEY, identity, ca=f"x509ca/{self.trusted[credential.ca]}")

    def certificate_files(self) -> tuple[CertificateFile, ...]:
        """Return the certificates to install, sorted by target."""
        own = [CertificateFile(f"x509/{name}", source, ca=False) for (source, _), name in self.own.items()]
        trusted = [
            CertificateFile(f"x509ca/{name}", source, ca=True) for source, name in self.trusted.items()
        ]
        return tuple(sorted(own + trusted))

    def private_keys(self) -> tuple[PrivateKey, ...]:
        """Return the private keys to install, sorted by target."""
        return tuple(
            sorted(
                PrivateKey(f"private/{name}", key) for (_, key), name in self.own.items() if key is not None
            )
        )


def gateway_credentials(
    gateway: str, mine: Iterable[Credential], theirs: Iterable[Credential]
) -> GatewayCredentials:
    """Name the files of one gateway: its own certificates and keys, and the CAs of its peers.

    The CA between its own certificate and its root is one of them: charon sends it along.

    The usual names are ``ipsecctl-GATEWAY.pem`` and ``ipsecctl-FILE.pem`` (the CA file's name); where two
    files would bear one name, the later in the order of their paths are numbered.
    """
    mine, theirs = tuple(mine), tuple(theirs)
    own = sorted({(credential.certificate, credential.key) for credential in mine if not credential.is_psk})
    between = {credential.chain for credential in (*mine, *theirs) if credential.chain}
    trusted = sorted({credential.ca for credential in theirs if not credential.is_psk} | between)
    own_names = _names(gateway for _ in own)
    trusted_names = _names(PurePosixPath(ca).stem for ca in trusted)
    return GatewayCredentials(
        own=dict(zip(own, own_names, strict=True)), trusted=dict(zip(trusted, trusted_names, strict=True))
    )


def shared_key(tunnel: str, here: End, there: End) -> SharedKey | None:
    """Return the PSK of a tunnel, owned by both identities, ``None`` when neither end has one."""
    secret = here.credential.psk or there.credential.psk
    if secret is None:
        return None
    owners = dict.fromkeys((here.gateway.identity, there.gateway.identity))
    return SharedKey(tunnel, tuple(owners), secret)


def ppk_of(tunnel: Tunnel) -> SharedKey | None:
    """Return the PPK of a tunnel, which charon finds by its id (RFC 8784 section 5.1)."""
    ppk = tunnel.ppk
    return None if ppk is None else SharedKey(tunnel.name, (ppk.id,), ppk.secret, KeyKind.PPK)


def _names(stems: Iterable[str]) -> list[str]:
    taken: set[str] = set()
    names = []
    for stem in stems:
        base = f"ipsecctl-{_UNSAFE.sub('-', stem)}"
        name, number = f"{base}.pem", 2
        while name in taken:
            name, number = f"{base}-{number}.pem", number + 1
        taken.add(name)
        names.append(name)
    return names
