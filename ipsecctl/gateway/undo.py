"""A gateway's way back: what was there before an apply, and a timer of its own that brings it back.

Before the first change everything that is ours there is copied to ``UNDO_DIR`` on the gateway, with a program
that puts it back, and a timer is started that needs nobody: systemd's, or a detached process where there is
none. Only whoever confirms in time stops it. What charon is to be sent then is made here, as there is no
Python on a gateway: requests in their frames, played to its socket one after the other.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ipsecctl.errors import ApplyFailed
from ipsecctl.gateway._ssh_shell import bridge
from ipsecctl.gateway._undo_script import ARM, UNDO, UNIT
from ipsecctl.gateway.handle import Completed, Handle
from ipsecctl.gateway.names import RECORD_PATH, ROUTE_PROTOCOL, STATE_DIR, UNDO_DIR
from ipsecctl.patience import PATIENCE
from ipsecctl.vici.codec import request_packet

__all__ = [
    "LOOK",
    "Armament",
    "Pending",
    "Request",
    "UndoState",
    "Way",
    "arm",
    "confirm",
    "extend",
    "forget",
    "how_it_is",
    "parse_pending",
    "undo_at_once",
]

_PROGRAM = f"{UNDO_DIR}/undo"
_UNDONE = f"{STATE_DIR}/undone"

LOOK = f"[ ! -f {_PROGRAM} ] || printf 'undo %s\\n' \"$(sh {_PROGRAM} look)\"\n"
"""The line of a shell script that tells of an apply that waits, for ``parse_pending``."""

_TOKEN = re.compile(r"[0-9a-f]{16}")

_BOOT_UNIT = f"""\
[Unit]
Description=Go back to what was before an apply of ipsecctl that nobody confirmed
ConditionPathExists={_PROGRAM}
DefaultDependencies=no
Conflicts=shutdown.target
After=local-fs.target
Before=ipsecctl-guard.service network-pre.target strongswan.service shutdown.target
Wants=network-pre.target

[Service]
Type=oneshot
StandardInput=null
TimeoutStartSec=infinity
ExecStart=/bin/sh {_PROGRAM} due

[Install]
WantedBy=multi-user.target
"""


class Way(StrEnum):
    """How an apply on a gateway stands: nobody waits, it waits to be confirmed, it is going or has gone back.

    ``CONFIRMED`` is the answer to whoever confirmed.
    """

    NONE = "none"
    WAITING = "waiting"
    GOING = "going"
    BACK = "back"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class Pending:
    """An apply that waits on a gateway for its confirmation: whose, and for how many seconds yet.

    ``token`` is the same on all gateways of that apply. ``going`` says that the time is over.
    """

    token: str
    left_s: int
    owner: str
    going: bool = False


@dataclass(frozen=True, slots=True)
class UndoState:
    """How it stands on a gateway; ``said`` is what became of an apply that went back, ``when`` in seconds
    since 1970 by the gateway's clock. ``members`` are all gateways that the apply armed."""

    way: Way
    token: str = ""
    left_s: int = 0
    owner: str = ""
    members: tuple[str, ...] = ()
    said: str = ""
    when: int = 0

    @property
    def wholly(self) -> bool:
        """Whether all of it has gone back."""
        return self.way is Way.BACK and "not wholly" not in self.said


@dataclass(frozen=True, slots=True)
class Request:
    """A VICI command and its message."""

    command: str
    message: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Armament:
    """What a gateway needs to go back by itself.

    ``paths`` are all files that are ours or may become so, ``settings`` the names of sysctls that may be
    changed, ``tunnels`` the connections (each with a child) that are to be up again. ``load`` is sent to
    charon first, and none of it may be refused; then ``drop``, of which that does not matter. ``begun`` is
    the content of the record that is to stand while it goes back, ``None`` where there was none before.
    """

    token: str
    owner: str
    members: tuple[str, ...]
    within_s: int
    paths: tuple[str, ...]
    settings: tuple[str, ...]
    tunnels: tuple[tuple[str, str], ...]
    load: tuple[Request, ...] = field(repr=False)
    drop: tuple[Request, ...] = field(repr=False)
    begun: bytes | None = field(default=None, repr=False)


async def arm(handle: Handle, armament: Armament, *, timeout_s: float = 30.0 * PATIENCE) -> int:
    """Have a gateway remember what it is now and start its timer; return the seconds that it will wait.

    Nothing else is changed there. Raises ``ApplyFailed`` when that does not work, with nothing left behind,
    or when another apply waits there already.
    """
    argv = ("sh", "-c", ARM, "arm", STATE_DIR, str(armament.within_s), ROUTE_PROTOCOL, UNIT)
    completed = await handle.run(argv, _archive(armament), timeout_s=timeout_s)
    pending = parse_pending(completed.stdout.decode("utf-8", "replace")) if completed.status == 0 else None
    if pending is None:
        raise ApplyFailed(
            f"{handle.name}: it cannot be made to go back by itself: {completed.error}",
            "Nothing was done. Mend that, or apply without --confirm.",
        )
    return pending.left_s


