"""An organisation's own CA: the request that goes out, the chain that comes back, and its mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from small_ca import NOW, ONE_LEVEL, TWO_LEVELS, topology

from ipsecctl.errors import IpsecctlError, PkiError, TopologyRefused
from ipsecctl.pki.importing import examine, install, key_of, owner, presented, request_for
from ipsecctl.pki.keytypes import KeyType, make_key, public_der
from ipsecctl.pki.names import Constraints
from ipsecctl.pki.profiles import Issuer, Subject, ca_certificate, crl, end_certificate
from ipsecctl.pki.wanted import Wanted, wanted
from ipsecctl.secrets import inspect

DAY = timedelta(days=1)


@dataclass
class Organisation:
    """Somebody's CA, and the gateway dc that has asked it."""

    base: Path
    permit: tuple[str, ...] = ()
    since: datetime = NOW
    whose: Wanted = field(init=False)
    root: Issuer = field(init=False)
    issuing: Issuer = field(init=False)

    def __post_init__(self) -> None:
        self.whose = {one.gateway: one for one in wanted(topology(self.base))}["dc"]
        self.root = self.ca("Org root", None)
        self.issuing = self.ca("Org issuing", self.root, constraints=Constraints(self.permit))

    def ca(self, name: str, issuer: Issuer | None, *, days: float = 730, **more: Any) -> Issuer:
        key = make_key(KeyType.ECDSA_P256)
        signer = None if issuer else key
        length = 0 if issuer else 1
        made = ca_certificate(
            name, key.public_key(), x509.random_serial_number(), self.since, days,
            issuer=issuer, signer=signer, path_length=length, **more,
        )  # fmt: skip
        return Issuer(made, key)

    def request(self) -> x509.CertificateSigningRequest:
        return request_for(self.whose, self.base, KeyType.ECDSA_P256)[0]

    def end(
        self, *, identity: str = "dc.clinics.example", now: datetime = NOW, key: Any = None, days: float = 90
    ) -> Any:
        public = key or self.request().public_key()
        serial = x509.random_serial_number()
        return end_certificate(Subject(identity, "dc"), public, serial, now, days, self.issuing)

    def files(self, *certificates: x509.Certificate) -> list[Path]:
        found = []
        for number, certificate in enumerate(certificates):
            file = self.base / f"{number}.pem"
            file.write_bytes(certificate.public_bytes(Encoding.PEM))
            found.append(file)
        return found

    def come(self, *certificates: x509.Certificate, crls: tuple[Path, ...] = (), now: datetime = NOW) -> Any:
        given = presented(self.files(*certificates))
        return examine(self.whose, given, crls, key_of(self.whose, self.base), now)

    def chain(self, **end: Any) -> tuple[x509.Certificate, ...]:
        return (self.end(**end), self.issuing.certificate, self.root.certificate)

    def findings(self, *certificates: x509.Certificate, **more: Any) -> list[str]:
        with pytest.raises(TopologyRefused) as refused:
            self.come(*certificates, **more)
        assert not (self.base / "pki" / "dc.pem").exists()
        return [f"{finding.code} {finding.summary} | {finding.hint}" for finding in refused.value.diagnostics]


@pytest.fixture
def org(tmp_path: Path) -> Organisation:
    return Organisation(tmp_path)


def test_from_the_request_to_a_topology_that_is_right(org: Organisation) -> None:
    asked, is_new = request_for(org.whose, org.base, KeyType.ECDSA_P384)
    assert is_new and asked.is_signature_valid
    again, is_new = request_for(org.whose, org.base, KeyType.ECDSA_P384)
    assert not is_new and public_der(again.public_key()) == public_der(asked.public_key())
    key = org.base / "pki" / "dc.key"
    assert key.stat().st_mode & 0o777 == 0o600
    names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("dc.clinics.example")]
    written = install(org.come(*org.chain()), org.base)
    assert [path.name for path in written] == ["root.pem", "issuing.pem", "dc.pem"]
    codes = {finding.code for finding in inspect(topology(org.base), org.base, lambda _: (1, 1), now=NOW)}
    assert codes == {"IP301", "IP320"}, "those of a and b are still missing, and nothing else is wrong"
    assert (
        install(
            org.come(
                *org.chain()[:0],
                *[
                    x509.load_pem_x509_certificate(p.read_bytes())
                    for p in (
                        org.base / "pki" / "dc.pem",
                        org.base / "pki" / "issuing.pem",
                        org.base / "pki" / "root.pem",
                    )
                ],
            ),
            org.base,
        )
        == ()
    )


def test_whose_it_is_is_seen_by_the_identity(org: Organisation) -> None:
    every = wanted(topology(org.base))
    given = presented(org.files(*org.chain()))
    assert owner(every, given, "").gateway == "dc"
    assert owner(every, given, "a").gateway == "a"
    with pytest.raises(PkiError, match="no gateway 'x' shows a certificate"):
        owner(every, given, "x")
    stranger = presented(org.files(*org.chain(identity="x.example")))
    with pytest.raises(PkiError, match="gateways whose identity it holds: none"):
        owner(every, stranger, "")


