"""Names in certificates: an IKE identity as charon looks for it, and what a CA may issue for.

charon compares an identity with the subjectAltName of its own type, or with the whole subject, never with the
CN alone (RFC 4945 section 3.1).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.x509.oid import NameOID

from ipsecctl.errors import PkiError

__all__ = [
    "Constraints",
    "common_name",
    "constraint",
    "general_names",
    "is_dn",
    "names_text",
    "outside",
    "subject_for",
]

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_ATTRIBUTES: Final = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "STREET": NameOID.STREET_ADDRESS,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
    "SN": NameOID.SERIAL_NUMBER,
    "DC": NameOID.DOMAIN_COMPONENT,
    "UID": NameOID.USER_ID,
    "E": NameOID.EMAIL_ADDRESS,
    "EMAILADDRESS": NameOID.EMAIL_ADDRESS,
}
_NO_HOST: Final = "invalid"
"""Nobody's (RFC 6761 section 6.4). No constraint excludes all mailboxes, and charon passes over the empty one
that excludes all DNS names (tried with strongSwan 6.1.0); it heeds what is permitted."""

ANY_ADDRESS: Final = "ip:any"

_LONGEST_CN: Final = 64
"""ub-common-name of RFC 5280 appendix A."""

_FOREIGN: Final = (
    "@",
    "keyid:",
    "fqdn:",
    "rfc822:",
    "userfqdn:",
    "ipv4:",
    "ipv6:",
    "asn1dn:",
    "email:",
    "dns:",
)


def is_dn(identity: str) -> bool:
    """Whether charon takes an identity for a distinguished name (``C=CH, O=Clinic, CN=gw``)."""
    return "=" in identity


def common_name(text: str) -> x509.Name:
    """Return a name of one CN, cut to the length that it may have."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_LONGEST_CN])])


def subject_for(identity: str, name: str) -> x509.Name:
    """Return the subject of a gateway's certificate: the identity if that is a DN, else its name as CN.

    The parts of a DN come in the order in which the identity has them: charon compares them in order.
    """
    if not is_dn(identity):
        return common_name(name or identity)
    parts = [part.strip() for part in identity.replace("/", ",").split(",") if part.strip()]
    attributes = []
    for part in parts:
        key, _, value = (text.strip() for text in part.partition("="))
        kind = _ATTRIBUTES.get(key.upper())
        if kind is None or not value:
            hint = f"parts are KEY=value, with {', '.join(_ATTRIBUTES)}"
            raise PkiError(f"the identity {identity!r} has a part that is not known: {part!r}", hint)
        try:
            attributes.append(x509.NameAttribute(kind, value))
        except ValueError as error:
            raise PkiError(f"the identity {identity!r} cannot be a subject: {part!r}", str(error)) from None
    return x509.Name(attributes)


def general_names(identity: str) -> list[x509.GeneralName]:
    """Return an identity as subjectAltName: IP, DNS or e-mail; nothing for a DN, which is the subject.

    Raises ``PkiError`` for what no certificate can hold, as a key ID.
    """
    if is_dn(identity):
        return []
    if identity.lower().startswith(_FOREIGN):
        hint = "write it without prefix: a DNS name, an address, an e-mail address, or a DN"
        raise PkiError(f"the identity {identity!r} is spelled as no certificate holds it", hint)
    try:
        return [x509.IPAddress(ipaddress.ip_address(identity))]
    except ValueError:
        kind = x509.RFC822Name if "@" in identity else x509.DNSName
    try:
        return [kind(identity)]
    except ValueError as error:
        raise PkiError(f"the identity {identity!r} cannot stand in a certificate", str(error)) from None


def names_text(names: Iterable[x509.GeneralName]) -> list[str]:
    """Return names as ``DNS:gw``, ``IP:192.0.2.1``, ``email:gw@x``, as OpenSSL spells them."""
    return [_name_text(name) for name in names]


