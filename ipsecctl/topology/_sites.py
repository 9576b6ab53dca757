"""Sites and gateways of the document as the model has them, with all defaults filled in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from netaddr import IPAddress, IPNetwork

from ipsecctl.topology._findings import Findings
from ipsecctl.topology._scalars import DYNAMIC
from ipsecctl.topology.document import DefaultsDoc, Document, GatewayDoc, SiteDoc
from ipsecctl.topology.model import Control, ControlKind, DataPath, Gateway, Network, Path, Site

__all__ = ["Sites", "is_located", "make_sites", "unknown_gateway"]


@dataclass(frozen=True, slots=True)
class Sites:
    """Everything that has a place: sites by name in the order of the file, and gateways by name."""

    docs: Mapping[str, SiteDoc]
    by_name: Mapping[str, Site]
    gateways: Mapping[str, Gateway] = field(default_factory=dict)

    def network(self, site: str, name: str) -> Network | None:
        return next((n for n in self.by_name[site].networks if n.name == name), None)


def make_sites(document: Document, findings: Findings) -> Sites:
    """Build sites and gateways; report gateways that share a name, an identity or an address."""
    sites: dict[str, Site] = {}
    gateways: dict[str, Gateway] = {}
    every: list[Gateway] = []
    for name, doc in document.sites.items():
        own: list[Gateway] = []
        for key, gateway_doc, path in _gateway_docs(name, doc):
            gateway = _gateway(
                key, gateway_doc, path, site=name, managed=doc.managed, defaults=document.defaults
            )
            other = gateways.setdefault(gateway.name, gateway)
            if other is not gateway:
                summary = (
                    f"two gateways are called {key!r}: the other is on line {findings.line(other.where)}"
                )
                hint = "give each gateway a name that no other one in the file has"
                findings.error("IP123", _at(path, gateway_doc, "name"), summary, hint)
            _check_identity(gateway, gateway_doc, findings)
            own.append(gateway)
        every += own
        networks = _networks(name, doc, findings)
        _check_nested(name, doc, findings)
        sites[name] = Site(name, networks, tuple(sorted(own)), doc.managed, ("sites", name))
    _check_unique(every, findings)
    return Sites(document.sites, sites, gateways)


def unknown_gateway(site: Site) -> Gateway:
    """Return what stands for a site's gateway where the file has none: it has no address.

    So the site takes part in whatever is checked of sites, and in nothing that is checked of gateways.
    """
    return Gateway(
        name=site.name,
        site=site.name,
        address=None,
        behind_nat=False,
        public_address=None,
        mtu=0,
        control=Control(ControlKind.LAB),
        data_path=DataPath.AUTO,
        identity=site.name,
        managed=site.managed,
        where=(*site.where, "gateway"),
    )


def is_located(gateway: Gateway, findings: Findings) -> bool:
    """Return whether nothing that says where a gateway can be reached had to be left out."""
    keys = ("address", "public_address", "behind_nat")
    return not any(findings.damaged((*gateway.where, key)) for key in keys)


def _gateway_docs(site: str, doc: SiteDoc) -> Iterator[tuple[str, GatewayDoc, Path]]:
    if doc.gateway is not None:
        yield doc.gateway.name or site, doc.gateway, ("sites", site, "gateway")
    for key, gateway in doc.gateways.items():
        yield key, gateway, ("sites", site, "gateways", key)


def _at(path: Path, doc: GatewayDoc, key: str) -> Path:
    return (*path, key) if key in doc.model_fields_set else path


def _gateway(
    name: str, doc: GatewayDoc, path: Path, *, site: str, managed: bool, defaults: DefaultsDoc
) -> Gateway:
    address: IPAddress | str | None = None if doc.address == DYNAMIC else doc.address
    public: IPAddress | str | None = doc.public_address
    known_at = address if address is not None else public
    return Gateway(
        name=name,
        site=site,
        address=address,
        behind_nat=doc.behind_nat or public is not None,
        public_address=public,
        mtu=doc.mtu or defaults.mtu,
        control=_control(doc.control or defaults.control, public if public is not None else address, name),
        data_path=DataPath(doc.datapath if "datapath" in doc.model_fields_set else defaults.datapath),
        identity=doc.identity or (name if managed or known_at is None else str(known_at)),
        managed=managed,
        inside=tuple(sorted(doc.inside)),
        one_armed=doc.one_armed,
        where=path,
    )


def _control(text: str | None, address: IPAddress | str | None, name: str) -> Control:
    if text is None:
        return Control(ControlKind.SSH, name if address is None else str(address))
    if text == "local":
        return Control(ControlKind.LOCAL)
    if text.startswith("ssh://"):
        return Control(ControlKind.SSH, text.removeprefix("ssh://"))
    return Control(ControlKind.LAB, text.partition(":")[2])


def _networks(site: str, doc: SiteDoc, findings: Findings) -> tuple[Network, ...]:
    networks = []
    for name, prefixes in doc.networks.items():
        path: Path = ("sites", site, "networks", name)
        unique: dict[IPNetwork, int] = {}
        for number, prefix in enumerate(prefixes):
            if prefix in unique:
                hint = "remove one of them"
                findings.warning(
                    "IP116", (*path, number), f"{prefix} stands twice in the network {name!r}", hint
                )
            unique.setdefault(prefix, number)
        networks.append(Network(site, name, tuple(unique), path))
    return tuple(networks)


def _check_nested(site: str, doc: SiteDoc, findings: Findings) -> None:
    """Warn of networks of one site that overlap: what a flow says of the one holds for a part of the other.

    Prefixes are nested or apart: sorted, each is compared with the nearest one around it only.
    """
    places = [
        (prefix, name, number)
        for name, several in doc.networks.items()
        for number, prefix in enumerate(several)
    ]
    if len(places) < 2:
        return
    around: list[tuple[IPNetwork, str, int]] = []
    for prefix, name, number in sorted(places, key=lambda p: (p[0].version, p[0].first, -p[0].last)):
        while around and (around[-1][0].version != prefix.version or around[-1][0].last < prefix.first):
            around.pop()
        if around and (around[-1][0] != prefix or around[-1][1] != name):
            _report_nested(site, (prefix, name, number), around[-1], findings)
        around.append((prefix, name, number))


def _report_nested(
    site: str,
    inner: tuple[IPNetwork, str, int],
    outer: tuple[IPNetwork, str, int],
    findings: Findings,
) -> None:
    paths: list[Path] = [("sites", site, "networks", name, number) for _, name, number in (inner, outer)]
    if inner[1] == outer[1]:
        summary = f"{inner[0]} lies inside {outer[0]} of the same network {inner[1]!r}"
        findings.warning("IP116", paths[0], summary, "remove it: the wider one covers it")
        return
    (first, other), place = (inner, outer), paths[0]
    line = findings.line(paths[1])
    relation = "is the same as" if inner[0] == outer[0] else "lies inside"
    summary = f"{site}.{first[1]} {first[0]} {relation} {site}.{other[1]} {other[0]} (line {line})"
    hint = f"whatever may pass to {other[1]!r} reaches {first[1]!r}, too: take networks that do not overlap"
    findings.warning("IP117", place, summary, hint)


def _check_identity(gateway: Gateway, doc: GatewayDoc, findings: Findings) -> None:
    nowhere = gateway.address is None and gateway.public_address is None
    unknown = findings.damaged((*gateway.where, "identity")) or not is_located(gateway, findings)
    if not gateway.managed and nowhere and not doc.identity and not unknown:
        summary = (
            f"the identity of {gateway.name!r} is not known: it is somebody else's, and has no fixed address"
        )
        findings.error("IP126", gateway.where, summary, "add 'identity:' as its owner has configured it")


def _check_unique(gateways: Iterable[Gateway], findings: Findings) -> None:
    identities: dict[str, Gateway] = {}
    addresses: dict[IPAddress | str, Gateway] = {}
    for gateway in gateways:
        address = gateway.reachable_at if is_located(gateway, findings) else None
        shared = False
        if address is not None:
            key = address.lower().rstrip(".") if isinstance(address, str) else address
            other = addresses.setdefault(key, gateway)
            shared = other is not gateway
            if shared:
                _report_shared("address", str(address), gateway, other, findings)
        follows = shared and gateway.identity == str(address)
        if follows or not _identity_is_known(gateway, findings):
            continue
        other = identities.setdefault(gateway.identity.lower(), gateway)
        if other is not gateway and not gateway.name == other.name == gateway.identity:
            _report_shared("identity", gateway.identity, gateway, other, findings)


def _identity_is_known(gateway: Gateway, findings: Findings) -> bool:
    """Return whether the identity is what the file says, or follows from what it says."""
    path: Path = (*gateway.where, "identity")
    said = findings.says(path)
    return not findings.damaged(path) and (said or gateway.managed or is_located(gateway, findings))


def _report_shared(what: str, value: str, gateway: Gateway, other: Gateway, findings: Findings) -> None:
    key = "public_address" if what == "address" and gateway.public_address is not None else what
    code = "IP125" if what == "address" else "IP124"
    path = (*gateway.where, key)
    summary = (
        f"the gateways {other.name!r} (line {findings.line((*other.where, key))}) and {gateway.name!r} "
        f"have one {what}: {value}"
    )
    hint = "peers could not tell them apart: give each its own"
    findings.error(code, path, summary, hint)
