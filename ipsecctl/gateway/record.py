"""The record that ``apply`` leaves on a gateway: what is ours there, and what it was when we made it.

charon cannot read everything back, and no object carries a maker's mark. So a file beside its state names
what we loaded, with a keyed digest (HMAC-SHA-256, the key random and in the record) of each object as it was
sent, and of what charon reported for it right afterwards. The file is for its owner only, and holds no
secret.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ipsecctl.desired import Means
from ipsecctl.gateway.trials import Trials
from ipsecctl.topology import DataPath
from ipsecctl.vici import Listing

__all__ = ["NO_CHARON", "Record", "Seen", "StartUp", "canonical"]

_FORMAT = "ipsecctl/record/1"
Digests: TypeAlias = Mapping[str, str]

NO_CHARON = "none"
"""Stands for charon's start where it does not run: the next one is another."""


def canonical(value: Any) -> bytes:
    """Return a value of mappings, lists, ``str`` and ``bytes`` as bytes that are equal when it is."""
    return _CANONICAL.encode(value).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no canonical form for {type(value).__name__}")


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=True, default=_plain)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the gateway reported right after the apply, as digests by name: it tells drift from intent.

    ``version`` is charon's at that time: another one may report the same thing in other words.
    """

    version: str = ""
    connections: Digests = field(default_factory=dict)
    firewall: str = ""


@dataclass(frozen=True, slots=True)
class StartUp:
    """The options that charon reads only when it starts, by name.

    ``charon`` tells one start from the next (``Facts.charon``), ``read`` are the options which that one has,
    ``written`` those that our files hold for the next one.
    """

    charon: str = ""
    read: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)

    def pending(self, charon: str) -> dict[str, tuple[str, str]]:
        """Return the options for which the charon that runs now must be restarted, by name.

        Each with the value that it has and the one that is wanted, "" for charon's default. One that was
        started after the last apply has read all; of one that nothing is known about nothing is claimed.
        """
        if not charon or charon != self.charon:
            return {}
        return {
            name: (self.read.get(name, ""), self.written.get(name, ""))
            for name in sorted(self.read.keys() | self.written.keys())
            if self.read.get(name) != self.written.get(name)
        }


@dataclass(frozen=True, slots=True)
class Record:
    """What was applied.

    The mappings go from the name of an object to its digest; "" means "begun, and not known to be done".
    ``files`` is by path, ``certificates`` by target, ``shared`` by charon's id. ``keys`` holds (charon's id,
    digest) by target. ``messages`` has the connections as they were sent (there is no secret in them), for
    the old values of a later plan. ``interfaces`` says by name what each interface was to be. ``means`` is
    what each gateway of the topology was found to have, as far as that was known; ``trials`` is what was
    tried on this one. ``renew`` names the connections whose running SAs may still have an earlier
    configuration. ``kept`` are those whose change the last apply could not complete, so that it left their
    SAs as they were, each with why. ``listed`` is the digest of how charon listed the connections in
    ``seen``, to the byte, "" where that is not known: while it does so, they need not be looked at one by
    one.
    """

    key: bytes
    topology: str = ""
    files: Digests = field(default_factory=dict)
    connections: Digests = field(default_factory=dict)
    shared: Digests = field(default_factory=dict)
    certificates: Digests = field(default_factory=dict)
    keys: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    messages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interfaces: Digests = field(default_factory=dict)
    means: Mapping[str, Means] = field(default_factory=dict)
    trials: Trials | None = None
    seen: Seen = field(default_factory=Seen)
    start_up: StartUp = field(default_factory=StartUp)
    renew: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    listed: str = ""

    def lists(self, now: Listing) -> bool:
        """Whether charon lists the connections that were seen by the last apply as it did then."""
        return self.listed != "" and self.listed == self.digest_listed(now, self.seen.connections)

    def digest_listed(self, now: Listing, names: Collection[str]) -> str:
        """Return the digest of how charon lists these connections, "" where one is not there."""
        said = now.reported(names)
        return "" if said is None else hmac.digest(self.key, b"listed\0" + said, "sha256").hex()

    def older(self, charon: str) -> dict[str, str]:
        """Return the connections whose SAs, if they run, have an earlier configuration, each with why.

        ``charon`` tells one start from the next: one that was started after the last apply made its SAs with
        what it has now.
        """
        if charon and self.start_up.charon and charon != self.start_up.charon:
            return {}
        return {name: self.kept.get(name, "") for name in sorted({*self.renew, *self.kept})}

    @classmethod
    def fresh(cls) -> Record:
        """Return the record of a gateway on which nothing is ours, with a new key."""
        return cls(key=secrets.token_bytes(32))

    def digest(self, kind: str, value: Any) -> str:
        """Return the digest of an object of a kind (``file``, ``connection``, ...) under the record's key."""
        return hmac.digest(self.key, kind.encode() + b"\0" + canonical(value), "sha256").hex()

    def to_json(self) -> bytes:
        """Return the record as its file holds it."""
        document = {
            "schema": _FORMAT,
            "key": self.key.hex(),
            "topology": self.topology,
            "files": self.files,
            "connections": self.connections,
            "shared": self.shared,
            "certificates": self.certificates,
            "keys": {target: list(entry) for target, entry in self.keys.items()},
            "messages": self.messages,
            "interfaces": self.interfaces,
            "means": _means_document(self.means),
            "trials": self.trials.as_json() if self.trials else None,
            "seen": {
                "version": self.seen.version,
                "connections": self.seen.connections,
                "firewall": self.seen.firewall,
            },
            "start_up": {
                "charon": self.start_up.charon,
                "read": self.start_up.read,
                "written": self.start_up.written,
            },
            "renew": list(self.renew),
            "kept": self.kept,
            "listed": self.listed,
        }
        return json.dumps(document, sort_keys=True, default=_plain).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Record:
        """Return the record in a file's content. Raises ``ValueError`` when it is not one that we wrote."""
        try:
            document = json.loads(data)
            if document["schema"] != _FORMAT:
                raise ValueError(f"schema {document['schema']!r}")
            return cls(
                key=bytes.fromhex(document["key"]),
                keys={target: (str(i), str(d)) for target, (i, d) in document["keys"].items()},
                seen=Seen(**document["seen"]),
                start_up=StartUp(**document.get("start_up", {})),
                renew=tuple(map(str, document.get("renew", ()))),
                kept=dict(document.get("kept", {})),
                listed=str(document.get("listed", "")),
                interfaces=document.get("interfaces", {}),
                means=_means(document.get("means", ())),
                trials=Trials.from_json(document["trials"]) if document.get("trials") else None,
                **{
                    name: document[name]
                    for name in (
                        "topology",
                        "files",
                        "connections",
                        "shared",
                        "certificates",
                        "messages",
                    )
                },
            )
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"not a record of ipsecctl: {exc!r}") from exc


def _means_document(means: Mapping[str, Means]) -> list[dict[str, Any]]:
    """Return what a neighbour must remember of all gateways: most have the same, so it is told once.

    Algorithms are left out: they are asked for where they count.
    """
    alike: dict[Means, list[str]] = {}
    for name, found in sorted(means.items()):
        alike.setdefault(replace(found, algorithms=None), []).append(name)
    return [
        {
            "data_path": str(found.data_path),
            "xfrm_interfaces": found.xfrm_interfaces,
            "version": list(found.version) if found.version is not None else None,
            "gateways": names,
        }
        for found, names in alike.items()
    ]


def _means(document: Iterable[Mapping[str, Any]]) -> dict[str, Means]:
    found: dict[str, Means] = {}
    for entry in document:
        version = tuple(entry["version"]) if entry["version"] is not None else None
        means = Means(DataPath(entry["data_path"]), entry["xfrm_interfaces"], version)
        found |= dict.fromkeys(entry["gateways"], means)
    return found
