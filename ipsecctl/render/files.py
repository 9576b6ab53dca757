"""A gateway's state as the files that will lie on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import SupportsBytes

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ipsecctl.desired import (
    CALL_FILE,
    CHARON_UNIT_FILE,
    FIREWALL_FILE,
    GUARD_FILE,
    GUARD_UNIT_FILE,
    HOLDING_TABLE,
    INTERFACES_FILE,
    MAIN_TABLE,
    NETWORK_MANAGER_FILE,
    NETWORKD_CONF_FILE,
    NETWORKD_FILE,
    ROUTES_FILE,
    SYSCTL_FILE,
    GatewayState,
    InterfaceKind,
    Knows,
    RouteKind,
    knows,
)
from ipsecctl.render.guards import elsewhere_sets, guard_sets, way_sets
from ipsecctl.render.options import child_mode, child_options
from ipsecctl.render.quoting import FILTERS
from ipsecctl.resources import resource_dir
from ipsecctl.topology import INTERFACE_PREFIX, DataPath, SecretRef

__all__ = [
    "CALL_FILE",
    "CHARON_UNIT_FILE",
    "FIREWALL_FILE",
    "GUARD_FILE",
    "GUARD_UNIT_FILE",
    "INTERFACES_FILE",
    "NETWORKD_CONF_FILE",
    "NETWORKD_FILE",
    "NETWORK_MANAGER_FILE",
    "ROUTES_FILE",
    "STRONGSWAN_FILE",
    "SWANCTL_FILE",
    "SWANCTL_SECRETS_FILE",
    "SYSCTL_FILE",
    "RenderedFile",
    "render_files",
    "template_environment",
    "template_values",
    "templates",
]

SWANCTL_FILE = "/etc/swanctl/conf.d/ipsecctl.conf"
SWANCTL_SECRETS_FILE = "/etc/swanctl/conf.d/ipsecctl-secrets.conf"
STRONGSWAN_FILE = "/etc/strongswan.d/ipsecctl.conf"

_PUBLIC = 0o644
_OWNER_ONLY = 0o600
_PROGRAM = 0o755
_TEMPLATES = (
    (CALL_FILE, "call.sh.j2", _PROGRAM),
    (CHARON_UNIT_FILE, "strongswan.service.j2", _PUBLIC),
    (FIREWALL_FILE, "firewall.nft.j2", _PUBLIC),
    (GUARD_FILE, "guard.sh.j2", _PROGRAM),
    (GUARD_UNIT_FILE, "guard.service.j2", _PUBLIC),
    (INTERFACES_FILE, "interfaces.j2", _PUBLIC),
    (NETWORKD_CONF_FILE, "networkd.conf.j2", _PUBLIC),
    (NETWORKD_FILE, "networkd.network.j2", _PUBLIC),
    (NETWORK_MANAGER_FILE, "network-manager.conf.j2", _PUBLIC),
    (ROUTES_FILE, "routes.j2", _PUBLIC),
    (STRONGSWAN_FILE, "strongswan.conf.j2", _PUBLIC),
    (SWANCTL_SECRETS_FILE, "swanctl-secrets.conf.j2", _OWNER_ONLY),
    (SWANCTL_FILE, "swanctl.conf.j2", _PUBLIC),
    (SYSCTL_FILE, "sysctl.conf.j2", _PUBLIC),
)


@dataclass(frozen=True, order=True, slots=True)
class RenderedFile:
    """A file as it must lie on a gateway: absolute path, content (not in its ``repr``), permission bits."""

    path: str
    content: bytes = field(repr=False)
    mode: int


def render_files(
    state: GatewayState, secrets: Mapping[SecretRef, SupportsBytes], certificates: Mapping[str, bytes]
) -> tuple[RenderedFile, ...]:
    """Return every file of one gateway, sorted by path.

    ``secrets`` holds each PSK and private key that the state refers to, ``certificates`` the PEM text of each
    certificate by its path in the topology. The same state gives the same files, to the byte.

    Raises ``KeyError`` when one of them is missing, and ``CannotQuote`` for a value that a file cannot hold.
    """
    values = template_values(state, secrets)
    files = [
        RenderedFile(path, template.render(values).encode(), mode) for path, template, mode in templates()
    ]
    for certificate in state.certificates:
        path = f"/etc/swanctl/{certificate.target}"
        files.append(RenderedFile(path, certificates[certificate.source], _PUBLIC))
    for key in state.private_keys:
        path = f"/etc/swanctl/{key.target}"
        files.append(RenderedFile(path, bytes(secrets[key.secret]), _OWNER_ONLY))
    return tuple(sorted(files, key=attrgetter("path")))


def template_values(state: GatewayState, secrets: Mapping[SecretRef, SupportsBytes]) -> dict[str, object]:
    """Return what the templates lay out: the state, and what is only another form of it."""
    sets = guard_sets(state.firewall)
    children = [(each.name, child) for each in state.connections for child in each.children]
    return {
        "state": state,
        "libipsec": state.data_path is DataPath.LIBIPSEC,
        "ipv6": any(rule.family == 6 for rule in state.firewall),
        "raw_esp": knows(state.version, Knows.RAW_ESP),
        "sets": sets,
        "by_policy": [each for each in sets if not each.routed],
        "by_route": [each for each in sets if each.routed],
        "ways": way_sets(state.firewall),
        "elsewhere": elsewhere_sets(state.elsewhere),
        "tunnel_interfaces": sorted(i.name for i in state.interfaces if i.kind is InterfaceKind.XFRM),
        "interface_prefix": INTERFACE_PREFIX,
        "into": [route for route in state.routes if route.kind is RouteKind.INTO],
        "holding": [r for r in state.routes if r.kind is RouteKind.HOLDING and r.table == MAIN_TABLE],
        "forwarding": [route for route in state.routes if route.table == HOLDING_TABLE],
        "modes": {(name, child.name): child_mode(child, state.version) for name, child in children},
        "options": {(name, child.name): child_options(child, state.version) for name, child in children},
        "shared_keys": [(key, secrets[key.secret]) for key in state.shared_keys],
        "gives_up_after_s": round(state.daemon.gives_up_after_s),
    }


@cache
def template_environment() -> Environment:
    """Return the environment of ``templates/``: undefined names are errors, the filters are ours."""
    environment = Environment(
        loader=FileSystemLoader(resource_dir("templates")),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML; every value passes a filter that quotes or refuses
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    environment.filters.update(FILTERS)
    return environment


@cache
def templates() -> tuple[tuple[str, Template, int], ...]:
    """Return (path on the gateway, template, mode) of each file made from a template, by path."""
    environment = template_environment()
    return tuple((path, environment.get_template(name), mode) for path, name, mode in _TEMPLATES)