async def extend(handle: Handle, token: str, seconds: int, *, timeout_s: float = 10.0 * PATIENCE) -> Pending:
    """Have a gateway wait so long from now on; return how it stands.

    Raises ``ApplyFailed`` when nothing waits there any more: it has gone back.
    """
    completed = await _call(handle, ("extend", token, str(seconds)), timeout_s)
    pending = parse_pending(completed.stdout.decode("utf-8", "replace"))
    if pending is None or pending.going or pending.token != token:
        raise ApplyFailed(
            f"{handle.name} has gone back: nothing was heard of this apply for too long",
            "Apply again, with a longer --confirm.",
        )
    return pending


async def confirm(handle: Handle, token: str, *, timeout_s: float = 10.0 * PATIENCE) -> UndoState:
    """Have a gateway keep what was applied with this token; return how it stands then."""
    completed = await _call(handle, ("confirm", token), timeout_s)
    if completed.stdout.decode("utf-8", "replace").strip() == Way.CONFIRMED:
        return UndoState(Way.CONFIRMED, token)
    return await how_it_is(handle, timeout_s=timeout_s)


async def how_it_is(handle: Handle, *, timeout_s: float = 10.0 * PATIENCE) -> UndoState:
    """Return whether an apply waits on a gateway, or how the last one went back.

    That does not count once a later apply has changed the gateway.
    """
    script = (
        'if [ -f "$1/undo" ]; then sh "$1/undo" look; sed -n "s/^members /members /p" "$1/waiting"; '
        'else echo none; fi; [ ! -f "$2" ] || [ "$3" -nt "$2" ] || sed "s/^/undone /;q" "$2"'
    )
    completed = await handle.run(
        ("sh", "-c", script, "look", UNDO_DIR, _UNDONE, RECORD_PATH), timeout_s=timeout_s
    )
    return _parse_state(completed.stdout.decode("utf-8", "replace"))


async def forget(handle: Handle) -> None:
    """Have a gateway forget that it once went back: something later was confirmed."""
    await handle.run(("rm", "-f", _UNDONE))


async def undo_at_once(
    handle: Handle, *, held: bool = False, timeout_s: float = 120.0 * PATIENCE
) -> UndoState:
    """Have a gateway go back now; return how it stands then. ``held``: its lock is ours.

    Raises ``ApplyFailed`` when nothing waits there that could go back.
    """
    completed = await _call(handle, ("now", "held" if held else "free"), timeout_s)
    state = await how_it_is(handle)
    if state.way is not Way.BACK:
        raise ApplyFailed(f"{handle.name}: it cannot go back: {completed.error}")
    return state


async def _call(handle: Handle, words: tuple[str, ...], timeout_s: float) -> Completed:
    script = '[ ! -f "$0" ] || exec sh "$0" "$@"'
    return await handle.run(("sh", "-c", script, _PROGRAM, *words), timeout_s=timeout_s)


def parse_pending(text: str) -> Pending | None:
    """Return what ``undo look`` said, ``None`` where nothing waits."""
    words = text.strip().split(" ", 3)
    if len(words) < 3 or words[0] not in ("waiting", "going") or not _TOKEN.fullmatch(words[1]):
        return None
    left = int(words[2]) if words[2].lstrip("-").isdecimal() else 0
    owner = words[3] if len(words) > 3 else ""
    return Pending(words[1], max(0, left), owner, going=words[0] == "going")


def _parse_state(text: str) -> UndoState:
    lines = text.splitlines()
    pending = parse_pending(lines[0]) if lines else None
    if pending is not None:
        members = next((line.split()[1:] for line in lines if line.startswith("members ")), [])
        way = Way.GOING if pending.going else Way.WAITING
        return UndoState(way, pending.token, pending.left_s, pending.owner, tuple(members))
    for line in lines:
        word, token, when, said = (*line.split(" ", 3), "", "", "")[:4]
        if word == "undone":
            return UndoState(Way.BACK, token, said=said, when=int(when) if when.isdecimal() else 0)
    return UndoState(Way.NONE)


def _archive(armament: Armament) -> bytes:
    waiting = (
        f"token {armament.token}\nowner {armament.owner}\nmembers {' '.join(armament.members)}\n"
        f"within {armament.within_s}\n"
    )
    members = {
        "undo": UNDO.encode(),
        "bridge": bridge().encode(),
        "unit": _BOOT_UNIT.encode(),
        "waiting": waiting.encode(),
        "paths": _lines(armament.paths),
        "settings": _lines(armament.settings),
        "tunnels": _lines(f"{name} {child}" for name, child in armament.tunnels),
        "load": _stream(armament.load),
        "drop": _stream(armament.drop),
    }
    if armament.begun is not None:
        members["begun"] = armament.begun
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o600
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _lines(values: Iterable[str]) -> bytes:
    return "".join(f"{value}\n" for value in values).encode()


def _stream(requests: Iterable[Request]) -> bytes:
    packets = [request_packet(request.command, request.message) for request in requests]
    return b"".join([*packets, request_packet("version", {})])
