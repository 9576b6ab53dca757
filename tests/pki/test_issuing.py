"""Issuing, renewing and revoking: what comes out, and what is refused before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from small_ca import KINDS, NOW, ONE_LEVEL, TWO_LEVELS, Ca, passphrase, topology

from ipsecctl.desired import compile_topology
from ipsecctl.errors import PkiError
from ipsecctl.pki.authority import make_crl, matching, revoke
from ipsecctl.pki.delivery import new_serial
from ipsecctl.pki.due import duration
from ipsecctl.pki.issuing import Wishes, issue_for_request, renew
from ipsecctl.pki.keytypes import KeyType, make_key, public_der
from ipsecctl.pki.ledger import Kind, State
from ipsecctl.pki.names import Constraints
from ipsecctl.pki.profiles import Addresses, Subject, request
from ipsecctl.secrets import inspect
from ipsecctl.secrets.certificates import holds

MakeCa = Callable[..., Ca]
DAY = timedelta(days=1)


def extension(certificate: x509.Certificate, kind: type) -> object:
    return certificate.extensions.get_extension_for_class(kind).value


def test_what_is_issued_is_what_validate_wants(ca: Ca) -> None:
    made = ca.issue()
    assert [entry.name for entry in made.entries] == ["a", "b", "dc"]
    found = inspect(topology(ca.base), ca.base, lambda _: (1, 1), now=NOW)
    assert found == ()
    assert ca.left() == {f"{n}.{e}" for n in ("a", "b", "dc") for e in ("pem", "key")} | {
        "root.pem",
        "issuing.pem",
    }


def test_a_gateways_certificate(ca: Ca) -> None:
    ca.issue("dc")
    made = ca.certificate("dc")
    assert made.not_valid_after_utc - NOW == 90 * DAY
    assert NOW - made.not_valid_before_utc == timedelta(hours=1)
    assert extension(made, x509.SubjectAlternativeName) == x509.SubjectAlternativeName(
        [x509.DNSName("dc.clinics.example")]
    )
    usage = extension(made, x509.KeyUsage)
    assert isinstance(usage, x509.KeyUsage)
    assert usage.digital_signature and not usage.key_cert_sign and not usage.key_encipherment
    assert list(extension(made, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.IPSEC_IKE]  # type: ignore[call-overload]
    root, issuing = ca.ledger.authority("root-1"), ca.ledger.authority("issuing-1")
    made.verify_directly_issued_by(issuing.certificate)
    issuing.certificate.verify_directly_issued_by(root.certificate)
    assert (root.certificate.not_valid_after_utc - NOW).days == 3650
    assert (issuing.certificate.not_valid_after_utc - NOW).days == 730


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ("198.51.100.10", "IPAddress(value=198.51.100.10)"),
        ("2001:db8::10", "IPAddress(value=2001:db8::10)"),
        ("gw@clinics.example", "RFC822Name(value='gw@clinics.example')"),
        ("gw.clinics.example", "DNSName(value='gw.clinics.example')"),
    ],
)
def test_an_identity_is_the_name_of_its_kind(ca: Ca, identity: str, name: str) -> None:
    ca.issue("dc", identity=identity)
    names = extension(ca.certificate("dc"), x509.SubjectAlternativeName)
    assert [f"<{name}>"] == [str(each) for each in names]  # type: ignore[attr-defined]
    assert holds(ca.certificate("dc"), identity)


def test_a_dn_is_the_subject_in_its_order(ca: Ca) -> None:
    ca.issue("dc", identity="C=CH, O=Clinic, CN=dc")
    subject = ca.certificate("dc").subject
    assert [attribute.rfc4514_attribute_name for attribute in subject] == ["C", "O", "CN"]


@pytest.mark.parametrize(
    ("identity", "complaint"),
    [
        ("@#0a0b", "spelled as no certificate holds it"),
        ("C=Switzerland, CN=dc", "cannot be a subject: 'C=Switzerland'"),
        ("CN=dc, WHAT=x", "a part that is not known: 'WHAT=x'"),
    ],
)
def test_an_identity_that_no_certificate_holds(ca: Ca, identity: str, complaint: str) -> None:
    with pytest.raises(PkiError, match=complaint):
        ca.issue("dc", identity=identity)
    assert ca.left() <= {"root.pem", "issuing.pem"}
    assert not [entry for entry in ca.ledger.entries.values() if entry.kind is Kind.END]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key(make_ca: MakeCa, kind: KeyType) -> None:
    ca = make_ca(key=kind, gateway_key=kind)
    ca.issue("a")
    assert ca.ledger.current()[0].key_type == kind


def test_what_is_there_stays(ca: Ca) -> None:
    ca.issue("a")
    before = (ca.base / "pki" / "a.key").read_bytes()
    made = ca.issue()
    assert [entry.name for entry in made.entries] == ["b", "dc"]
    assert made.kept == ("a",)
    assert (ca.base / "pki" / "a.key").read_bytes() == before
    ca.issue("a", again=True)
    assert (ca.base / "pki" / "a.key").read_bytes() != before


def test_problems_are_told_together_and_nothing_is_done(ca: Ca) -> None:
    (ca.base / "pki").mkdir()
    (ca.base / "pki" / "a.key").write_text("mine")
    (ca.base / "pki" / "b.pem").write_text("mine")
    with pytest.raises(PkiError) as refused:
        ca.issue()
    assert "a.key is there and" in refused.value.summary and "b.pem is there and" in refused.value.summary
    assert refused.value.hint == "nothing was issued"
    assert ca.left() == {"a.key", "b.pem"}


def test_one_place_for_two_gateways_is_refused(ca: Ca) -> None:
    one = '{certificate: pki/gw.pem, key: "file:pki/gw.key", ca: pki/root.pem, chain: pki/issuing.pem}'
    with pytest.raises(PkiError, match=r"pki/gw\.pem is wanted by a as a and by b as b"):
        ca.issue(credential=one)


def test_no_key_is_made_where_anybody_may_replace_it(ca: Ca) -> None:
    (ca.base / "pki").mkdir()
    (ca.base / "pki").chmod(0o777)
    with pytest.raises(PkiError, match=r"a: in a directory in which anybody may replace it: pki/a\.key"):
        ca.issue("a")
    assert ca.left() == set()


def test_a_key_in_the_environment_cannot_be_written(ca: Ca) -> None:
    place = '{certificate: "pki/{gateway}.pem", key: "env:KEY", ca: pki/root.pem, chain: pki/issuing.pem}'
    with pytest.raises(PkiError, match="its key is env:KEY: that cannot be written"):
        ca.issue("a", credential=place)


def test_levels_that_do_not_fit_the_topology(make_ca: MakeCa, tmp_path: Path) -> None:
    two = make_ca()
    with pytest.raises(PkiError, match=r"add 'chain: PATH' to its credential, as pki/issuing\.pem"):
        two.issue(credential=ONE_LEVEL)
    (tmp_path / "ca").rename(tmp_path / "away")
    one = make_ca(levels=1)
    with pytest.raises(PkiError, match="remove 'chain'"):
        one.issue(credential=TWO_LEVELS)
    one.issue(credential=ONE_LEVEL)
    one.certificate("a").verify_directly_issued_by(one.ledger.authority("root-1").certificate)


def test_another_cas_root_in_the_place_is_refused(make_ca: MakeCa, tmp_path: Path) -> None:
    make_ca().issue("a")
    (tmp_path / "ca").rename(tmp_path / "away")
    other = make_ca()
    with pytest.raises(PkiError, match=r"pki/root\.pem is CN=Clinics root 1, not root-1 of this CA"):
        other.issue("b")


def test_names_outside_the_constraints_are_refused_all_together(make_ca: MakeCa) -> None:
    ca = make_ca(constraints=Constraints(("dns:clinics.example",)))
    ca.issue("dc")
    with pytest.raises(PkiError, match=r"a: DNS:a \(constraints of issuing-1\); b: DNS:b"):
        ca.issue()
    assert len(ca.ledger.current()) == 1


def test_addresses_may_be_left_free_for_charons_that_cannot_read_such_constraints(make_ca: MakeCa) -> None:
    ca = make_ca(constraints=Constraints(("dns:a", "ip:any")))
    limits = extension(ca.ledger.authority("issuing-1").certificate, x509.NameConstraints)
    assert isinstance(limits, x509.NameConstraints)
    assert limits.excluded_subtrees is None
    assert limits.permitted_subtrees == [x509.DNSName("a"), x509.RFC822Name("invalid")]
    ca.issue("dc", identity="198.51.100.10")
    with pytest.raises(PkiError, match="b: DNS:b"):
        ca.issue("b")


@pytest.mark.parametrize("text", ["dns:", "clinics.example", "ip:192.0.2.1/24", "ip:here", "uri:x", "email:"])
def test_what_is_no_constraint(text: str) -> None:
    with pytest.raises(PkiError, match="is no name constraint"):
        Constraints((text,)).extension()


def test_addresses_of_crl_and_ocsp_are_those_of_the_issuer(make_ca: MakeCa) -> None:
    ca = make_ca(
        addresses=Addresses("http://x.example/{ca}.crl", "http://ocsp.example", "http://x.example/{ca}.cer")
    )
    ca.issue("a")
    shown = {
        "a": ca.certificate("a"),
        "issuing": ca.ledger.authority("issuing-1").certificate,
    }
    for name, by in (("a", "issuing-1"), ("issuing", "root-1")):
        points = list(extension(shown[name], x509.CRLDistributionPoints))  # type: ignore[call-overload]
        assert [each.value for each in points[0].full_name] == [f"http://x.example/{by}.crl"]
        access = list(extension(shown[name], x509.AuthorityInformationAccess))  # type: ignore[call-overload]
        assert [a.access_location.value for a in access] == [
            "http://ocsp.example",
            f"http://x.example/{by}.cer",
        ]


def test_a_certificate_ends_with_its_issuer(ca: Ca) -> None:
    late = NOW + 700 * DAY
    ca.issue("a", now=late)
    assert (
        ca.certificate("a").not_valid_after_utc
        == ca.ledger.authority("issuing-1").certificate.not_valid_after_utc
    )


@pytest.mark.parametrize(
    ("now", "complaint"),
    [
        (NOW + 731 * DAY, "issuing-1 expired on 2032-01-01"),
        (NOW - 1 * DAY, "issuing-1 is not valid before 2030-01-01 11:00 UTC"),
    ],
)
def test_a_ca_out_of_its_time_issues_nothing(ca: Ca, now: object, complaint: str) -> None:
    with pytest.raises(PkiError, match=complaint):
        ca.issue("a", now=now)  # type: ignore[arg-type]
    assert ca.left() == set()


def test_renewing_what_is_due(ca: Ca) -> None:
    ca.issue("a")
    ca.issue("b", days=300)
    later = NOW + 61 * DAY
    before = ca.certificate("a")
    made = renew(ca.folder, (), None, Wishes(), passphrase, later)
    assert ([entry.name for entry in made.entries], made.kept) == (["a"], ("b",))
    after = ca.certificate("a")
    assert after.serial_number != before.serial_number
    assert after.not_valid_after_utc - later == 90 * DAY
    assert public_der(after.public_key()) != public_der(before.public_key())
    assert renew(ca.folder, (), None, Wishes(), passphrase, later).entries == ()
    assert [e.name for e in renew(ca.folder, ["b"], duration("1y"), Wishes(), passphrase, later).entries] == [
        "b"
    ]
    renew(ca.folder, ["a"], None, Wishes(again=True), passphrase, later, same_key=True)
    kept = ca.certificate("a")
    assert public_der(kept.public_key()) == public_der(after.public_key())
    renew(ca.folder, ["a"], None, Wishes(again=True), passphrase, later)
    assert public_der(ca.certificate("a").public_key()) != public_der(kept.public_key())


def test_what_was_renewed_is_superseded_and_can_be_revoked(ca: Ca) -> None:
    ca.issue("a")
    renew(ca.folder, ["a"], None, Wishes(again=True), passphrase, NOW)
    first, second = matching(ca.ledger, "a")
    assert first.state(NOW, superseded=True) is State.SUPERSEDED
    revoked, lists = revoke(ca.folder, "a", "key-compromise", passphrase, NOW)
    assert {entry.serial for entry in revoked} == {first.serial, second.serial}
    assert {each.serial_number for each in lists["issuing-1"]} == {first.serial, second.serial}
    with pytest.raises(PkiError, match="all certificates of 'a' are revoked or expired"):
        revoke(ca.folder, "a", "superseded", passphrase, NOW)
    with pytest.raises(PkiError, match="all are revoked"):
        renew(ca.folder, ["a"], None, Wishes(again=True), passphrase, NOW)
    ca.issue("a", again=True)
    assert [entry.name for entry in ca.ledger.current()] == ["a"]


def test_renewing_where_the_place_is_gone(ca: Ca) -> None:
    ca.issue("a")
    (ca.base / "pki").rename(ca.base / "moved")
    with pytest.raises(PkiError, match="is not there: bring it back"):
        renew(ca.folder, (), None, Wishes(again=True), passphrase, NOW)


def test_crls_count_upwards_also_in_a_folder_from_a_backup(ca: Ca) -> None:
    journal = ca.folder.path / "journal.jsonl"
    backup = journal.read_bytes()
    numbers = []
    for days in range(3):
        made = make_crl(ca.folder, "issuing-1", passphrase, NOW + days * DAY)
        numbers.append(made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    again = make_crl(ca.folder, "issuing-1", passphrase, NOW + 2 * DAY)
    numbers.append(again.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    journal.write_bytes(backup)
    restored = make_crl(ca.folder, "issuing-1", passphrase, NOW + 3 * DAY)
    numbers.append(restored.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    assert numbers == sorted(set(numbers))
    assert x509.load_der_x509_crl(ca.folder.crl("issuing-1").read_bytes()) == restored


def test_what_has_expired_leaves_the_crl(ca: Ca) -> None:
    ca.issue("a")
    revoke(ca.folder, "a", "unspecified", passphrase, NOW)
    assert len(list(make_crl(ca.folder, "issuing-1", passphrase, NOW + 89 * DAY))) == 1
    assert list(make_crl(ca.folder, "issuing-1", passphrase, NOW + 91 * DAY)) == []


def test_the_issuing_ca_can_be_revoked_by_the_root_and_then_issues_nothing(ca: Ca) -> None:
    _, lists = revoke(ca.folder, "issuing-1", "ca-compromise", passphrase, NOW)
    assert list(lists) == ["root-1"] and len(list(lists["root-1"])) == 1
    with pytest.raises(PkiError, match="issuing-1 is revoked"):
        ca.issue("a")
    with pytest.raises(PkiError, match="a root is not revoked by its own CRL"):
        revoke(ca.folder, "root-1", "ca-compromise", passphrase, NOW)


def test_short_lives_are_not_due_at_once(ca: Ca) -> None:
    ca.issue("a", days=0.25)
    assert renew(ca.folder, (), None, Wishes(), passphrase, NOW).entries == ()
    assert renew(ca.folder, (), None, Wishes(), passphrase, NOW + timedelta(hours=5)).entries != ()


def test_validate_looks_at_the_ca_between(ca: Ca) -> None:
    ca.issue()
    place = ca.base / "pki" / "issuing.pem"

    def found(content: bytes, days: int = 0) -> set[tuple[str, str]]:
        place.write_bytes(content)
        seen = inspect(topology(ca.base), ca.base, lambda _: (1, 1), now=NOW + days * DAY)
        return {(finding.code, finding.summary) for finding in seen}

    right = place.read_bytes()
    assert found(right) == set()
    assert ("IP322", "expired on 2032-01-01: pki/issuing.pem") in found(right, 731)
    root = (ca.base / "pki" / "root.pem").read_bytes()
    assert {code for code, _ in found(root)} == {"IP326"}
    leaf = found((ca.base / "pki" / "a.pem").read_bytes())
    assert ("IP328", "not a CA (basicConstraints): pki/issuing.pem") in leaf
    assert ("IP326", "not issued by the CA in pki/root.pem: pki/issuing.pem") in leaf
    place.unlink()
    missing = inspect(topology(ca.base), ca.base, lambda _: (1, 1), now=NOW)
    assert {finding.code for finding in missing} == {"IP320"}


def test_all_that_a_gateway_needs_is_brought_to_it(ca: Ca) -> None:
    """Its own certificate and key, the root that it trusts, and the CA between for both directions."""
    state = {state.name: state for state in compile_topology(topology(ca.base))}["a"]
    assert [(file.target, file.source, file.ca) for file in state.certificates] == [
        ("x509/ipsecctl-a.pem", "pki/a.pem", False),
        ("x509ca/ipsecctl-issuing.pem", "pki/issuing.pem", True),
        ("x509ca/ipsecctl-root.pem", "pki/root.pem", True),
    ]
    (connection,) = state.connections
    assert connection.remote.ca == "x509ca/ipsecctl-root.pem", "charon takes nothing else as an anchor"


def test_serial_numbers_are_long_random_and_positive() -> None:
    serials = [new_serial(()) for _ in range(200)]
    assert len(set(serials)) == 200
    assert all(0 < serial < 2**159 for serial in serials)
    assert sum(serial >> 158 for serial in serials) > 50, "the highest bit is random, too"


def asked(key: object, identity: str = "c.example") -> x509.CertificateSigningRequest:
    return request(Subject(identity, "c"), key)  # type: ignore[arg-type]


def test_a_request_is_signed_and_its_key_stays_where_it_is(ca: Ca) -> None:
    key = make_key(KeyType.ED25519)
    out = ca.base / "c.pem"
    made = issue_for_request(ca.folder, asked(key), "c.csr", "", "", out, Wishes(), passphrase, NOW)
    certificate = x509.load_pem_x509_certificate(out.read_bytes())
    assert public_der(certificate.public_key()) == public_der(key.public_key())
    assert (made.entries[0].identity, made.entries[0].places.key) == ("c.example", "")
    renewed = renew(ca.folder, ["c.example"], None, Wishes(again=True), passphrase, NOW)
    assert public_der(renewed.entries[0].certificate.public_key()) == public_der(key.public_key())
    with pytest.raises(PkiError, match="is there already"):
        issue_for_request(ca.folder, asked(key), "c.csr", "", "", out, Wishes(), passphrase, NOW)


def test_a_request_asks_for_nothing_but_its_key(ca: Ca) -> None:
    """It wants to be a CA, of another name: neither is heard."""
    key = make_key(KeyType.ECDSA_P256)
    wish = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    wish = wish.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    wish = wish.add_extension(x509.SubjectAlternativeName([x509.DNSName("bank.example")]), critical=False)
    from cryptography.hazmat.primitives.hashes import SHA256

    out = ca.base / "c.pem"
    signed = wish.sign(key, SHA256())  # type: ignore[arg-type]
    issue_for_request(ca.folder, signed, "c.csr", "gw.example", "", out, Wishes(), passphrase, NOW)
    made = x509.load_pem_x509_certificate(out.read_bytes())
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("gw.example")]


def test_a_request_with_a_weak_key_is_refused(ca: Ca) -> None:
    weak = rsa.generate_private_key(65537, 2048)
    with pytest.raises(
        PkiError, match=r"c\.csr: a request with an RSA key of 2048 bits, and 3072 is the least"
    ):
        issue_for_request(
            ca.folder, asked(weak), "c.csr", "", "", ca.base / "c.pem", Wishes(), passphrase, NOW
        )
    assert not (ca.base / "c.pem").exists()


def test_a_request_that_its_key_did_not_sign_is_refused(ca: Ca) -> None:
    der = bytearray(asked(make_key(KeyType.ED25519)).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der))
    with pytest.raises(PkiError, match="its own key has not signed"):
        issue_for_request(ca.folder, forged, "c.csr", "", "", ca.base / "c.pem", Wishes(), passphrase, NOW)


@pytest.mark.parametrize("text", ["0d", "-3d", "soon", "30m", "200y", ""])
def test_what_is_no_span_of_time(text: str) -> None:
    with pytest.raises(PkiError, match="is no span of time"):
        duration(text)


def test_spans_of_time() -> None:
    spans = [duration(text).total_seconds() / 86400 for text in ("30d", "12h", "2w", "1y", "7", "1.5d")]
    assert spans == [30, 0.5, 14, 365, 7, 1.5]
