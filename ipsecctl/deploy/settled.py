"""Gateways on which a plan had nothing to do, and whether it would have now, without compiling anything.

A plan hangs on the topology's text, the secrets, our own code, and what the gateways tell. So where it had
nothing to do, a digest of all that is kept. The next plan asks the gateways all the same: as long as the
digest is the same, the plan is. When anything is another, or cannot be compared, everything is worked out.

What is kept holds no secret: the secrets' part of a digest is made with the key of the gateway's record,
which is on that gateway alone. A topology with certificates is never settled, as these expire, nor one whose
secrets are asked for elsewhere, as a Vault or a command would then be asked twice; and where an
SA is another one than before, after a rekey too, everything is worked out, as it must be judged.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipsecctl.errors import Diagnostic, IpsecctlError, Severity
from ipsecctl.gateway import Handle, reach_at
from ipsecctl.gateway.unchanged import fingerprint, observe_again, sealed, steady
from ipsecctl.patience import PATIENCE
from ipsecctl.plan.change import GatewayPlan, Note
from ipsecctl.resources import resource_dir
from ipsecctl.secrets.reading import read
from ipsecctl.topology import Control, ControlKind, SecretKind, SecretRef

if TYPE_CHECKING:
    from ipsecctl.deploy.prepare import Prepared

__all__ = ["Settled", "SettledGateway", "key_of", "program_signature", "settled_now", "still_settled"]

_FORMAT = "ipsecctl/settled/1"
_SIDE_BY_SIDE = 16
_PATIENT_S = 6.0 * PATIENCE
"""Less than a plan waits, as that comes after it where one gateway does not answer."""
_DEPENDENCIES = ("jinja2", "netaddr", "pydantic", "yaml")


@dataclass(frozen=True, slots=True)
class SettledGateway:
    """A gateway on which there was nothing to do.

    ``control`` says how it is reached; ``prefixes``, ``own`` and ``outer`` are what it is asked
    (``observe``), ``secrets`` are the references to what it has. ``record`` is the digest of its record,
    ``seal`` that of all that it told and of its secrets. ``notes`` are what the plan noted, as summary and
    hint.
    """

    name: str
    control: tuple[str, str]
    prefixes: tuple[str, ...]
    own: tuple[str, ...]
    outer: tuple[str, ...]
    secrets: tuple[tuple[str, str], ...]
    record: str
    seal: str
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """A topology of which all gateways are settled; ``warnings`` are what there was to say of its text."""

    topology: str
    file: str
    gateways: tuple[SettledGateway, ...]
    warnings: tuple[Diagnostic, ...] = ()

    def to_json(self) -> bytes:
        """Return it as a file holds it."""
        warnings = [asdict(each) | {"severity": int(each.severity)} for each in self.warnings]
        gateways = [asdict(each) for each in self.gateways]
        document = {"schema": _FORMAT, "topology": self.topology, "file": self.file}
        return json.dumps(document | {"gateways": gateways, "warnings": warnings}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Settled | None:
        """Return what a file holds, ``None`` when it is not one that we wrote."""
        try:
            document = json.loads(data)
            if document["schema"] != _FORMAT:
                return None
            return cls(
                str(document["topology"]),
                str(document["file"]),
                tuple(_gateway(each) for each in document["gateways"]),
                tuple(
                    Diagnostic(**{**each, "severity": Severity(each["severity"])})
                    for each in document["warnings"]
                ),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _gateway(said: Mapping[str, Any]) -> SettledGateway:
    kind, target = said["control"]
    return SettledGateway(
        name=str(said["name"]),
        control=(str(ControlKind(kind)), str(target)),
        prefixes=tuple(map(str, said["prefixes"])),
        own=tuple(map(str, said["own"])),
        outer=tuple(map(str, said["outer"])),
        secrets=tuple((str(_at_hand(SecretKind(kind))), str(value)) for kind, value in said["secrets"]),
        record=str(said["record"]),
        seal=str(said["seal"]),
        notes=tuple((str(summary), str(hint)) for summary, hint in said["notes"]),
    )


def _at_hand(kind: SecretKind) -> SecretKind:
    """Return a kind of secrets for which nobody is asked, and nothing run; else raise ``ValueError``."""
    if SecretRef(kind, "").is_remote:
        raise ValueError(f"a secret of the kind {kind}")
    return kind


# ---------------------------------------------------------------------------------------------------- the key


def key_of(data: bytes, file: str, lab: str | None, program: str) -> str:
    """Return the key for the bytes of a topology file: another one for anything that makes another plan.

    ``program`` stands for the code (``program_signature``).
    """
    said = (_FORMAT, program, str(Path.cwd()), file, "" if lab is None else f"lab {lab}")
    parts = (*(part.encode("utf-8", "surrogateescape") for part in said), data)
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()


def program_signature() -> str:
    """Return what stands for our code, our templates and what they use, as far as files tell by their looks:
    names, sizes, and when they were changed."""
    places = [Path(__file__).resolve().parent.parent, resource_dir("templates")]
    digest = hashlib.sha256(sys.version.encode())
    for place in places:
        for name, size, changed in sorted(_files(str(place))):
            digest.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    for package in _DEPENDENCIES:
        found = importlib.util.find_spec(package)
        origin = (found.origin if found else None) or ""
        changed = Path(origin).stat().st_mtime_ns if origin else 0
        digest.update(f"{origin}\0{changed}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files(place: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path) if entry.name != "__pycache__" else ()
            else:
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime_ns


# ------------------------------------------------------------------------------------------------ is settled


def settled_now(prepared: Prepared, warnings: Iterable[Diagnostic]) -> Settled | None:
    """Return the topology of plans as settled; ``None`` where they are not all there with nothing to do, or
    hang on something else than what is compared."""
    from ipsecctl.deploy.means import far_prefixes, outer_questions, own_prefixes, trials_of

    topology, plans = prepared.topology, {plan.gateway: plan for plan in prepared.plans}
    managed = {gateway.name: gateway for gateway in topology.gateways() if gateway.managed}
    if prepared.failures or prepared.stops or prepared.doomed or prepared.limit is not None:
        return None
    if plans.keys() != managed.keys() or any(s.certificates or s.private_keys for s in prepared.states):
        return None
    if any(key.secret.is_remote for state in prepared.states for key in state.shared_keys):
        return None  # what is asked or run for a secret is in the topology, and not kept
    asked = far_prefixes(topology), own_prefixes(topology), outer_questions(topology)
    gateways = []
    for state in prepared.states:
        name, seen = state.name, prepared.observed[state.name]
        plan, record = plans[name], seen.facts.record
        idle = plan == GatewayPlan(name, notes=plan.notes, restart=plan.restart)
        if not idle or record is None or trials_of(seen) is None or not steady(seen):
            return None
        shared = prepared.wanted[name].shared
        secrets = {key.secret: bytes(shared[key.id]["data"]) for key in state.shared_keys}
        control = managed[name].control
        gateways.append(
            SettledGateway(
                name=name,
                control=(str(control.kind), control.target),
                prefixes=tuple(sorted(asked[0].get(name, ()))),
                own=tuple(sorted(asked[1].get(name, ()))),
                outer=tuple(asked[2].get(name, ())),
                secrets=tuple((str(ref.kind), ref.value) for ref in sorted(secrets)),
                record=seen.facts.record_sha256,
                seal=sealed(record.key.hex(), fingerprint(seen), *(secrets[ref] for ref in sorted(secrets))),
                notes=tuple((note.summary, note.hint) for note in plan.notes),
            )
        )
    return Settled(topology.name, topology.file, tuple(gateways), tuple(warnings))


async def still_settled(
    settled: Settled, base: Path, *, lab: str | None = None, timeout_s: float = _PATIENT_S
) -> tuple[GatewayPlan, ...] | None:
    """Ask all gateways, and return their plans if there is still nothing to do; ``None`` if that is not sure.

    ``base`` is the directory of the topology file, ``lab`` the lab whose containers the gateways are. A
    secret that cannot be had, or a gateway that does not answer, is not sure, and told by who looks closer.
    """
    bound = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def one(gateway: SettledGateway) -> GatewayPlan:
        async with bound:
            try:
                return await _plan(gateway, _reach(settled, gateway, lab), base, timeout_s)
            except (IpsecctlError, OSError) as exc:
                raise _OtherwiseNow from exc

    tasks: list[asyncio.Task[GatewayPlan]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += (group.create_task(one(gateway)) for gateway in settled.gateways)
    except* _OtherwiseNow:
        tasks = []
    return tuple(task.result() for task in tasks) or None


def _reach(settled: Settled, gateway: SettledGateway, lab: str | None) -> Handle:
    kind, target = gateway.control
    return reach_at(gateway.name, Control(ControlKind(kind), target), settled.topology, settled.file, lab)


class _OtherwiseNow(Exception):  # noqa: N818 - what happened
    """Something is not as it was."""


async def _plan(gateway: SettledGateway, handle: Handle, base: Path, timeout_s: float) -> GatewayPlan:
    asking = observe_again(
        handle,
        gateway.record,
        gateway.prefixes,
        own=gateway.own,
        outer=gateway.outer,
        timeout_s=timeout_s,
    )
    answer, secrets = await asyncio.gather(asking, asyncio.to_thread(_read_all, gateway, base))
    if answer is None:
        raise _OtherwiseNow
    seen, key = answer
    if sealed(key, fingerprint(seen), *secrets) != gateway.seal:
        raise _OtherwiseNow
    notes = tuple(Note(summary, hint) for summary, hint in gateway.notes)
    return GatewayPlan(gateway.name, version=seen.version, notes=notes)


def _read_all(gateway: SettledGateway, base: Path) -> list[bytes]:
    refs = sorted(SecretRef(SecretKind(kind), value) for kind, value in gateway.secrets)
    return [bytes(read(ref, base)) for ref in refs]
