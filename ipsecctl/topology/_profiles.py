"""The profiles of a file, with what they take from one another worked out and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ipsecctl.crypto import (
    PROFILES,
    Algorithm,
    Examined,
    Profile,
    Proposal,
    Protocol,
    Status,
    examine_proposal,
    parse_esp_proposal,
    parse_ike_proposal,
)
from ipsecctl.topology._findings import Findings, listed
from ipsecctl.topology._options import sa_options
from ipsecctl.topology.document import ProfileDoc
from ipsecctl.topology.model import Path

__all__ = ["Profiles", "esp_of", "ike_of"]

# The shortest and longest times to rekeying that are wise (the longest: NIST SP 800-77r1 section 4).
_SANE_S: Final = {"ike": (600, 24 * 3600), "esp": (300, 8 * 3600)}
# What must lie between rekey and life: time for the exchange and its retransmissions.
_MARGIN_S: Final = 10
_LONGEST_DPD_S: Final = 3600
# What stands in for a base that is not known: nothing that is taken from it is checked.
_UNKNOWN: Final = Profile("", "", (), ())


@lru_cache(maxsize=256)
def ike_of(profile: Profile) -> tuple[Proposal, ...]:
    """Return the IKE proposals of a profile that was checked."""
    return tuple(parse_ike_proposal(text) for text in profile.ike_proposals)


@lru_cache(maxsize=256)
def esp_of(profile: Profile) -> tuple[Proposal, ...]:
    """Return the ESP proposals of a profile that was checked."""
    return tuple(parse_esp_proposal(text) for text in profile.esp_proposals)


@dataclass(frozen=True, slots=True)
class _Given:
    """The proposals that a profile of the file gives, as far as they can be read."""

    ike: tuple[Examined, ...]
    esp: tuple[Examined, ...]

    @property
    def ike_is_right(self) -> bool:
        return all(examined.proposal is not None for examined in self.ike)

    @property
    def esp_is_right(self) -> bool:
        return all(examined.proposal is not None for examined in self.esp)


class Profiles:
    """Profiles by name, those of the file before the built-in ones.

    A profile with proposals that are wrong is known without them: what does not hang on them can be checked.
    """

    def __init__(self, docs: Mapping[str, ProfileDoc], findings: Findings) -> None:
        self._docs = docs
        self._findings = findings
        self._known: dict[str, Profile | None] = dict(PROFILES)
        self._own: set[str] = set()
        self._rootless: set[str] = set()
        self._used: set[str] = set()
        self._given = {name: self._examine(name, doc) for name, doc in docs.items()}
        for name in docs:
            self._warn_of_legacy(name)
            if name in PROFILES:
                hint = "give it another name, and 'based_on: " + name + "' if you want to change it"
                findings.error("IP211", ("profiles", name), f"{name!r} is a built-in profile", hint, key=True)
            else:
                self._define(name)
        for name in docs.keys() & PROFILES.keys():
            self._build(name, docs[name])
        self._check_built_in_bases()

    def get(self, name: str, path: Path) -> Profile | None:
        """Return the profile used at ``path``; report one that is unknown, and return ``None`` then."""
        self._used.add(name)
        if not self.check_name(name, path):
            return None
        profile = self._known[name]
        if profile is not None and name not in self._own:
            self._warn_of_built_in(profile, path)
        return profile

    def check_name(self, name: str, path: Path) -> bool:
        """Report a profile that does not exist, once for each place; return whether it does."""
        known = name in self._known
        if (
            not known
            and not self._findings.damaged(("profiles", name))
            and self._findings.first("profile?", path)
        ):
            hint = self._findings.did_you_mean(name, self._known, f"known: {listed(self._known)}")
            self._findings.error("IP104", path, f"there is no profile {name!r}", hint)
        return known

    def peek(self, name: str) -> Profile | None:
        """Return a profile whose use was already looked at."""
        return self._known.get(name)

    def report_unused(self) -> None:
        bases = {doc.based_on for doc in self._docs.values()}
        for name in self._own - self._used - bases:
            self._findings.info(
                "IP182", ("profiles", name), f"the profile {name!r} is not used", "remove it", key=True
            )

    def _define(self, name: str) -> None:
        """Work out a profile and those it is based on, the deepest first."""
        chain: list[str] = []
        while name in self._docs and name not in self._known:
            if name in chain:
                circle = " -> ".join([*chain[chain.index(name) :], name])
                path = ("profiles", name, "based_on")
                hint = "base one of them on a built-in profile"
                self._findings.error(
                    "IP210", path, f"profiles based on one another in a circle: {circle}", hint
                )
                self._known[name] = None
                break
            chain.append(name)
            name = self._docs[name].based_on
        for each in reversed(chain):
            self._known[each] = self._build(each, self._docs[each])
            self._own.add(each)

    def _base(self, name: str, doc: ProfileDoc) -> Profile:
        """Return what a profile is based on; report a base that does not exist."""
        path: Path = ("profiles", name, "based_on")
        damaged = self._findings.damaged(path) or self._findings.damaged(("profiles", doc.based_on))
        if doc.based_on not in self._known and not damaged:
            known = {**PROFILES, **self._docs}
            hint = self._findings.did_you_mean(doc.based_on, known, f"known: {listed(known)}")
            self._findings.error("IP104", path, f"there is no profile {doc.based_on!r}", hint)
        base = None if self._findings.damaged(path) else self._known.get(doc.based_on)
        if base is None or doc.based_on in self._rootless:
            self._rootless.add(name)
        return base or _UNKNOWN

    def _build(self, name: str, doc: ProfileDoc) -> Profile:
        path: Path = ("profiles", name)
        base = self._base(name, doc)
        given = self._given[name]
        ike = tuple(doc.ike) or base.ike_proposals
        esp = tuple(doc.esp) or self._inherited_esp(doc, base)
        profile = Profile(
            name=name,
            summary=doc.description or f"based on {doc.based_on}",
            ike_proposals=ike if given.ike_is_right else (),
            esp_proposals=esp if given.esp_is_right else (),
            ike_rekey_s=doc.ike_rekey or base.ike_rekey_s,
            ike_life_s=doc.ike_life or (_life(doc.ike_rekey) if doc.ike_rekey else base.ike_life_s),
            esp_rekey_s=doc.esp_rekey or base.esp_rekey_s,
            esp_life_s=doc.esp_life or (_life(doc.esp_rekey) if doc.esp_rekey else base.esp_life_s),
            dpd_delay_s=doc.dpd_delay or base.dpd_delay_s,
            pfs=doc.pfs if "pfs" in doc.model_fields_set or doc.esp else base.pfs,
            reason=doc.reason or base.reason,
            options=sa_options(doc.options).over(base.options),
        )
        self._check_pfs(path, doc, profile)
        self._check_lifetimes(path, profile)
        return profile

    def _examine(self, name: str, doc: ProfileDoc) -> _Given:
        """Read the proposals that a profile gives; report all that is wrong with them."""
        path: Path = ("profiles", name)
        given = _Given(
            tuple(examine_proposal(text, Protocol.IKE) for text in doc.ike),
            tuple(examine_proposal(text, Protocol.ESP) for text in doc.esp),
        )
        for key, several in (("ike", given.ike), ("esp", given.esp)):
            for number, examined in enumerate(several):
                for error in examined.errors:
                    hint = error.hint or "see 'ipsecctl crypto algorithms' for the algorithms"
                    self._findings.error(error.code, (*path, key, number), error.summary, hint)
                self._report_broken(examined.algorithms, (*path, key, number))
        return given

    def _legacy_in(self, name: str) -> dict[Algorithm, Path]:
        """Return the legacy algorithms in a profile's own proposals, each with where it first stands."""
        found: dict[Algorithm, Path] = {}
        for key, several in (("ike", self._given[name].ike), ("esp", self._given[name].esp)):
            for number, examined in enumerate(several):
                for algorithm in examined.algorithms:
                    if algorithm.status is Status.LEGACY:
                        found.setdefault(algorithm, ("profiles", name, key, number))
        return found

    def _report_broken(self, algorithms: Iterable[Algorithm], path: Path) -> None:
        broken = [a for a in algorithms if a.status is Status.BROKEN]
        if broken:
            hint = (
                "take good ones, such as aes256gcm16, sha256, x25519: "
                "'ipsecctl crypto algorithms' lists them all"
            )
            self._findings.error("IP204", path, f"broken algorithms: {_names(broken)}", hint)

    def _warn_of_legacy(self, name: str) -> None:
        """Warn once of all legacy algorithms of a profile of the file, where the first of them stands.

        Not of those that it would have from what it is based on, too: that is reported there.
        """
        legacy = self._legacy_in(name)
        base, seen = name, {name}
        while legacy and (doc := self._docs.get(base)) is not None and doc.based_on not in seen:
            inherits = not (doc.ike and doc.esp)
            base = doc.based_on
            seen.add(base)
            if base in self._docs:
                known: Iterable[Algorithm] = self._legacy_in(base)
            else:
                known = _algorithms_of(PROFILES[base]) if inherits and base in PROFILES else ()
            legacy = {algorithm: where for algorithm, where in legacy.items() if algorithm not in known}
        if legacy:
            hint = "only for a partner that has nothing better: 'ipsecctl crypto algorithms' says why"
            where = next(iter(legacy.values()))
            self._findings.warning("IP205", where, f"legacy algorithms: {_names(legacy)}", hint)

    def _warn_of_built_in(self, profile: Profile, path: Path) -> None:
        """Warn once of a built-in profile with legacy algorithms, where it is first used."""
        if not self._findings.first("legacy profile", profile.name):
            return
        legacy = [a for a in _algorithms_of(profile) if a.status is Status.LEGACY]
        if legacy:
            hint = "only for a partner that has nothing better; 'modern' is the profile to want"
            summary = f"the profile {profile.name!r} allows legacy algorithms: {_names(legacy)}"
            self._findings.warning("IP205", path, summary, hint)

    def _check_built_in_bases(self) -> None:
        for name, doc in self._docs.items():
            base = PROFILES.get(doc.based_on)
            inherits = not (doc.ike and doc.esp)
            if base is not None and name in self._own and inherits:
                self._warn_of_built_in(base, ("profiles", name, "based_on"))

    def _inherited_esp(self, doc: ProfileDoc, base: Profile) -> tuple[str, ...]:
        if doc.pfs or "pfs" not in doc.model_fields_set:
            return base.esp_proposals
        without = (dataclasses.replace(p, key_exchange=(), additional=()) for p in esp_of(base))
        return tuple(dict.fromkeys(str(proposal) for proposal in without))

    def _check_pfs(self, path: Path, doc: ProfileDoc, profile: Profile) -> None:
        given = self._given[profile.name].esp
        named = [examined.proposal for examined in given]
        if profile.pfs:
            for number, proposal in enumerate(named):
                if proposal is not None and not proposal.pfs:
                    hint = "add a key exchange such as '-x25519', or say 'pfs: false' and give a 'reason'"
                    summary = f"{doc.esp[number]}: without a key exchange there is no PFS"
                    self._findings.error("IP208", (*path, "esp", number), summary, hint)
            if (
                not doc.esp
                and doc.pfs
                and "pfs" in doc.model_fields_set
                and not all(p.pfs for p in esp_of(profile))
            ):
                hint = "give 'esp' proposals with a key exchange"
                summary = "PFS is wanted, but the inherited proposals have none"
                self._findings.error("IP208", (*path, "pfs"), summary, hint)
            return
        for number, proposal in enumerate(named):
            if proposal is not None and proposal.key_exchange:
                hint = "remove the key exchange, or 'pfs: false'"
                summary = f"{doc.esp[number]}: has a key exchange, but 'pfs' says false"
                self._findings.error("IP208", (*path, "esp", number), summary, hint)
        if profile.reason or profile.name in self._rootless:
            return
        if not any(proposal and proposal.key_exchange for proposal in named):
            hint = "add 'reason:' (what forbids it), or remove 'pfs: false'"
            summary = f"the profile {profile.name!r} has no PFS and says not why"
            self._findings.error("IP208", (*path, "pfs"), summary, hint)

    def _check_lifetimes(self, path: Path, profile: Profile) -> None:
        given = self._docs[profile.name].model_fields_set
        for kind, rekey_s, life_s in (
            ("ike", profile.ike_rekey_s, profile.ike_life_s),
            ("esp", profile.esp_rekey_s, profile.esp_life_s),
        ):
            keys = [key for key in (f"{kind}_life", f"{kind}_rekey") if key in given]
            if profile.name in self._rootless and f"{kind}_rekey" not in given:
                continue
            if keys and not self._refuse_lifetime((*path, keys[0]), kind, rekey_s, life_s):
                self._warn_of_lifetime((*path, keys[-1]), kind, rekey_s, life_s)
        if "dpd_delay" in given and profile.dpd_delay_s > _LONGEST_DPD_S:
            hint = "write one between 5s and 60s"
            summary = f"a dead peer is noticed only after dpd_delay, {_time(profile.dpd_delay_s)}"
            self._findings.warning("IP209", (*path, "dpd_delay"), summary, hint)

    def _refuse_lifetime(self, path: Path, kind: str, rekey_s: int, life_s: int) -> bool:
        """Report lifetimes that cannot work; return whether they were reported."""
        rekey, life = f"{kind}_rekey ({_time(rekey_s)})", f"{kind}_life ({_time(life_s)})"
        margin_s = life_s - rekey_s
        if margin_s <= 0:
            summary = f"{rekey} is not before {life}: nothing would ever be rekeyed"
        elif margin_s < _MARGIN_S:
            summary = f"{life} leaves {margin_s} s after {rekey}: too little to rekey"
        elif rekey_s <= margin_s:
            # charon rekeys at a random moment up to (life - rekey) before rekey: that must not be at once.
            summary = f"{rekey} is not longer than the margin up to {life}: rekeying could begin at once"
        else:
            return False
        hint = f"make {kind}_life about 110 % of {kind}_rekey: {_time(_life(rekey_s))}"
        if rekey_s <= _MARGIN_S:  # no life would be right for it
            hint = f"make {kind}_rekey at least {_time(_SANE_S[kind][0])}, and leave {kind}_life out"
        self._findings.error("IP209", path, summary, hint)
        return True

    def _warn_of_lifetime(self, path: Path, kind: str, rekey_s: int, life_s: int) -> None:
        """Warn of lifetimes that work but are not wise (NIST SP 800-77r1 section 4)."""
        shortest_s, longest_s = _SANE_S[kind]
        if rekey_s < shortest_s:
            summary = f"{kind}_rekey of {_time(rekey_s)} keeps the gateways busy with rekeying"
            self._findings.warning("IP209", path, summary, f"write at least {_time(shortest_s)}")
        elif rekey_s > longest_s or life_s > _life(longest_s):
            key, time_s = ("rekey", rekey_s) if rekey_s > longest_s else ("life", life_s)
            summary = f"{kind}_{key} of {_time(time_s)} lets one key live longer than NIST SP 800-77r1 allows"
            self._findings.warning("IP209", path, summary, f"rekey at least every {_time(longest_s)}")


def _life(rekey_s: int) -> int:
    """Return the life for a rekey time when none is given: 110 % as in charon, and never too little."""
    return rekey_s + max(rekey_s // 10, _MARGIN_S)


def _algorithms_of(profile: Profile) -> list[Algorithm]:
    """Return the algorithms of all proposals of a profile, in their order."""
    return [a for proposal in (*ike_of(profile), *esp_of(profile)) for a in proposal.algorithms]


def _names(algorithms: Iterable[Algorithm]) -> str:
    """Name algorithms; a PRF that only follows from its integrity algorithm is not worth a word."""
    names = dict.fromkeys(a.keyword for a in algorithms)
    return listed(name for name in names if name.removeprefix("prf") == name or name[3:] not in names)


def _time(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
