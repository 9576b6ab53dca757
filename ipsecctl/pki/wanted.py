"""Which certificates a topology wants, at which gateways, and where they lie."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ipsecctl.errors import PkiError
from ipsecctl.topology import Credential, Gateway, SecretKind, SecretRef, Topology

__all__ = ["Wanted", "chosen", "wanted"]


@dataclass(frozen=True, order=True, slots=True)
class Wanted:
    """A certificate that a gateway shows: for whom, and the places as the topology names them.

    Paths are relative to the topology file's directory. ``anchor`` is the root that peers trust, ``chain``
    the CA between, empty where the root issues.
    """

    gateway: str
    site: str
    identity: str
    certificate: str
    key: SecretRef
    anchor: str
    chain: str = ""


def wanted(topology: Topology) -> tuple[Wanted, ...]:
    """Return the certificates of all managed ends, each once, sorted by gateway and path."""
    return tuple(sorted(set(_all(topology))))


def _all(topology: Topology) -> Iterator[Wanted]:
    for tunnel in topology.tunnels:
        for end in (tunnel.left, tunnel.right):
            gateway, credential = end.gateway, end.credential
            if gateway.managed and credential.certificate and credential.key is not None:
                yield _one(gateway, credential, credential.key)


def _one(gateway: Gateway, credential: Credential, key: SecretRef) -> Wanted:
    return Wanted(
        gateway=gateway.name,
        site=gateway.site,
        identity=gateway.identity,
        certificate=credential.certificate,
        key=key,
        anchor=credential.ca,
        chain=credential.chain,
    )


def chosen(topology: Topology, names: Collection[str]) -> tuple[Wanted, ...]:
    """Return the certificates of gateways and sites by name, of all without names.

    Raises ``PkiError`` for a name that is neither, and for one that shows no certificate.
    """
    every = wanted(topology)
    if not every:
        hint = "give tunnels a credential with 'certificate', 'key' and 'ca'"
        raise PkiError(f"no managed end of a tunnel in {topology.file} shows a certificate", hint)
    if not names:
        return every
    known = {site.name for site in topology.sites} | {gateway.name for gateway in topology.gateways()}
    for name in names:
        if name not in known:
            raise PkiError(
                f"{topology.file} has no site and no gateway {name!r}", f"it has {_listed(sorted(known))}"
            )
        if not any(name in (one.gateway, one.site) for one in every):
            hint = "it is joined by PSKs, or not managed"
            raise PkiError(f"{name!r} shows no certificate in {topology.file}", hint)
    return tuple(one for one in every if one.gateway in names or one.site in names)


def _listed(names: list[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def is_written(key: SecretRef) -> bool:
    """Whether a key can be put where a topology says: a file, in plain or encrypted with age."""
    return key.kind in (SecretKind.FILE, SecretKind.AGE)
