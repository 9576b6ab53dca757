"""The topology language, version 1, as it stands in the file: short forms, defaults and globs not yet worked
out.

These models are the edge: what they hold is typed, but still refers by name. ``json_schema`` and
docs/topology.md are made of them, so every key has a description here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from ipsecctl.topology._credential_doc import CredentialDoc, CredentialUse
from ipsecctl.topology._doc import Doc, one_to_list
from ipsecctl.topology._options import OptionsDoc
from ipsecctl.topology._profile_doc import ProfileDoc
from ipsecctl.topology._references import PpkDoc, VaultDoc
from ipsecctl.topology._route_words import EndKey, HostAddress, IfId, InsideAddress, WordOrList
from ipsecctl.topology._scalars import (
    Address,
    ControlText,
    GatewayRef,
    Identity,
    Key,
    Name,
    NetworkRef,
    OrWrong,
    PortRange,
    Prefix,
    ProtocolNumber,
    PublicAddress,
    Short,
    SpokeRef,
    Text,
    refuse,
    refuse_several,
)

__all__ = [
    "CredentialDoc",
    "DefaultsDoc",
    "Document",
    "FlowDoc",
    "GatewayDoc",
    "PpkDoc",
    "ProfileDoc",
    "SiteDoc",
    "TunnelDoc",
    "VaultDoc",
]


def _one_gateway(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


class GatewayDoc(Doc):
    """An IPsec gateway of a site; just its address is the short form."""

    name: Name = Field(
        default="", description="Its name, unique in the file; default the site's name.", examples=["gw-a"]
    )
    address: Annotated[Address, OrWrong(None)] = Field(
        description="The address on its WAN interface: an IPv4 or IPv6 address, a DNS name, or `dynamic`.",
        examples=["198.51.100.10", "gw.example.org", "dynamic"],
    )
    behind_nat: bool = Field(
        default=False, description="Whether a NAT device stands between it and the internet."
    )
    public_address: PublicAddress = Field(
        default=None,
        description="Where peers reach it when a NAT device forwards UDP 500 and 4500 to it; implies "
        "`behind_nat: true`.",
        examples=["203.0.113.7"],
    )
    mtu: Annotated[int, Field(ge=576, le=9216)] = Field(
        default=0, description="MTU of the WAN link in bytes; default that of `defaults`.", examples=[1492]
    )
    control: ControlText = Field(
        default=None,
        description="How ipsecctl reaches it: `local`, `lab`, `lab:NAME` or `ssh://[USER@]HOST[:PORT]`; HOST "
        "may be an alias of `~/.ssh/config`. The login is root, or has one line of sudoers (docs/ssh.md).",
        examples=["ssh://netops@gw-a.example.org"],
    )
    datapath: Literal["kernel", "libipsec", "auto"] = Field(
        default="auto",
        description="Who carries ESP: the kernel, charon itself, or whichever it turns out to be.",
    )
    mode: Literal["policy", "route", "auto"] = Field(
        default="policy",
        description="How packets find into its tunnels where these do not say: `policy`, `route` or `auto`.",
    )
    inside: Annotated[list[InsideAddress], Short(one_to_list, {"type": "string"}), Field(min_length=1)] = (
        Field(
            default=[],
            description="Its own address in its networks, or one for IPv4 and one for IPv6: the source of "
            "its own packets into tunnels, where the kernel carries ESP.",
            examples=["10.10.0.1", ["10.10.0.1", "fd00:10::1"]],
        )
    )
    one_armed: bool = Field(
        default=False,
        description="Whether its default route is its way to networks of its own site. Elsewhere what a "
        "tunnel brings for them goes by a route that is not a default one, or is held back; here a lost "
        "route cannot be told, and what comes out of a tunnel follows the default route.",
    )
    identity: Identity = Field(
        default="",
        description="Its IKE identity; default its name, or for a site that is not managed its address or "
        "DNS name. A certificate must hold it.",
        examples=["gw-a.example.org"],
    )

    @model_validator(mode="after")
    def _nat(self) -> Self:
        said = "behind_nat" in self.model_fields_set
        if self.public_address is not None and said and not self.behind_nat:
            hint = "remove 'behind_nat: false', or put the address into 'address'"
            summary = "'public_address' is that of a NAT device in front, but 'behind_nat' says false"
            refuse("IP018", summary, hint, at=("behind_nat",))
        return self


OneGateway = Annotated[
    GatewayDoc, Short(_one_gateway, {"type": "string", "description": "Just its address."})
]


class SiteDoc(Doc):
    """A place with networks and one or more gateways."""

    description: Text = Field(default="", description="Free text.")
    managed: bool = Field(
        default=True,
        description="`false` for somebody else's site: we know its side and do not configure it.",
    )
    networks: dict[
        Key,
        Annotated[list[Prefix], Short(one_to_list, {"type": "string"}), Field(min_length=1)],
    ] = Field(
        default={},
        description="Its networks by name: a prefix, or a list of IPv4 and IPv6 prefixes.",
        examples=[{"servers": "10.10.0.0/24", "imaging": ["10.10.8.0/24", "fd00:10:8::/64"]}],
    )
    gateway: OneGateway = Field(
        default=None, description="Its only gateway: the address, or a mapping.", examples=["198.51.100.10"]
    )  # type: ignore[assignment]
    gateways: Annotated[dict[Key, OneGateway], Field(min_length=1)] = Field(
        default={}, description="Several gateways, by name, instead of `gateway`."
    )
    profile: Name = Field(default="", description="The crypto profile at this site.", examples=["modern"])
    credential: CredentialUse = Field(
        default="", description="The credential at this site: a name, or inline."
    )

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if self.gateway is not None and self.gateways:
            refuse(
                "IP018",
                "'gateway' and 'gateways' exclude each other",
                "put all of them into 'gateways'",
                at=("gateways",),
            )
        for key, gateway in self.gateways.items():
            if gateway.name not in ("", key):
                hint = "remove 'name': the key is the name"
                summary = f"the gateway {key!r} is called {gateway.name!r} inside"
                refuse("IP018", summary, hint, at=("gateways", key, "name"))
        return self


_NETWORKS = {"type": "string", "pattern": "^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)?$"}


_NetworkRefs = Annotated[list[NetworkRef], Short(one_to_list, _NETWORKS), Field(min_length=1), OrWrong([])]


class FlowDoc(Doc):
    """What may pass the tunnels of a group; without flows everything between the networks of both ends may.

    Flows say what is protected: two networks that no flow pairs have no tunnel, and the firewall does not
    hold back what goes between them.

    A flow applies to every tunnel of the group that has `from` at one end and `to` at the other. Answers may
    pass.
    """

    name: Name = Field(default="", description="Its name; default `FROM-TO`.", examples=["pacs"])
    from_: _NetworkRefs = Field(
        alias="from",
        description="The networks that call: NETWORK or SITE.NETWORK, or a list.",
        examples=["lan", "clinic-a.lan"],
    )
    to: _NetworkRefs = Field(
        description="The networks that are called: NETWORK or SITE.NETWORK, or a list.",
        examples=["servers", ["dc.servers", "dc.imaging"]],
    )
    protocol: ProtocolNumber = Field(
        default=None, description="`tcp`, `udp`, `icmp`, `icmpv6` or a number; default any.", examples=["tcp"]
    )
    port: PortRange = Field(
        default=None,
        description="The port, or range of ports, at the `to` end; with `tcp` and `udp` only.",
        examples=[104, "8000-8080"],
    )

    @model_validator(mode="after")
    def _ports(self) -> Self:
        if self.port is not None and self.protocol not in (6, 17):
            hint = "add 'protocol: tcp' or 'protocol: udp'"
            summary = "a port means nothing without protocol tcp or udp"
            refuse("IP153", summary, hint, at=("port",), without=("protocol",))
        return self


if TYPE_CHECKING:
    RoutesUse: TypeAlias = list[Any] | str | None
else:
    RoutesUse = Annotated[list[Prefix], WordOrList("networks", "none"), Field(min_length=1)]


class TunnelDoc(Doc):
    """A group of tunnels: a pair (`between`), hub and spokes, or a full mesh.

    The ends are sites (SITE), or one gateway of a site that has several (SITE/GATEWAY).
    """

    description: Text = Field(default="", description="Free text.")
    between: Annotated[list[GatewayRef], BeforeValidator(refuse_several)] = Field(
        default=[],
        description="A pair: the two ends.",
        examples=[["clinic-a", "dc/gw-1"]],
        json_schema_extra={"minItems": 2, "maxItems": 2},
    )
    hub: Annotated[list[GatewayRef], Short(one_to_list, {"type": "string"}), Field(min_length=1)] = Field(
        default=[],
        description="The hub, or a list of hubs: each spoke has a tunnel to each.",
        examples=["dc"],
    )
    spokes: Annotated[list[SpokeRef], Short(one_to_list, {"type": "string"}), Field(min_length=1)] = Field(
        default=[],
        description="The spokes: sites, or patterns with `*` and `?`, which never match a hub.",
        examples=[["clinic-a", "clinic-*"]],
    )
    mesh: Annotated[list[SpokeRef], BeforeValidator(refuse_several), Field(min_length=1)] = Field(
        default=[],
        description="A full mesh: each of these sites with each other.",
        examples=[["north", "south", "west"]],
    )
    profile: Name = Field(
        default="", description="The crypto profile of these tunnels.", examples=["pq-hybrid"]
    )
    credential: CredentialUse = Field(
        default="", description="The credential of both ends: a name, or inline.", examples=["clinics"]
    )
    ppk: PpkDoc | None = Field(
        default=None, description="A Post-quantum Preshared Key (RFC 8784), at both ends."
    )
    children: Literal["flow", "subnet-pair"] = Field(
        default="flow",
        description="One CHILD_SA for each flow, or one for each pair of subnets, as some vendors want it.",
    )
    mode: Literal["policy", "route", "auto"] = Field(
        default="policy",
        description="How packets find into the tunnel at our ends: `policy` (IPsec policies take them on "
        "their way), `route` (routes lead them to an interface of the tunnel), or `auto`: `route` where the "
        "gateway's kernel carries ESP and has xfrm interfaces. Default what the gateway says, or `defaults`.",
    )
    selectors: Literal["networks", "any"] = Field(
        default="networks",
        description="What the SAs allow: the networks of the flows, or `any`thing (0.0.0.0/0 and ::/0), so "
        "that routes alone decide; with `mode: route` at our ends only.",
    )
    if_id: IfId = Field(
        default=0,
        description="What joins SAs and interface in route mode, for a pair only; default made of the names "
        "of topology and tunnel.",
        examples=[42],
    )
    addresses: dict[
        EndKey, Annotated[list[HostAddress], Short(one_to_list, {"type": "string"}), Field(min_length=1)]
    ] = Field(
        default={},
        description="The addresses of the tunnel's interface by end (SITE or SITE/GATEWAY), for a pair in "
        "route mode: in one subnet, or /32 and /128.",
        examples=[{"clinic-a": "169.254.10.1/30", "dc": "169.254.10.2/30"}],
    )
    routes: RoutesUse = Field(
        default=None,
        description="What is led into the tunnel in route mode: the far end's `networks` of the flows "
        "(default), `none` (a routing daemon does it), or for a pair a list of networks that covers them.",
        examples=["networks", ["10.20.0.0/16"]],
    )
    options: OptionsDoc = Field(default=OptionsDoc(), description="Options of the tunnel's SAs.")
    initiator: GatewayRef = Field(
        default="", description="The site that calls, for a pair only; default the end that cannot be called."
    )
    flows: Annotated[list[FlowDoc], Field(min_length=1)] = Field(
        default=[], description="What may pass; default everything between the networks of both ends."
    )


class DefaultsDoc(Doc):
    """What holds for every site, gateway and tunnel that does not say otherwise."""

    profile: Name = Field(
        default="", description="The crypto profile; built-in default `modern`.", examples=["modern"]
    )
    credential: CredentialUse = Field(
        default="", description="The credential: a name, or inline.", examples=["clinics"]
    )
    control: ControlText = Field(
        default=None,
        description="How ipsecctl reaches gateways: `local`, `lab`, `lab:NAME` or "
        "`ssh://[USER@]HOST[:PORT]`. Built-in default: SSH to the gateway's address, or else its name.",
        examples=["lab"],
    )
    datapath: Literal["kernel", "libipsec", "auto"] = Field(
        default="auto",
        description="Who carries ESP: the kernel, charon itself, or whichever it turns out to be.",
    )
    mode: Literal["policy", "route", "auto"] = Field(
        default="policy",
        description="How packets find into tunnels: by `policy`, by `route` to an interface, or `auto`.",
    )
    mtu: Annotated[int, Field(ge=576, le=9216)] = Field(
        default=1500, description="MTU of the WAN links in bytes."
    )


class Document(Doc):
    """A topology: sites, and the tunnels between them."""

    ipsecctl: Literal[1] = Field(description="The version of the language: 1.")
    name: Name = Field(description="The topology's name.", examples=["clinic-dc"])
    description: Text = Field(default="", description="Free text.")
    defaults: DefaultsDoc = Field(
        default=DefaultsDoc(), description="What holds unless something says otherwise."
    )
    credentials: dict[Key, CredentialDoc] = Field(default={}, description="Credentials by name.")
    vault: VaultDoc = Field(default=VaultDoc(), description="The Vault that `vault:` references mean.")
    profiles: dict[Key, ProfileDoc] = Field(default={}, description="Crypto profiles of one's own, by name.")
    sites: dict[Key, SiteDoc] = Field(
        description="The sites by name.", json_schema_extra={"minProperties": 1}
    )
    tunnels: dict[Key, TunnelDoc] = Field(default={}, description="Groups of tunnels by name.")
