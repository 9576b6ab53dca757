"""Issuing for a topology's gateways, by request, and anew what is due: from what is wanted to orders."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ipsecctl.errors import PkiError
from ipsecctl.pki.authority import Made, Passphrase, issue_orders, issuing_chain, matching
from ipsecctl.pki.chains import faults_of_request
from ipsecctl.pki.delivery import Order
from ipsecctl.pki.due import is_due
from ipsecctl.pki.folder import Folder, sync, write_whole
from ipsecctl.pki.keytypes import KeyType
from ipsecctl.pki.ledger import Entry, Kind, Ledger, Places
from ipsecctl.pki.material import certificates_in
from ipsecctl.pki.names import general_names, names_text
from ipsecctl.pki.wanted import Wanted, is_written
from ipsecctl.secrets import age_recipients
from ipsecctl.secrets.reading import replaceable

__all__ = ["Wishes", "issue_for_request", "issue_wanted", "place_authorities", "renew"]

_MANY: Final = 10


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller wants otherwise than the CA's settings have it; ``None`` and empty for as they are.

    ``again`` replaces what is there. ``recipients`` are those that keys at ``age:`` places are encrypted to;
    without any it is the caller himself.
    """

    key_type: KeyType | None = None
    days: float | None = None
    server_auth: bool = False
    again: bool = False
    recipients: tuple[str, ...] = ()


def issue_wanted(
    folder: Folder,
    every: Sequence[Wanted],
    base: Path,
    wishes: Wishes,
    passphrase: Passphrase,
    now: datetime,
    told: Callable[[int], None] = lambda _: None,
) -> Made:
    """Issue the certificates that gateways want and that are not there; put the CAs' beside them.

    What is there is left as it is (``Made.kept``), unless ``wishes.again``. All is checked before anything is
    done. Raises ``PkiError``, all problems together.
    """
    settings = folder.settings()
    kept: list[str] = []
    authorities: dict[Path, bytes] = {}

    def orders(ledger: Ledger) -> list[Order]:
        problems: list[str] = []
        chain = issuing_chain(folder, ledger)
        authorities.update(_authorities(chain, every, base, problems))
        recipients = _recipients(every, wishes)
        found = []
        for one in every:
            problem, is_there = _standing(one, base, again=wishes.again)
            if problem:
                problems.append(problem)
            elif is_there:
                kept.append(one.gateway)
            else:
                found.append(
                    Order(
                        name=one.gateway,
                        identity=one.identity,
                        places=Places(
                            str(_absolute(base, one.certificate)),
                            str(_absolute(base, one.key.value)),
                            one.key.kind.value == "age",
                            wishes.again,
                        ),
                        days=wishes.days or settings.gateway_days,
                        key_type=wishes.key_type or settings.gateway_key,
                        server_auth=wishes.server_auth,
                        recipients=recipients,
                    )
                )
        problems += _clashes(every)
        _refuse(problems)
        for order in found:
            for place in (order.places.certificate, order.places.key):
                Path(place).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return found

    made = issue_orders(folder, orders, passphrase, now, told)
    place_authorities(authorities)
    return Made(made.entries, made.mended, tuple(kept))


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        more = f"; and {len(problems) - _MANY} more" if len(problems) > _MANY else ""
        hint = "nothing was issued"
        raise PkiError("; ".join(problems[:_MANY]) + more, hint)


def _absolute(base: Path, path: str) -> Path:
    return Path(os.path.abspath(base / path))  # noqa: PTH100 - a link stays one


def _standing(one: Wanted, base: Path, *, again: bool) -> tuple[str, bool]:
    """Return what keeps a certificate from being issued, and whether it is there already."""
    if not is_written(one.key):
        return f"{one.gateway}: its key is {one.key}: that cannot be written; sign a request instead", False
    for problem in replaceable(base / one.key.value, one.key.value):
        return f"{one.gateway}: {problem.what}: {problem.subject}: {problem.hint}", False
    places = (base / one.certificate, base / one.key.value)
    there = [place for place in places if place.exists() or place.is_symlink()]
    if again or not there:
        return "", False
    if len(there) == 1:
        gone = next(place for place in places if place not in there)
        what = f"{one.gateway}: {there[0]} is there and {gone} is not"
        return f"{what}: bring it back, or replace both with --again", False
    return "", True


def _clashes(every: Sequence[Wanted]) -> list[str]:
    """Return which places two gateways want at once."""
    owners: dict[str, set[str]] = {}
    for one in every:
        for place in {one.certificate, one.key.value}:
            owners.setdefault(place, set()).add(f"{one.gateway} as {one.identity}")
        if one.certificate == one.key.value:
            owners.setdefault(one.certificate, set()).add(f"the key of {one.gateway}")
    return [
        f"{place} is wanted by {' and by '.join(sorted(who))}: put {{gateway}} into the path"
        for place, who in owners.items()
        if len(who) > 1
    ]


def _authorities(
    chain: Sequence[Entry], every: Sequence[Wanted], base: Path, problems: list[str]
) -> dict[Path, bytes]:
    """Return the CAs' certificates to be written, by place: those that are missing."""
    root, between = chain[-1], chain[:-1]
    files: dict[Path, bytes] = {}
    for one in every:
        if between and not one.chain:
            hint = f"add 'chain: PATH' to its credential, as {_beside(one.anchor)}"
            problems.append(f"{one.gateway}: {between[0].name} stands between it and the root: {hint}")
            continue
        if one.chain and not between:
            problems.append(f"{one.gateway}: this CA has no CA between: remove 'chain' from its credential")
            continue
        for path, entry in ((one.anchor, root), *zip((one.chain,), between, strict=False)):
            place = _absolute(base, path)
            if place not in files:
                files[place] = entry.certificate.public_bytes(Encoding.PEM)
                problems += _other_authority(place, entry, path)
    return files


