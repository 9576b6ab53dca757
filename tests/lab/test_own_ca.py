"""A CA of ``ipsecctl pki``, of two levels, on three versions of charon, for every kind of key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from ipsecctl import lab as labs
from ipsecctl.pki.keytypes import KeyType

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("own-ca")]

PASSPHRASE = "correct horse battery"
GATEWAY = re.compile(r"^    gateway: (\S+\.)(\d+)$", re.MULTILINE)
TUNNELS = 3


@pytest.fixture(scope="module")
def lab(lab_of) -> Iterator:
    with lab_of(labs.load("mixed-versions").called("own-ca")) as running:
        yield running


def two_levels(text: str) -> str:
    """Return the topology with certificates of another place, of two levels, for names in a domain."""
    text = text.replace(
        "    ca: pki/mixed-versions/ca.pem", "    ca: certs/root.pem\n    chain: certs/issuing.pem"
    )
    text = text.replace("pki/mixed-versions/", "certs/")
    return GATEWAY.sub(r"    gateway: {address: \1\2, identity: gw\2.clinics.example}", text)


def own_serial(lab, gateway: str) -> str:
    """Return the serial number of the certificate that lies where the topology has it."""
    file = Path(lab.file).parent / "certs" / f"{gateway}.pem"
    return f"{x509.load_pem_x509_certificate(file.read_bytes()).serial_number:x}"


def loaded(lab, gateway: str) -> set[str]:
    """Return the serial numbers of all certificates that a charon has by now."""
    listed = lab.sh(gateway, "swanctl --list-certs --type x509")
    found = (line.replace(":", "") for line in re.findall(r"serial:\s+([0-9a-f:]+)", listed))
    return {serial.lstrip("0") for serial in found}


def spis(lab) -> dict[str, set[str]]:
    """Return the SPIs of the IKE_SAs of each tunnel that is up."""
    tunnels = [tunnel for tunnel in lab.json("status", lab.file)["tunnels"] if tunnel["verdict"] == "up"]
    return {
        tunnel["name"]: {str(sa["spis"]) for end in tunnel["ends"] for sa in end["ike_sas"]}
        for tunnel in tunnels
    }


@pytest.fixture(scope="module", params=list(KeyType))
def certified(lab, request, tmp_path_factory: pytest.TempPathFactory):
    """The lab with a CA and gateways of one kind of key."""
    folder: Path = tmp_path_factory.mktemp("own-ca")
    patch = pytest.MonkeyPatch()
    patch.setenv("IPSECCTL_CA_PASSPHRASE", PASSPHRASE)
    patch.setenv("IPSECCTL_CA", str(folder / "ca"))
    changed = lab.changed(folder, two_levels)
    kind = str(request.param)
    # strongSwan 5.9.8 reads no constraints on addresses, and wants all of several of one kind to hold.
    permit = ("--permit", "dns:clinics.example", "--permit", "ip:any")
    changed.without_lab("pki", "init", "--name", kind, "--key", kind, "--gateway-key", kind, *permit)
    changed.without_lab("pki", "issue", changed.file, "--all")
    yield changed
    patch.undo()


def test_tunnels_come_up_and_take_new_certificates(certified) -> None:
    certified.apply("--allow", "disturb")
    before, serials = spis(certified), {g: own_serial(certified, g) for g in certified.managed}
    assert len(before) == TUNNELS
    certified.without_lab("pki", "renew", "--all")
    certified.apply("--allow", "disturb")
    after = spis(certified)
    assert not any(after[name] & before[name] for name in before), "authenticated anew"
    for gateway in certified.managed:
        assert own_serial(certified, gateway) != serials[gateway]
        assert own_serial(certified, gateway) in loaded(certified, gateway)


def test_another_cas_certificate_for_the_same_key_is_found_before_it_is_applied(
    certified, tmp_path: Path
) -> None:
    kind = certified.without_lab("pki", "show", "root-1").stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPSECCTL_CA", str(tmp_path / "ca"))
        (name,) = re.findall(r"subject +CN=(\S+) root 1", kind)
        certified.without_lab("pki", "init", "--name", name, "--key", "ecdsa-p256")
        request, out = tmp_path / "forky.csr", tmp_path / "forky.pem"
        certified.without_lab("pki", "export", "forky", "--csr", certified.file, "--out", str(request))
        certified.without_lab("pki", "issue", "--request", str(request), "--out", str(out))
    certificate = Path(certified.file).parent / "certs" / "forky.pem"
    right = certificate.read_bytes()
    certificate.write_bytes(out.read_bytes())
    try:
        refused = certified.without_lab("validate", certified.file, statuses=(1,))
    finally:
        certificate.write_bytes(right)
    assert "IP326" in refused.stdout and "not issued by the CA in certs/issuing.pem" in refused.stdout
