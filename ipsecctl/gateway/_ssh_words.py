"""What went wrong on the way to a gateway by SSH, in words: the cause, and what mends it.

::

    NotReached        a cause and a hint, of no gateway yet: several may share the way
"""

from __future__ import annotations

import errno
import os
import shlex
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from ipsecctl.gateway._ssh_shell import sudoers_line

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "SSH_PORT",
    "Destination",
    "NotReached",
    "Offered",
    "changed_key",
    "key_refused",
    "late",
    "no_connection",
    "no_such_key",
    "not_root",
    "revoked_key",
    "unknown_key",
]

SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to: ``host`` may be an alias of the SSH configuration; ``None`` for what that or SSH says."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read ``[USER@]HOST[:PORT]``, as ``control`` and ``ProxyJump`` have it; IPv6 with a port in ``[]``.

        Raises ``ValueError`` for a port that is no number.
        """
        user, _, place = text.removeprefix("ssh://").rstrip("/").rpartition("@")
        try:
            return cls(str(ip_address(place)), user or None)
        except ValueError:
            pass
        host, _, port = place.rpartition(":") if ":" in place.rpartition("]")[2] else (place, "", "")
        return cls(host.strip("[]"), user or None, int(port) if port else None)

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.port and ":" in self.host else self.host
        return f"{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"


@dataclass(frozen=True, slots=True)
class Offered:
    """The host key that a server offered: as which host and port it is looked up, its kind and fingerprint.

    ``alias`` says that ``host`` is the configuration's HostKeyAlias, which is not an address to connect to.
    ``ask`` is where ssh has to go to see the same key, when that is by a jump host or ProxyCommand:
    ssh-keyscan knows no way but the straight one.
    """

    host: str
    port: int
    kind: str
    fingerprint: str
    alias: bool = False
    ask: str = ""

    @property
    def name(self) -> str:
        """The host as known_hosts has it."""
        return self.host if self.port == SSH_PORT or self.alias else f"[{self.host}]:{self.port}"


class NotReached(Exception):  # noqa: N818 - of the same kind as GatewayUnreachable, which has a gateway
    """No way to a gateway: why, and what mends it."""

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint


def no_connection(host: str, port: int, error: OSError) -> NotReached:
    """Return what it means that no TCP connection could be made."""
    where = f"{host} port {port}"
    if isinstance(error, socket.gaierror):
        return NotReached(
            f"the name '{host}' cannot be resolved",
            "Write the gateway's address into its 'control', or give the name a HostName in ~/.ssh/config.",
        )
    if _number(error) == errno.ECONNREFUSED:
        return NotReached(
            f"{where} refuses connections",
            "Is sshd running there (systemctl status ssh), and is that its port?",
        )
    if _number(error) in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT):
        return NotReached(
            f"{where} cannot be reached: {_said(error)}",
            "Is the gateway up, and is there a route to it (ping, ip route get)?",
        )
    return NotReached(f"no connection to {where}: {_said(error)}")


def _number(error: OSError) -> int:
    """Return the error's number; asyncio puts several, of the addresses of a name, into one without any."""
    if error.errno:
        return error.errno
    known = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT)
    return next((number for number in known if f"[Errno {number}]" in str(error)), 0)


def _said(error: OSError) -> str:
    number = _number(error)
    return os.strerror(number) if number else str(error) or type(error).__name__


def late(destination: str, stage: str, limit_s: float) -> NotReached:
    """Return what it means that there was no way within ``limit_s`` seconds; ``stage`` is how far it came."""
    within = f"within {limit_s:.3g} s"
    if stage == "connect":
        return NotReached(
            f"{destination} does not answer {within}",
            "Is the gateway up, and does a firewall in between let SSH through?",
        )
    if stage == "login":
        return NotReached(
            f"{destination} did not finish the login {within}",
            "Does its sshd hang on something, as a directory service that does not answer? Try: "
            f"ssh {destination}",
        )
    return NotReached(
        f"{destination} takes connections, but its SSH server says nothing {within}",
        f"Its sshd hangs, or the machine is out of memory or of processes. Try: ssh {destination}",
    )


def _offers(offered: Offered) -> str:
    return f"{offered.kind} {offered.fingerprint}"


def _look_there(offered: Offered) -> str:
    """Return how the fingerprint is seen on the gateway itself."""
    kind = offered.kind.removeprefix("ssh-").partition("-")[0]
    return f"ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub"


def _scan(offered: Offered, file: Path) -> str:
    if offered.ask:
        return f"ssh -o StrictHostKeyChecking=ask {offered.ask} true, and say yes"
    port = "" if offered.port == SSH_PORT else f"-p {offered.port} "
    return f"ssh-keyscan -t {_scan_kind(offered)} {port}{offered.host} >> {file}"


def _scan_kind(offered: Offered) -> str:
    return offered.kind.removeprefix("ssh-").partition("-")[0]


def unknown_key(offered: Offered, file: Path) -> NotReached:
    """Return what it means that no file knows the host; ``file`` is where its key would be added."""
    return NotReached(
        f"the host key of {offered.name} is not known: it offers {_offers(offered)}, {file} has none for it",
        f"On the gateway, see that it is its own: {_look_there(offered)}. Then: {_scan(offered, file)}",
    )


def changed_key(offered: Offered, file: Path, line: int, known: str) -> NotReached:
    """Return what it means that a file has another key; ``known`` is that one's fingerprint."""
    return NotReached(
        f"the host key of {offered.name} is not the one that is known: it offers {_offers(offered)}, "
        f"{file}:{line} has {known}",
        "Somebody may be in between. Only if the gateway has a new key (on it: "
        f"{_look_there(offered)}): ssh-keygen -f {file} -R {shlex.quote(offered.name)}; "
        f"{_scan(offered, file)}",
    )


def revoked_key(offered: Offered) -> NotReached:
    """Return what it means that the key is marked as revoked."""
    return NotReached(
        f"the host key of {offered.name}, {_offers(offered)}, is revoked in known_hosts",
        "Who has that key is not to be trusted. Give the gateway a new one.",
    )


def no_such_key(destination: str, why: str) -> NotReached:
    """Return what it means that the two sides have no algorithm in common."""
    return NotReached(
        f"{destination} and this host have no algorithms in common: {why}",
        "Is the host key in known_hosts of a kind that the gateway no longer has? Compare with: "
        f"ssh-keyscan {destination.rpartition('@')[2]}",
    )


def key_refused(destination: str, keys: Sequence[str]) -> NotReached:
    """Return what it means that no key was good enough; ``keys`` are those that were offered."""
    offered = f"offered were {', '.join(keys)}" if keys else "there is no key to offer"
    return NotReached(
        f"{destination} refuses the login: {offered}",
        "Is the key in the agent (ssh-add -l) or named by IdentityFile, and is it in that login's "
        "~/.ssh/authorized_keys there? Passwords and passphrases are not asked for.",
    )


def not_root(user: str, said: str) -> NotReached:
    """Return what it means that no script has run as root there; ``said`` is what was heard instead."""
    if "sudo" in said and ("not found" in said or "No such file" in said):
        return NotReached(
            f"the login {user} is not root, and there is no sudo",
            "Install sudo there, or let ipsecctl log in as root: 'control: ssh://root@...'.",
        )
    if "sudo" in said:
        return NotReached(
            f"the login {user} is not root, and may not become it: {said}",
            f"With 'visudo -f /etc/sudoers.d/ipsecctl' there, add this line: {sudoers_line(user)}",
        )
    return NotReached(
        f"the login {user} can run nothing there: {said}",
        "It needs a shell, and no forced command. Try: ssh with the command 'id'.",
    )