def _beside(anchor: str) -> str:
    return str(Path(anchor).with_name("issuing.pem"))


def _other_authority(place: Path, entry: Entry, path: str) -> list[str]:
    """Return what is wrong with a CA's certificate that is there: that it is another one."""
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}"]
    try:
        found = certificates_in(content, path)
    except PkiError as error:
        return [f"{error.summary} ({error.hint})"]
    if found[0] == entry.certificate:
        return []
    return [f"{path} is {found[0].subject.rfc4514_string()}, not {entry.name} of this CA: name another path"]


def place_authorities(files: dict[Path, bytes]) -> tuple[Path, ...]:
    """Write the CAs' certificates that are not there; return them."""
    written = []
    for place, content in files.items():
        if not place.exists():
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(place, content, 0o644)
            written.append(place)
    sync(written)
    return tuple(written)


def _recipients(every: Sequence[Wanted], wishes: Wishes) -> tuple[str, ...]:
    if wishes.recipients or not any(one.key.kind.value == "age" for one in every):
        return wishes.recipients
    return age_recipients()


def issue_for_request(
    folder: Folder,
    request: x509.CertificateSigningRequest,
    where: str,
    identity: str,
    name: str,
    out: Path,
    wishes: Wishes,
    passphrase: Passphrase,
    now: datetime,
) -> Made:
    """Sign somebody's request: only its public key is taken. The certificate is written to ``out``.

    The identity is that given, else the only name of the request. Raises ``PkiError`` when the request is not
    signed by its own key, when the key is weak, or when it is not clear whom the certificate is for.
    """
    for fault in faults_of_request(request, where):
        raise PkiError(f"{fault.subject}: {fault.what}", fault.hint)
    identity = identity or _only_name(request, where)
    place = _absolute(Path(), str(out))
    if not wishes.again and (place.exists() or place.is_symlink()):
        raise PkiError(f"{out} is there already", "name another file, or replace it with --again")
    settings = folder.settings()
    order = Order(
        name=name or identity,
        identity=identity,
        places=Places(str(place), replaces=wishes.again),
        days=wishes.days or settings.gateway_days,
        server_auth=wishes.server_auth,
        public_key=request.public_key(),
    )
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return issue_orders(folder, lambda _: [order], passphrase, now)


def _only_name(request: x509.CertificateSigningRequest, where: str) -> str:
    try:
        names = list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    except ValueError as error:
        raise PkiError(f"{where}: its extensions are damaged ({error})", "have it made again") from None
    texts = [text.partition(":")[2] for text in names_text(names)]
    if len(texts) != 1:
        held = ", ".join(names_text(names)) or "no name"
        raise PkiError(f"{where}: holds {held}: whom it is for is not clear", "say it: --identity NAME")
    general_names(texts[0])
    return texts[0]


def renew(
    folder: Folder,
    words: Collection[str],
    within: timedelta | None,
    wishes: Wishes,
    passphrase: Passphrase,
    now: datetime,
    *,
    same_key: bool = False,
    told: Callable[[int], None] = lambda _: None,
) -> Made:
    """Issue anew what is due, in the places of the old: for ``words`` (names, serials), for all without.

    Due is what has less than ``within`` to run, by default a third of its life. ``wishes.again`` renews what
    is not due, too. A certificate whose key did not come from here keeps its key. ``Made.kept`` are those
    that are not due. Raises ``PkiError``, all problems together, before anything is done.
    """
    kept: list[str] = []

    def orders(ledger: Ledger) -> list[Order]:
        current = ledger.current()
        if words:
            named = {entry.serial for word in words for entry in matching(ledger, word)}
            others = [ledger.entries[serial] for serial in named]
            if any(entry.kind is not Kind.END for entry in others):
                hint = "make a new CA with 'ipsecctl pki init', and let gateways trust both for a while"
                raise PkiError("a CA's own certificate is not renewed in its place", hint)
            current = tuple(entry for entry in current if entry.serial in named)
            if not current:
                hint = "issue them: ipsecctl pki issue FILE"
                raise PkiError(f"{' '.join(words)}: all are revoked, or replaced by newer ones", hint)
        found, problems = [], []
        for entry in current:
            if not wishes.again and not is_due(entry.certificate, now, within):
                kept.append(entry.name)
                continue
            problem = _unplaceable(entry)
            if problem:
                problems.append(f"{entry.name}: {problem}")
            else:
                found.append(_again(entry, wishes, same_key=same_key))
        _refuse(problems)
        return found

    made = issue_orders(folder, orders, passphrase, now, told)
    return Made(made.entries, made.mended, tuple(kept))


def _unplaceable(entry: Entry) -> str:
    for place in (entry.places.certificate, entry.places.key):
        if place and not Path(place).parent.is_dir():
            return f"{Path(place).parent} is not there: bring it back, or issue where the topology is now"
    return ""


def _again(entry: Entry, wishes: Wishes, *, same_key: bool) -> Order:
    places = entry.places
    keeps = same_key or not places.key
    recipients = wishes.recipients
    if places.encrypted and not keeps and not recipients:
        recipients = age_recipients()
    key_type = wishes.key_type
    if key_type is None and entry.key_type in set(KeyType):
        key_type = KeyType(entry.key_type)
    return Order(
        name=entry.name,
        identity=entry.identity,
        places=Places(places.certificate, places.key, places.encrypted, True, keeps),
        days=wishes.days or entry.days,
        key_type=key_type or KeyType.ECDSA_P256,
        server_auth=wishes.server_auth or entry.server_auth,
        public_key=entry.certificate.public_key() if keeps else None,
        recipients=recipients,
    )
