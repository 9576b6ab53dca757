"""Groups of tunnels to pairs: patterns, hubs, meshes, and which end holds what.

A ``Draft`` is a tunnel in the making: what could not be found is ``None`` in it and already reported.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ipsecctl.crypto import DEFAULT_PROFILE, NO_OPTIONS, Profile
from ipsecctl.topology._credentials import Credentials
from ipsecctl.topology._drafts import Draft, DraftEnd
from ipsecctl.topology._findings import Findings, listed
from ipsecctl.topology._modes import end_mode
from ipsecctl.topology._options import sa_options
from ipsecctl.topology._profiles import Profiles
from ipsecctl.topology._shape import check_shape
from ipsecctl.topology._sites import Sites, is_located, unknown_gateway
from ipsecctl.topology.document import Document, TunnelDoc
from ipsecctl.topology.model import ChildPer, Credential, Gateway, Path, Site
from ipsecctl.topology.naming import derived_if_id
from ipsecctl.topology.spelling import RESERVED_NAME

__all__ = ["Draft", "DraftEnd", "Group", "expand_groups"]


@dataclass(frozen=True, slots=True)
class _Ref:
    """A gateway named as an end: ``label`` is how expanded names call it.

    ``guessed`` when only its site is known, ``labelled`` unless the label is a guess, too.
    """

    gateway: Gateway
    label: str
    path: Path
    guessed: bool = False
    labelled: bool = True


@dataclass(slots=True)
class Group:
    """A group and its drafts; ``sites`` are all it names.

    ``whole`` is false when some of its ends were wrong, ``joined`` when there are no drafts of these for that
    reason, and ``all_sites`` when it is not known which sites they belong to.
    """

    name: str
    doc: TunnelDoc
    whole: bool = True
    joined: bool = True
    all_sites: bool = True
    sites: list[str] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)


def expand_groups(
    document: Document, sites: Sites, profiles: Profiles, credentials: Credentials, findings: Findings
) -> list[Group]:
    """Expand every group of tunnels into drafts; their names are unique in the file."""
    expander = _Expander(document, sites, profiles, credentials, findings)
    return [expander.group(name, doc) for name, doc in document.tunnels.items()]


class _Expander:
    def __init__(
        self,
        document: Document,
        sites: Sites,
        profiles: Profiles,
        credentials: Credentials,
        findings: Findings,
    ) -> None:
        self._document = document
        self._sites = sites
        self._profiles = profiles
        self._credentials = credentials
        self._findings = findings
        self._names: dict[str, Draft] = {}
        self._profile_cache: dict[tuple[str, str], tuple[Profile | None, Path]] = {}

    def group(self, name: str, doc: TunnelDoc) -> Group:
        whole, all_sites = check_shape(name, doc, self._findings)
        group = Group(name, doc, whole, whole, all_sites)
        for tunnel_name, left, right in self._pairs(group):
            if not self._joinable(group, left, right):
                continue
            if tunnel_name == RESERVED_NAME:
                hint = "strongSwan reads it as a directive: choose another"
                summary = f"{tunnel_name!r} cannot be the name of a tunnel"
                self._findings.error("IP015", ("tunnels", name), summary, hint, key=True)
            named = bool(doc.between) or (left.labelled and right.labelled)
            draft = Draft(
                name=tunnel_name,
                group=name,
                left=self._end(group, left, tunnel_name, named=named),
                right=self._end(group, right, tunnel_name, named=named),
                initiator=self._initiator(group, left, right),
                child_per=ChildPer(doc.children),
                if_id=(doc.between and doc.if_id) or derived_if_id(self._document.name, tunnel_name),
                any_selectors=doc.selectors == "any",
                initiator_given=bool(doc.between and doc.initiator),
                ppk=self._credentials.ppk(name, doc, tunnel_name),
            )
            other = self._names.setdefault(tunnel_name, draft)
            if other is not draft:
                line = self._findings.line(other.where)
                summary = (
                    f"two tunnels are called {tunnel_name!r}: the other is of {other.group!r}, line {line}"
                )
                self._findings.error("IP144", right.path, summary, "rename one of the groups")
            group.drafts.append(draft)
        return group

    def _pairs(self, group: Group) -> Iterator[tuple[str, _Ref, _Ref]]:
        """Yield name, left and right of every tunnel of a group."""
        doc = group.doc
        if doc.between and (doc.hub or doc.mesh):
            # Of several shapes the first is looked at; the names in the others must be right, too.
            for key, others in (("hub", doc.hub), ("spokes", doc.spokes), ("mesh", doc.mesh)):
                self._refs(group, key, others)
        elif doc.hub and doc.mesh:
            self._refs(group, "mesh", doc.mesh)
        if doc.between:
            ends = self._refs(group, "between", doc.between)
            if len(ends) == 2:
                yield group.name, ends[0], ends[1]
        elif doc.hub or doc.spokes:
            hubs = self._refs(group, "hub", doc.hub)
            spokes = self._refs(group, "spokes", doc.spokes, no_glob={h.gateway.site for h in hubs})
            for spoke in spokes:
                for hub in hubs:
                    suffix = f"-{hub.label}" if len(doc.hub) > 1 else ""
                    yield f"{group.name}-{spoke.label}{suffix}", spoke, hub
        else:
            members = self._refs(group, "mesh", doc.mesh)
            if len(members) == 1 and group.joined:
                hint = "name at least two, or make it a pair with 'between'"
                self._findings.error(
                    "IP141", ("tunnels", group.name, "mesh"), "a mesh of one site joins nothing", hint
                )
            for left, right in itertools.combinations(members, 2):
                yield f"{group.name}-{left.label}-{right.label}", left, right

    def _refs(self, group: Group, key: str, texts: list[str], no_glob: set[str] | None = None) -> list[_Ref]:
        """Resolve the ends that a list names, each gateway once; report those that are wrong."""
        found: dict[Path, _Ref] = {}
        named: dict[str, int] = {}
        base: Path = ("tunnels", group.name, key)
        for number, text in enumerate(texts):
            path: Path = (*base, number)
            if text in named and key == "between" and len(texts) != 2:
                continue
            if text in named and key == "between":
                self._report_itself(group, path, text.partition("/")[0])
                continue
            if text in named:
                self._findings.error("IP147", path, f"{text!r} stands twice in '{key}'", "remove one of them")
                continue
            named[text] = number
            is_glob = _is_pattern(text)
            names = self._globbed(group, text, path, no_glob or set()) if is_glob else [text]
            for name in names:
                ref = self._ref(group, name, path)
                if ref is None or ref.guessed:
                    group.whole = False
                if ref is None:
                    group.joined = False
                    continue
                other = found.setdefault(ref.gateway.where, ref)
                if other is not ref and not is_glob:
                    self._check_twice(group, key, ref, other)
        return list(found.values())

    def _check_twice(self, group: Group, key: str, ref: _Ref, other: _Ref) -> None:
        """Report one gateway named in two ways; a pattern may match what is also named."""
        first = other.path[-1]
        if key == "between":
            self._report_itself(group, ref.path, ref.gateway.site)
        elif ref.guessed or other.guessed:
            return
        elif isinstance(first, int) and not _is_pattern(getattr(group.doc, key)[first]):
            summary = f"the gateway {ref.gateway.name!r} is named twice in '{key}'"
            self._findings.error("IP147", ref.path, summary, "remove one of them")

    def _report_itself(self, group: Group, path: Path, site: str) -> None:
        group.whole = group.joined = False
        if self._findings.first("itself", group.name, site):
            hint = "remove it from one of the two lists" if group.doc.hub else "name two different sites"
            self._findings.error("IP140", path, f"a tunnel of the site {site!r} with itself", hint)

    def _globbed(self, group: Group, pattern: str, path: Path, never: set[str]) -> list[str]:
        site_pattern, slash, gateway = pattern.partition("/")
        matches = re.compile(fnmatch.translate(site_pattern)).match
        names = [name for name in self._sites.by_name if name not in never and matches(name)]
        lost = self._findings.lost(("sites",))
        if not names and not self._findings.gone(("sites",)) and not any(map(matches, lost)):
            hint = f"the sites are {listed(self._sites.by_name)}" if self._sites.by_name else "add sites"
            but = " but the hub" if any(map(matches, never)) else ""
            self._findings.error("IP142", path, f"no site{but} matches {pattern!r}", hint)
        if not names:
            group.whole = group.joined = group.all_sites = False
        return [f"{name}{slash}{gateway}" for name in names]

    def _ref(self, group: Group, text: str, path: Path) -> _Ref | None:
        """Return the gateway that SITE or SITE/GATEWAY names; report what is unknown or not clear."""
        site_name, slash, gateway_name = text.partition("/")
        site = self._sites.by_name.get(site_name)
        findings = self._findings
        if site is None:
            if not findings.damaged(("sites", site_name)):
                known = self._sites.by_name
                hint = findings.did_you_mean(
                    site_name, known, f"the sites are {listed(known)}" if known else "add it to 'sites'"
                )
                findings.error("IP101", path, f"there is no site {site_name!r}", hint)
            group.all_sites = False
            return None
        group.sites.append(site_name)
        gateways = {g.name: g for g in site.gateways}
        if slash:
            gateway = gateways.get(gateway_name)
            near: tuple[Path, ...] = (
                (*site.where, "gateways", gateway_name),
                (*site.where, "gateway"),
            )
            if gateway is None and not any(map(findings.damaged, near)):
                hint = findings.did_you_mean(
                    gateway_name,
                    gateways,
                    f"its gateways are {listed(gateways)}" if gateways else "it has no gateway",
                )
                findings.error("IP102", path, f"the site {site_name!r} has no gateway {gateway_name!r}", hint)
            if gateway is None:
                return _guessed(site, gateway_name, path)
            return _Ref(gateway, gateway_name, path)
        if not gateways:
            damaged = any(findings.damaged((*site.where, key)) for key in ("gateway", "gateways"))
            if not damaged and findings.first("no gateway", site_name):
                line = findings.line(site.where)
                hint = f"add 'gateway:' (an address, a DNS name or 'dynamic') to the site on line {line}"
                findings.error(
                    "IP121", path, f"the site {site_name!r} has no gateway to build a tunnel with", hint
                )
            several = findings.damaged((*site.where, "gateways"))
            return _guessed(site, site_name, path, labelled=not several)
        if len(gateways) > 1:
            hint = f"name one: {' or '.join(f'{site_name}/{name}' for name in list(gateways)[:8])}"
            findings.error("IP122", path, f"the site {site_name!r} has several gateways", hint)
            return _guessed(site, site_name, path)
        return _Ref(site.gateways[0], site_name, path)

    def _joinable(self, group: Group, left: _Ref, right: _Ref) -> bool:
        """Report a tunnel that joins a site with itself, or two sites that nobody here manages."""
        if left.gateway.site == right.gateway.site:
            path = left.path if group.doc.hub else right.path
            self._report_itself(group, path, left.gateway.site)
            return False
        if not left.gateway.managed and not right.gateway.managed:
            summary = (
                f"neither {left.gateway.site!r} nor {right.gateway.site!r} is managed: nothing to configure"
            )
            hint = "remove 'managed: false' at one of them, or the tunnel"
            if self._findings.first(
                "unmanaged", group.name, right.gateway.site if group.doc.hub else left.gateway.site
            ):
                self._findings.error("IP145", right.path, summary, hint)
            return False
        return True

    def _end(self, group: Group, ref: _Ref, tunnel: str, *, named: bool) -> DraftEnd:
        profile, profile_at = self._profile(group, ref.gateway.site)
        credential, credential_at = self._credentials.at(group.name, group.doc, ref.gateway, tunnel)
        mode, mode_at = end_mode(self._document, group.name, ref.gateway)
        return DraftEnd(
            ref.gateway,
            ref.path,
            profile,
            profile_at,
            credential,
            credential_at,
            credential is not None and self._is_secret_known(credential, ref, named=named),
            mode,
            mode_at,
            sa_options(group.doc.options).over(profile.options if profile is not None else NO_OPTIONS),
            addresses=tuple(
                address for key in self._keys_of(group, ref) for address in group.doc.addresses[key]
            ),
            guessed=ref.guessed,
        )

    def _is_secret_known(self, credential: Credential, ref: _Ref, *, named: bool) -> bool:
        """Return whether nothing unknown decides which secret is meant, or what must hold for it."""
        words = self._credentials.words_of(credential)
        if "tunnel" in words and not named:
            return False
        return not ref.guessed or ("gateway" not in words and credential.is_psk)

    def _keys_of(self, group: Group, ref: _Ref) -> Iterator[str]:
        """Yield the keys of ``addresses`` that name an end."""
        site, name = ref.gateway.site, ref.gateway.name
        pairwise = group.doc.addresses if group.doc.between else ()
        return (key for key in pairwise if key in (site, f"{site}/{name}"))

    def _profile(self, group: Group, site: str) -> tuple[Profile | None, Path]:
        """Return a site's profile in a group: the tunnel's, the site's, the default, the built-in one."""
        key = (group.name, site)
        if key not in self._profile_cache:
            self._profile_cache[key] = self._find_profile(group, site)
        return self._profile_cache[key]

    def _find_profile(self, group: Group, site: str) -> tuple[Profile | None, Path]:
        choices: tuple[tuple[str, Path], ...] = (
            (group.doc.profile, ("tunnels", group.name, "profile")),
            (self._sites.docs[site].profile, ("sites", site, "profile")),
            (self._document.defaults.profile, ("defaults", "profile")),
        )
        for name, path in choices:
            if name:
                return (
                    self._profiles.get(name, path)
                    if self._findings.first("profile", path)
                    else self._profiles.peek(name)
                ), path
            if self._findings.damaged(path):
                return None, path
        return self._profiles.get(DEFAULT_PROFILE, ("tunnels", group.name)), ("tunnels", group.name)

    def _initiator(self, group: Group, left_ref: _Ref, right_ref: _Ref) -> str:
        """Return which end calls: ``left`` or ``right``."""
        left, right = left_ref.gateway, right_ref.gateway
        wanted = group.doc.initiator
        caller = _caller(left, right)
        if not wanted or not group.doc.between:
            return caller
        path: Path = ("tunnels", group.name, "initiator")
        site, _, name = wanted.partition("/")
        sides = [s for s, g in (("left", left), ("right", right)) if g.site == site and name in ("", g.name)]
        if not sides and name and not group.whole:
            return caller
        if not sides:
            hint = f"write {left.site} or {right.site}"
            self._findings.error("IP146", path, f"{wanted!r} is no end of this tunnel", hint)
            return caller
        if left_ref.guessed or right_ref.guessed:
            return sides[0]
        callee = right if sides[0] == "left" else left
        if not is_located(left, self._findings) or not is_located(right, self._findings):
            return sides[0]
        if callee.reachable_at is None and (left.reachable_at or right.reachable_at):
            hint = f"let {callee.site} call: it is the one that cannot be called"
            self._findings.error(
                "IP146",
                path,
                f"{wanted!r} cannot call {callee.name!r}, which has no address to be called at",
                hint,
            )
        return sides[0]


def _guessed(site: Site, label: str, path: Path, *, labelled: bool = False) -> _Ref:
    """Return any gateway of a site in place of the one meant: what holds for the sites can be checked."""
    gateway = site.gateways[0] if site.gateways else unknown_gateway(site)
    return _Ref(gateway, label, path, guessed=True, labelled=labelled)


def _is_pattern(text: str) -> bool:
    return re.search(r"[*?\[]", text) is not None


def _caller(left: Gateway, right: Gateway) -> str:
    """The end that cannot be called calls; else the managed one; else the left one."""
    if right.reachable_at is None:
        return "right"
    if left.reachable_at is None:
        return "left"
    return "right" if right.managed and not left.managed else "left"
