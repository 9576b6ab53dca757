"""Every reference to a secret of a topology: where it leads, how strong, who uses it; never the text."""

from __future__ import annotations

import hmac
import os
import secrets
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets.reading import Examined, examine_all
from ipsecctl.secrets.strength import guess_bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ipsecctl.topology import SecretRef, Topology

__all__ = ["Listed", "fingerprint_key", "list_secrets"]

_KEY_BYTES: Final = 32
_SHOWN_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Listed:
    """A reference and what came of it.

    ``use`` is ``psk``, ``ppk`` or ``key``; ``fingerprint`` (HMAC-SHA-256, 64 bits of it in hexadecimal
    digits) and ``bits`` (the estimated strength of a PSK or PPK) are ``None`` where there is none;
    ``problem`` says why. ``asked`` is false where something would have to be asked or run for it. ``tunnels``
    are sorted.
    """

    reference: SecretRef
    use: str
    tunnels: tuple[str, ...]
    asked: bool
    fingerprint: str | None = None
    bits: int | None = None
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "reference": str(self.reference),
            "source": str(self.reference.kind),
            "use": self.use,
            "asked": self.asked,
            "fingerprint": self.fingerprint,
            "strength_bits": self.bits,
            "problem": self.problem,
            "tunnels": list(self.tunnels),
        }


def list_secrets(topology: Topology, base: Path, key: bytes, *, resolve: bool = False) -> tuple[Listed, ...]:
    """Return the references of a topology's managed ends, sorted; paths are relative to ``base``.

    ``key`` is that of the fingerprints: equal secrets have equal ones under one key, and who does not have it
    cannot try guesses against them. Vault is asked, and commands are run, only with ``resolve``.
    """
    uses: dict[tuple[SecretRef, str], set[str]] = defaultdict(set)
    for use, ref, tunnel in _references(topology):
        uses[ref, use].add(tunnel)
    wanted = {ref for ref, _ in uses if resolve or not ref.is_remote}
    examined = examine_all(wanted, base)
    return tuple(
        _listed(ref, use, tuple(sorted(tunnels)), examined.get(ref), key)
        for (ref, use), tunnels in sorted(uses.items(), key=lambda item: item[0])
    )


def _references(topology: Topology) -> Iterator[tuple[str, SecretRef, str]]:
    for tunnel in topology.tunnels:
        managed = [end for end in (tunnel.left, tunnel.right) if end.gateway.managed]
        for end in managed:
            for use, ref in (("psk", end.credential.psk), ("key", end.credential.key)):
                if ref is not None:
                    yield use, ref, tunnel.name
        if managed and tunnel.ppk is not None:
            yield "ppk", tunnel.ppk.secret, tunnel.name


def _listed(ref: SecretRef, use: str, tunnels: tuple[str, ...], found: Examined | None, key: bytes) -> Listed:
    if found is None:
        return Listed(ref, use, tunnels, asked=False)
    problem = "; ".join(_unique(each.what for each in found.problems))
    if found.secret is None:
        return Listed(ref, use, tunnels, asked=True, problem=problem)
    content = bytes(found.secret)
    fingerprint = hmac.digest(key, content, "sha256").hex()[:_SHOWN_DIGITS]
    bits = None if use == "key" else guess_bits(content.decode("utf-8", "replace"), tunnels)
    return Listed(ref, use, tunnels, True, fingerprint, bits, problem)


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def fingerprint_key(path: Path) -> bytes:
    """Return the key of fingerprints that is kept in a file, made when it is not there (mode 0600).

    Raises ``SecretUnavailable`` when it can be neither read nor made, or is not one.
    """
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                with suppress(FileExistsError):  # another made it meanwhile
                    os.link(temporary, path)
            finally:
                temporary.unlink()
        if path.stat().st_mode & 0o077:
            hint = "remove it: another is made, and fingerprints differ from those of before"
            raise SecretUnavailable(f"the key of fingerprints is not private: {path}", hint)
        key = path.read_bytes()
    except OSError as error:
        hint = "make its folder writable, or set XDG_STATE_HOME to one that is"
        raise SecretUnavailable(f"no key of fingerprints: {path}: {error.strerror}", hint) from error
    if len(key) != _KEY_BYTES:
        raise SecretUnavailable(f"not a key of fingerprints: {path}", "remove it: another is made")
    return key