def test_another_certificate_that_is_there_is_replaced_only_when_told(org: Organisation) -> None:
    install(org.come(*org.chain()), org.base)
    before = (org.base / "pki" / "dc.pem").read_bytes()
    second = org.come(*org.chain())
    with pytest.raises(PkiError, match=r"dc\.pem is there already and another one"):
        install(second, org.base)
    assert (org.base / "pki" / "dc.pem").read_bytes() == before
    assert [path.name for path in install(second, org.base, replaces=True)] == ["dc.pem"]


def test_the_wrong_order_is_told_with_the_right_one(org: Organisation) -> None:
    end, issuing, root = org.chain()
    (found,) = org.findings(end, root, issuing)
    assert found.startswith("IP333") and "in the wrong order" in found
    assert found.index("CN=dc") < found.index("CN=Org issuing") < found.index("CN=Org root")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (lambda o: o.chain()[:2], "IP341 {}: the root is missing | add the certificate of 'CN=Org root'"),
        (lambda o: (o.end(), o.root.certificate), "IP333 {}; {}: not one chain"),
        (
            lambda o: o.chain(identity="other.example"),
            "IP332 {}: does not hold the identity 'dc.clinics.example'",
        ),
        (lambda o: o.chain(now=NOW - 91 * DAY), "IP334 {}: expired on 2029-12-31"),
        (
            lambda o: o.chain(now=NOW + DAY),
            "IP335 {}: not valid before 2030-01-02 11:00 UTC | this machine's clock says",
        ),
        (
            lambda o: (o.request(), o.chain(key=make_key(KeyType.ED25519).public_key()))[1],
            "IP331 {}: does not match the gateway's key",
        ),
    ],
    ids=["root missing", "issuing missing", "identity", "expired", "not yet", "key"],
)
def test_a_chain_with_a_mistake(tmp_path: Path, what: Callable[[Organisation], Any], expected: str) -> None:
    org = Organisation(tmp_path, since=NOW - 100 * DAY)
    found = org.findings(*what(org))
    head = expected.split("{}")
    assert any(all(part in said for part in head) for said in found), found


def test_a_signature_of_another_ca_of_the_same_name(org: Organisation, tmp_path: Path) -> None:
    other = Organisation(tmp_path)
    found = org.findings(org.end(), other.issuing.certificate, other.root.certificate)
    assert any(said.startswith("IP338") and "'CN=Org issuing'" in said for said in found)


def test_an_expired_ca(tmp_path: Path) -> None:
    org = Organisation(tmp_path, since=NOW - 800 * DAY)
    found = org.findings(*org.chain(now=NOW - 100 * DAY, days=200))
    assert any("IP334" in said and "1.pem: expired" in said for said in found)


def test_a_gateways_certificate_as_a_ca(org: Organisation) -> None:
    end = org.end()
    key = make_key(KeyType.ECDSA_P256)
    fake = end_certificate(
        Subject("x.example", "x"),
        key.public_key(),
        7,
        NOW,
        90,
        Issuer(org.issuing.certificate, org.issuing.key),
    )
    below = end_certificate(
        Subject("dc.clinics.example", "dc"), end.public_key(), 8, NOW, 9, Issuer(fake, key)
    )
    found = org.findings(below, fake, org.issuing.certificate, org.root.certificate)
    assert any("IP339" in said and "1.pem: not a CA" in said for said in found)


def test_more_cas_than_the_path_length_allows_and_than_there_is_room_for(org: Organisation) -> None:
    middle = org.ca("One too many", org.issuing)
    end = end_certificate(Subject("dc.clinics.example", "dc"), org.request().public_key(), 8, NOW, 9, middle)
    found = org.findings(end, middle.certificate, org.issuing.certificate, org.root.certificate)
    assert any("IP339" in said and "allows 0 CAs below it, and there are 1" in said for said in found)
    assert any("IP344" in said and "2 CAs between" in said for said in found)


def test_a_name_that_the_ca_may_not_issue_for(tmp_path: Path) -> None:
    org = Organisation(tmp_path, permit=("dns:other.example",))
    found = org.findings(*org.chain())
    assert any(
        s.startswith("IP342") and "DNS:dc.clinics.example is outside of what 'CN=Org issuing'" in s
        for s in found
    )


def own(org: Organisation, *extensions: x509.ExtensionType, key: Any = None) -> x509.Certificate:
    """Return a certificate of dc as another CA would write it."""
    draft = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(org.issuing.certificate.subject)
    draft = draft.public_key(key or org.request().public_key()).serial_number(9)  # type: ignore[arg-type]
    draft = draft.not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    for extension in (x509.SubjectAlternativeName([x509.DNSName("dc.clinics.example")]), *extensions):
        draft = draft.add_extension(extension, critical=False)
    return draft.sign(org.issuing.key, SHA256())  # type: ignore[arg-type]


def usage(**on: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
    )
    more = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: on.get(name, False) for name in names + more})


