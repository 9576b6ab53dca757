"""Whether all that a gateway tells is what it told before, without working out what it means.

What stands for it is a digest of everything, to the byte, but for what passes by itself: ages and counters of
SAs. So a plan of thousands of connections that had nothing to do need not be made again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway.handle import Handle
from ipsecctl.gateway.kernel_sas import not_in_kernel
from ipsecctl.gateway.observe import (
    Facts,
    Observed,
    charon_if_it_runs,
    digest_of_lines,
    names_of_sas,
    shell_lines,
)
from ipsecctl.gateway.record import canonical
from ipsecctl.patience import PATIENCE
from ipsecctl.vici import Listing

__all__ = ["fingerprint", "observe_again", "sealed", "steady"]

# list_child and list_ike of strongSwan's vici_query.c; what of an SA is compared with its configuration are
# sums of an age and what is left, which stay as they are until the SA is another one.
_PASSING: Final = frozenset(
    (
        *("established", "rekey-time", "reauth-time", "life-time", "install-time"),
        *("bytes-in", "packets-in", "use-in", "bytes-out", "packets-out", "use-out"),
    )
)


async def observe_again(
    handle: Handle,
    record: str,
    prefixes: Iterable[str] = (),
    *,
    own: Iterable[str] = (),
    outer: Iterable[str] = (),
    timeout_s: float = 20.0 * PATIENCE,
) -> tuple[Observed, str] | None:
    """Ask all that ``observe`` asks of a gateway, and return with it the key of its record.

    ``None`` where the record has not the digest ``record``, or charon does not run. What the shell told is
    not looked through: of the facts only the digests are there. Raises as ``observe``.
    """
    try:
        async with asyncio.TaskGroup() as group:
            shell = group.create_task(shell_lines(handle, prefixes, own, outer, timeout_s, record))
            charon = group.create_task(charon_if_it_runs(handle, timeout_s))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    lines, told = shell.result(), charon.result()
    keys = [line.partition(" ")[2] for line in lines if line.startswith("record-key ")]
    if len(keys) != 1 or isinstance(told, GatewayUnreachable):
        return None
    facts, names = Facts(record_sha256=record, told=digest_of_lines(lines)), names_of_sas(told["sas"])
    return Observed(gateway=handle.name, facts=facts, sa_names=names, **told), keys[0]


def steady(observed: Observed) -> bool:
    """Whether one look told all: charon runs, and no second look had to clear up what the first one left
    open."""
    if observed.charon_down is not None or observed.facts.undo is not None or not observed.facts.told:
        return False
    return not not_in_kernel(observed.sas, observed.facts.in_kernel.on(observed.data_path))


def fingerprint(observed: Observed) -> bytes:
    """Return bytes that are equal when all that was observed is, but for what passes by itself.

    Of the facts there is what the shell told (``Facts.told``) and the record's digest, as all of them come
    from these. Raises ``TypeError`` for what has no form that can be compared.
    """
    return canonical({each.name: _plain(getattr(observed, each.name)) for each in fields(observed)})


def sealed(key: str, *parts: bytes) -> str:
    """Return the digest of ``parts`` under the key of a gateway's record, which is on that gateway alone.

    So nobody who finds it elsewhere can guess what it is made of.
    """
    said = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hmac.digest(bytes.fromhex(key), b"settled\0" + said, "sha256").hex()


def _plain(value: Any) -> Any:
    match value:
        case Facts():
            return {"told": value.told, "record": value.record_sha256}
        case Listing():
            said = value.reported(value) or b""
            return {"listed": hashlib.sha256(said).hexdigest()}
        case Enum():
            return str(value)
        case None | str() | bytes() | bool() | int():
            return value
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items() if name not in _PASSING}
        case Collection() if isinstance(value, (frozenset, set)):
            return sorted(map(str, value))
        case list() | tuple():
            return [_plain(item) for item in value]
    if is_dataclass(value):
        return [
            type(value).__name__,
            {each.name: _plain(getattr(value, each.name)) for each in fields(value)},
        ]
    raise TypeError(f"no form of {type(value).__name__} can be compared")
