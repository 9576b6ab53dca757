"""The topology language, version 1, as it stands in the file: short forms, defaults and globs not yet worked
out.

These models are the edge: what they hold is typed, but still refers by name. ``json_schema`` and
docs/topology.md are made of them, so every key has a description here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import core_schema

from ipsecctl.crypto import PROFILES
from ipsecctl.topology._scalars import (
    Address,
    ControlText,
    Duration,
    FilePath,
    GatewayRef,
    Identity,
    Key,
    KeyRef,
    Name,
    NetworkRef,
    OrWrong,
    PortRange,
    Prefix,
    ProtocolNumber,
    PskRef,
    PublicAddress,
    Short,
    SpokeRef,
    Text,
    refuse,
)

__all__ = [
    "CredentialDoc",
    "DefaultsDoc",
    "Document",
    "FlowDoc",
    "GatewayDoc",
    "ProfileDoc",
    "SiteDoc",
    "TunnelDoc",
]


class _Doc(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class _NameOrInline:
    """A credential is used by name, or written where it is used."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        def name_or(value: Any, inline: Any) -> Any:
            return value if isinstance(value, str) else inline(value)

        return core_schema.no_info_wrap_validator_function(name_or, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "description": "A name in credentials:"}, handler(schema)]}


def _one_to_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _one_gateway(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


class CredentialDoc(_Doc):
    """How a gateway proves who it is: a PSK, or a certificate with its key and the CA that signed it.

    Paths are relative to the topology file. The placeholders `{tunnel}`, `{gateway}` and `{site}` stand for
    the expanded tunnel's, the end's gateway's and its site's name.
    """

    psk: PskRef = Field(
        default=None,
        description="Where the pre-shared key lies, never the key itself: `file:PATH` (owner-only mode), "
        "`env:NAME` or `age:PATH`. Both ends of a tunnel use the same key: take `{tunnel}` as placeholder.",
        examples=["file:secrets/clinic-dc/{tunnel}.psk", "env:PSK_PARTNER"],
    )
    certificate: FilePath = Field(
        default="", description="The gateway's certificate, PEM or DER.", examples=["pki/{gateway}.pem"]
    )
    key: KeyRef = Field(
        default=None,
        description="Where its private key lies: `file:PATH`, `env:NAME` or `age:PATH`.",
        examples=["file:pki/{gateway}.key"],
    )
    ca: FilePath = Field(
        default="",
        description="The CA certificate by which the other end knows this one; enough for an end that "
        "is not managed.",
        examples=["pki/ca.pem"],
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        certificate = {"certificate": self.certificate, "key": self.key, "ca": self.ca}
        given = [name for name, value in certificate.items() if value]
        if self.psk is not None and given:
            hint = f"remove 'psk' or '{given[0]}'"
            refuse("IP018", "a credential is a PSK or a certificate, not both", hint, at=("psk",))
        if self.psk is None and not given:
            hint = "give 'psk', or 'certificate', 'key' and 'ca'"
            without = ("psk", *certificate)
            refuse("IP018", "a credential without 'psk' or 'certificate'", hint, without=without)
        missing = [name for name, value in certificate.items() if not value]
        if self.psk is None and missing and given != ["ca"]:
            hint = "give 'certificate', 'key' and 'ca'; for an end that is not managed 'ca' is enough"
            lacking = " and ".join(f"'{name}'" for name in missing)
            summary = f"a certificate credential without {lacking}"
            refuse("IP018", summary, hint, without=tuple(missing))
        return self


if TYPE_CHECKING:
    CredentialUse: TypeAlias = CredentialDoc | str
else:
    CredentialUse = Annotated[CredentialDoc, _NameOrInline()]


class ProfileDoc(_Doc):
    """A crypto profile of one's own: what it does not say it takes from `based_on`."""

    description: Text = Field(default="", description="What it is for.")
    based_on: Name = Field(
        default="modern",
        description=f"A built-in profile ({', '.join(f'`{n}`' for n in PROFILES)}) or another of this file.",
        examples=["modern"],
    )
    ike: Annotated[list[str], Short(_one_to_list, {"type": "string"}), Field(min_length=1)] = Field(
        default=[],
        description="IKE proposals in swanctl's keywords, the preferred one first.",
        examples=[["aes256gcm16-prfsha384-ecp384"]],
    )
    esp: Annotated[list[str], Short(_one_to_list, {"type": "string"}), Field(min_length=1)] = Field(
        default=[],
        description="ESP proposals in swanctl's keywords; a key exchange in them gives PFS.",
        examples=[["aes256gcm16-ecp384"]],
    )
    ike_rekey: Duration = Field(
        default=None, description="An IKE SA is rekeyed after this time at the latest.", examples=["4h"]
    )
    ike_life: Duration = Field(
        default=None,
        description="An IKE SA that was not rekeyed ends after this time; default 110 % of `ike_rekey`.",
        examples=["264m"],
    )
    esp_rekey: Duration = Field(
        default=None, description="A CHILD_SA is rekeyed after this time at the latest.", examples=["1h"]
    )
    esp_life: Duration = Field(
        default=None,
        description="A CHILD_SA that was not rekeyed ends after this time; default 110 % of `esp_rekey`.",
        examples=["66m"],
    )
    dpd_delay: Duration = Field(
        default=None,
        description="A silent peer is asked for a sign of life after this time.",
        examples=["15s"],
    )
    pfs: bool = Field(
        default=True,
        description="Whether each CHILD_SA has its own key exchange; `false` removes those of `based_on`.",
    )
    reason: Text = Field(
        default="",
        description="Why there is no PFS; wanted with `pfs: false`.",
        examples=["The partner has none."],
    )


class GatewayDoc(_Doc):
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
        description="How ipsecctl reaches it: `local`, `lab`, `lab:NAME` or `ssh://[USER@]HOST[:PORT]`.",
        examples=["ssh://root@gw-a.example.org"],
    )
    datapath: Literal["kernel", "libipsec", "auto"] = Field(
        default="auto",
        description="Who carries ESP: the kernel, charon itself, or whichever it turns out to be.",
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


class SiteDoc(_Doc):
    """A place with networks and one or more gateways."""

    description: Text = Field(default="", description="Free text.")
    managed: bool = Field(
        default=True,
        description="`false` for somebody else's site: we know its side and do not configure it.",
    )
    networks: dict[
        Key,
        Annotated[list[Prefix], Short(_one_to_list, {"type": "string"}), Field(min_length=1)],
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


_NetworkRefs = Annotated[list[NetworkRef], Short(_one_to_list, _NETWORKS), Field(min_length=1), OrWrong([])]


class FlowDoc(_Doc):
    """What may pass the tunnels of a group; without flows everything between the networks of both ends may.

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


class TunnelDoc(_Doc):
    """A group of tunnels: a pair (`between`), hub and spokes, or a full mesh.

    The ends are sites (SITE), or one gateway of a site that has several (SITE/GATEWAY).
    """

    description: Text = Field(default="", description="Free text.")
    between: list[GatewayRef] = Field(
        default=[],
        description="A pair: the two ends.",
        examples=[["clinic-a", "dc/gw-1"]],
        json_schema_extra={"minItems": 2, "maxItems": 2},
    )
    hub: Annotated[list[GatewayRef], Short(_one_to_list, {"type": "string"}), Field(min_length=1)] = Field(
        default=[],
        description="The hub, or a list of hubs: each spoke has a tunnel to each.",
        examples=["dc"],
    )
    spokes: Annotated[list[SpokeRef], Short(_one_to_list, {"type": "string"}), Field(min_length=1)] = Field(
        default=[],
        description="The spokes: sites, or patterns with `*` and `?`, which never match a hub.",
        examples=[["clinic-a", "clinic-*"]],
    )
    mesh: Annotated[list[SpokeRef], Field(min_length=1)] = Field(
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
    children: Literal["flow", "subnet-pair"] = Field(
        default="flow",
        description="One CHILD_SA for each flow, or one for each pair of subnets, as some vendors want it.",
    )
    initiator: GatewayRef = Field(
        default="", description="The site that calls, for a pair only; default the end that cannot be called."
    )
    flows: Annotated[list[FlowDoc], Field(min_length=1)] = Field(
        default=[], description="What may pass; default everything between the networks of both ends."
    )


class DefaultsDoc(_Doc):
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
    mtu: Annotated[int, Field(ge=576, le=9216)] = Field(
        default=1500, description="MTU of the WAN links in bytes."
    )


class Document(_Doc):
    """A topology: sites, and the tunnels between them."""

    ipsecctl: Literal[1] = Field(description="The version of the language: 1.")
    name: Name = Field(description="The topology's name.", examples=["clinic-dc"])
    description: Text = Field(default="", description="Free text.")
    defaults: DefaultsDoc = Field(
        default=DefaultsDoc(), description="What holds unless something says otherwise."
    )
    credentials: dict[Key, CredentialDoc] = Field(default={}, description="Credentials by name.")
    profiles: dict[Key, ProfileDoc] = Field(default={}, description="Crypto profiles of one's own, by name.")
    sites: dict[Key, SiteDoc] = Field(description="The sites by name.")
    tunnels: dict[Key, TunnelDoc] = Field(default={}, description="Groups of tunnels by name.")