@pytest.mark.parametrize(
    ("extensions", "complaint"),
    [
        ([usage(key_encipherment=True)], "may not sign (key usage)"),
        ([x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])], "is not for IKE (extended key usage)"),
    ],
)
def test_a_certificate_for_another_use(org: Organisation, extensions: Any, complaint: str) -> None:
    found = org.findings(own(org, *extensions), org.issuing.certificate, org.root.certificate)
    assert any(said.startswith("IP340") and complaint in said for said in found)


@pytest.mark.parametrize(
    "extensions",
    [
        [],
        [usage(content_commitment=True)],
        [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])],
        [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])],
    ],
)
def test_what_rfc_4945_allows_is_taken(org: Organisation, extensions: Any) -> None:
    org.come(own(org, *extensions), org.issuing.certificate, org.root.certificate)


def test_weak_keys_of_others(org: Organisation) -> None:
    for bits, refused in ((1024, True), (2048, False)):
        weak = rsa.generate_private_key(65537, bits).public_key()
        made = own(org, key=weak)
        given = presented(org.files(made, org.issuing.certificate, org.root.certificate))
        if refused:
            with pytest.raises(TopologyRefused, match="error"):
                examine(org.whose, given, (), None, NOW)
        else:
            (warning,) = examine(org.whose, given, (), None, NOW).warnings
            assert warning.code == "IP337" and "2048 bits" in warning.summary
    odd = own(org, key=ec.generate_private_key(ec.SECP256K1()).public_key())
    given = presented(org.files(odd, org.issuing.certificate, org.root.certificate))
    with pytest.raises(TopologyRefused) as refusal:
        examine(org.whose, given, (), None, NOW)
    assert "secp256k1" in refusal.value.diagnostics[0].summary


def test_a_crl_says_who_is_revoked_and_is_of_the_right_ca(org: Organisation, tmp_path: Path) -> None:
    chain = org.chain()

    def made(by: Issuer, *serials: int, now: datetime = NOW) -> tuple[Path]:
        revoked = [(serial, NOW, x509.ReasonFlags.key_compromise) for serial in serials]
        file = tmp_path / "org.crl"
        file.write_bytes(crl(by, 1, now, 30, revoked).public_bytes(Encoding.DER))
        return (file,)

    org.come(*chain, crls=made(org.issuing))
    assert any(
        "IP343" in said for said in org.findings(*chain, crls=made(org.issuing, chain[0].serial_number))
    )
    assert any("IP343" in said for said in org.findings(*chain, crls=made(org.root, chain[1].serial_number)))
    assert any("IP345" in said for said in org.findings(*chain, crls=made(org.issuing, now=NOW - 40 * DAY)))
    other = Organisation(tmp_path)
    (found,) = org.findings(*chain, crls=made(other.issuing))
    assert found.startswith("IP336") and "a CRL of another CA" in found
    (found,) = org.findings(*chain, crls=made(org.ca("Stranger", None)))
    assert "it is of 'CN=Stranger'" in found


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lambda pem: pem[: len(pem) // 2], "is cut off: an END line is missing"),
        (lambda pem: pem + pem[: len(pem) // 2], "is cut off: an END line is missing"),
        (lambda pem: pem + pem.replace(b"MII", b"AAA", 1), "certificate 2 of 2 is damaged"),
        (lambda _: b"", "is empty"),
        (lambda _: b"\x30\x82 something", "neither PEM nor DER"),
        (lambda pem: pem.replace(b"CERTIFICATE", b"PUBLIC KEY"), "holds no certificate, but: public key"),
    ],
    ids=["half", "second half", "damaged", "empty", "neither", "another thing"],
)
def test_a_file_that_is_no_certificate(org: Organisation, content: Any, complaint: str) -> None:
    file = org.base / "org.pem"
    file.write_bytes(content(org.end().public_bytes(Encoding.PEM)))
    with pytest.raises(PkiError, match=complaint) as refused:
        presented([file])
    assert "org.pem" in refused.value.summary


def test_a_file_of_several_and_der(org: Organisation) -> None:
    bundle = org.base / "bundle.pem"
    bundle.write_bytes(b"Bag Attributes\n" + b"".join(c.public_bytes(Encoding.PEM) for c in org.chain()))
    assert [each.where for each in presented([bundle])] == [f"{bundle}, certificate {n}" for n in (1, 2, 3)]
    bundle.write_bytes(org.end().public_bytes(Encoding.DER))
    assert [each.where for each in presented([bundle])] == [str(bundle)]


def test_levels_that_the_topology_has_no_place_for(org: Organisation, tmp_path: Path) -> None:
    flat = {one.gateway: one for one in wanted(topology(tmp_path, ONE_LEVEL))}["dc"]
    given = presented(org.files(*org.chain()))
    with pytest.raises(TopologyRefused) as refused:
        examine(flat, given, (), None, NOW)
    assert [(d.code, d.hint) for d in refused.value.diagnostics] == [
        ("IP344", "add 'chain: PATH' to the gateway's credential")
    ]
    assert wanted(topology(tmp_path, TWO_LEVELS))[0].chain == "pki/issuing.pem"


def test_a_key_that_others_can_read_is_not_used(org: Organisation) -> None:
    org.request()
    (org.base / "pki" / "dc.key").chmod(0o644)
    with pytest.raises(IpsecctlError, match="readable or writable by others"):
        org.request()