def _name_text(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return f"DNS:{name.value}"
    if isinstance(name, x509.IPAddress):
        return f"IP:{name.value}"
    if isinstance(name, x509.RFC822Name):
        return f"email:{name.value}"
    if isinstance(name, x509.DirectoryName):
        return f"DN:{name.value.rfc4514_string()}"
    return f"{type(name).__name__}:{getattr(name, 'value', '')}"


def constraint(text: str) -> x509.GeneralName:
    """Return a name constraint: ``dns:example.org``, ``ip:192.0.2.0/24``, ``email:example.org``.

    A DNS constraint holds for the name and all below it (RFC 5280 section 4.2.1.10), one of e-mail for all
    mailboxes of a host, or with a leading dot of all hosts below it. Raises ``PkiError``.
    """
    kind, _, value = text.partition(":")
    value = value.strip()
    hint = "dns:example.org, ip:192.0.2.0/24, or email:example.org"
    try:
        if kind.lower() == "dns" and value:
            return x509.DNSName(value.lower().lstrip("."))
        if kind.lower() == "email" and value:
            return x509.RFC822Name(value)
        if kind.lower() == "ip":
            return x509.IPAddress(ipaddress.ip_network(value))
    except ValueError as error:
        raise PkiError(f"{text!r} is no name constraint: {error}", hint) from None
    raise PkiError(f"{text!r} is no name constraint", hint)


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a CA may issue for: the texts as given, ``dns:...``, ``ip:...``, ``email:...``.

    ``permitted`` concerns only the kinds that it names; a kind that it does not name is forbidden as a whole,
    so that a CA for ``dns:example.org`` cannot issue for an address. That takes a constraint on addresses,
    with which strongSwan 5.9.8 cannot read the CA's certificate (6.0.1 can): ``ip:any`` leaves it out.
    """

    permitted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.permitted or self.excluded)

    @property
    def any_address(self) -> bool:
        """Whether addresses are free."""
        return ANY_ADDRESS in (text.lower() for text in self.permitted)

    @property
    def on_addresses(self) -> bool:
        """Whether the extension will hold addresses."""
        return bool(self) and any(
            isinstance(name, x509.IPAddress)
            for names in (self.extension().permitted_subtrees, self.extension().excluded_subtrees)
            for name in names or ()
        )

    def extension(self) -> x509.NameConstraints:
        """Return the extension. Raises ``PkiError`` for a text that is none."""
        permitted = [constraint(text) for text in self.permitted if text.lower() != ANY_ADDRESS]
        excluded = [constraint(text) for text in self.excluded]
        if self.permitted:
            if not self.any_address:
                excluded += _other_addresses(permitted)
            permitted += _nobody(permitted)
        return x509.NameConstraints(permitted or None, excluded or None)


def _nobody(permitted: Sequence[x509.GeneralName]) -> list[x509.GeneralName]:
    """Return what permits, of a kind of name that is not named, only names that nobody has."""
    kinds = {type(name) for name in permitted}
    return [kind(_NO_HOST) for kind in (x509.DNSName, x509.RFC822Name) if kind not in kinds]


def _other_addresses(permitted: Sequence[x509.GeneralName]) -> list[x509.GeneralName]:
    """Return what excludes a family of addresses that is not named."""
    families = {name.value.version for name in permitted if isinstance(name, x509.IPAddress)}
    found: list[x509.GeneralName] = []
    if 4 not in families:
        found.append(x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")))
    if 6 not in families:
        found.append(x509.IPAddress(ipaddress.ip_network("::/0")))
    return found


def outside(names: Iterable[x509.GeneralName], constraints: x509.NameConstraints) -> x509.GeneralName | None:
    """Return the first name that constraints do not allow (RFC 5280 section 6.1.4 g), ``None`` if all are."""
    permitted, excluded = constraints.permitted_subtrees or [], constraints.excluded_subtrees or []
    for name in names:
        alike = [base for base in permitted if type(base) is type(name)]
        if alike and not any(_within(name, base) for base in alike):
            return name
        if any(_within(name, base) for base in excluded if type(base) is type(name)):
            return name
    return None


def _within(name: x509.GeneralName, base: x509.GeneralName) -> bool:
    if isinstance(name, x509.IPAddress) and isinstance(base, x509.IPAddress):
        return _address_within(name, base)
    if isinstance(name, x509.RFC822Name) and isinstance(base, x509.RFC822Name):
        return _mailbox_within(name.value.lower(), base.value.lower())
    if isinstance(name, x509.DNSName) and isinstance(base, x509.DNSName):
        text, end = name.value.lower(), base.value.lower().lstrip(".")
        return not end or text == end or text.endswith(f".{end}")
    return False


def _address_within(name: x509.IPAddress, base: x509.IPAddress) -> bool:
    network: _Network = ipaddress.ip_network(base.value)
    address = name.value
    return isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address) and address in network


def _mailbox_within(mailbox: str, base: str) -> bool:
    if "@" in base:
        return mailbox == base
    host = mailbox.rpartition("@")[2]
    return host.endswith(base) if base.startswith(".") else host == base
