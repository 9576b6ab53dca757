"""Where the store is: a file by default, a PostgreSQL server by URL; named without its password."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ipsecctl.errors import StoreUnusable

__all__ = ["VARIABLE", "Location", "forget", "lab_location", "location", "state_dir"]

VARIABLE = "IPSECCTL_STORE"

_SYSTEM_DIR = Path("/var/lib/ipsecctl")
_SCHEMES = ("postgresql", "postgres")
_SECRET_PARAMETERS = re.compile(r"([?&](?:password|sslpassword)=)[^&#]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Location:
    """A store: the ``file`` of an SQLite database, or the ``url`` of a PostgreSQL one.

    ``str()`` is what may be shown: no password is in it, and none in ``repr``.
    """

    file: Path | None = None
    url: str = field(default="", repr=False)

    def __str__(self) -> str:
        return str(self.file) if self.file else _without_password(self.url)

    @property
    def has_password(self) -> bool:
        return bool(self.url) and str(self) != self.url

    def scrub(self, text: str) -> str:
        """Return ``text`` with the URL's password, wherever it stands in it, as three stars."""
        for secret in _secrets(self.url):
            text = text.replace(secret, "***")
        return text


def location(said: str | None, environment: Mapping[str, str], *, root: bool) -> Location:
    """Return the store that was asked for: by option, else by ``IPSECCTL_STORE``, else the default one.

    A ``postgresql://`` URL, an ``sqlite:///`` URL, or the path of a file. The default is
    ``$XDG_STATE_HOME/ipsecctl/history.db``; for root without that variable
    ``/var/lib/ipsecctl/history.db``, so that all who use sudo have one. Raises ``StoreUnusable``.
    """
    text = said or environment.get(VARIABLE, "").strip()
    if not text:
        return Location(state_dir(environment, root=root) / "history.db")
    scheme, colon, rest = text.partition("://")
    if not colon:
        return Location(Path(text).expanduser().absolute())
    if scheme in _SCHEMES:
        return Location(url=text)
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return Location(Path(unquote(rest)))
    raise StoreUnusable(
        f"'{scheme}://' is not the URL of a store",
        "It is postgresql://USER@HOST/DATABASE, sqlite:///PATH, or the path of a file.",
    )


def lab_location(lab: str, environment: Mapping[str, str], *, root: bool) -> Location:
    """Return the store of a lab: its own, so that experiments are not among what was done to gateways."""
    return Location(state_dir(environment, root=root) / "labs" / f"{quote(lab, safe='')}.db")


def forget(where: Location) -> None:
    """Remove a store that is a file, if it is there."""
    if where.file is not None:
        for suffix in ("", "-wal", "-shm"):
            where.file.with_name(where.file.name + suffix).unlink(missing_ok=True)


def state_dir(environment: Mapping[str, str], *, root: bool) -> Path:
    """Return the XDG Base Directory for state, of ours (relative paths in it are invalid and ignored)."""
    said = environment.get("XDG_STATE_HOME", "")
    if os.path.isabs(said):  # noqa: PTH117 - an empty text is no path
        return Path(said) / "ipsecctl"
    if root:
        return _SYSTEM_DIR
    home = environment.get("HOME", "")
    if not home:
        raise StoreUnusable(
            "HOME is not set, so the default store has no place",
            f"Say where the history is to be kept: --store FILE, or {VARIABLE}.",
        )
    return Path(home) / ".local/state/ipsecctl"


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    end = re.search(r"[/?#]", rest)
    authority, tail = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    # A '/', '?' or '#' in a password should be escaped; where it is not, all up to the last '@' is hidden.
    if "@" in tail and "@" not in authority:
        authority, tail = f"{rest.rpartition('@')[0]}@", rest.rpartition("@")[2]
    user, at, hosts = authority.rpartition("@")
    shown = f"{user.partition(':')[0]}{at}{hosts}"
    hidden = _SECRET_PARAMETERS.sub(r"\1***", tail)
    return f"{scheme}://{shown}{hidden}"


def _secrets(url: str) -> list[str]:
    """Return the ways in which a URL's passwords may be written, the longest first."""
    found = {match[0].partition("=")[2] for match in _SECRET_PARAMETERS.finditer(url)}
    rest = url.partition("://")[2]
    found.add(rest.rpartition("@")[0].partition(":")[2])
    with suppress(ValueError):  # a wrong port or bracket: what counts is found above
        found.add(urlsplit(url).password or "")
    found |= {unquote(secret) for secret in found}
    return sorted((secret for secret in found if secret), key=len, reverse=True)
