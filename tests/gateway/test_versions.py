"""What Debian's three charons and its tools answered, recorded in labs/mixed-versions on Debian's kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipsecctl.crypto import PROFILES, parse_esp_proposal, parse_ike_proposal
from ipsecctl.gateway import Has, Needs, lacks
from ipsecctl.gateway._capability_parser import parse_capabilities, parse_charon
from ipsecctl.gateway._charon_names import CHARON_NAMES
from ipsecctl.health import parse_list_sas
from ipsecctl.topology import DataPath

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = ["5.9.8", "6.0.1", "6.1.0"]
TOOLS = {"5.9.8": "debian-12-tools", "6.0.1": "debian-13-tools", "6.1.0": "debian-13-kernel"}
ML_KEM = {"ML_KEM_512", "ML_KEM_768", "ML_KEM_1024"}


def charon(version):
    recorded = json.loads((RECORDED / f"charon-{version}.json").read_text())
    return parse_charon(recorded["version"], recorded["stats"], recorded["get-algorithms"])


def gateway(version):
    return parse_capabilities("gw", (RECORDED / f"{TOOLS[version]}.txt").read_text(), charon(version))


def needs(profile):
    wanted = PROFILES[profile]
    return Needs(
        ike=tuple(map(parse_ike_proposal, wanted.ike_proposals)),
        esp=tuple(map(parse_esp_proposal, wanted.esp_proposals)),
        data_path=DataPath.KERNEL,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_what_charon_says_of_itself(version):
    told = charon(version)
    assert (told.version, told.version_numbers) == (version, tuple(map(int, version.split("."))))
    assert "vici" in told.plugins
    assert set(told.ml_kem) == (ML_KEM if version == "6.1.0" else set())
    # Until 6.0 the key exchanges were listed under "dh".
    assert {"CURVE_25519", "ECP_384", "MODP_2048"} <= told.key_exchanges
    assert {"AES_GCM_16", "CHACHA20_POLY1305"} <= set(told.named("aead"))


def test_every_name_that_we_give_charon_is_one_of_its_own():
    known = {name for version in VERSIONS for _, names in charon(version).algorithms for name in names}
    assert set(CHARON_NAMES.values()) <= known


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("profile", ["modern", "pq-hybrid"])
def test_what_it_lacks(version, profile):
    found = lacks(gateway(version), needs(profile))
    if profile == "modern" or version == "6.1.0":
        assert found == ()
        return
    assert {lack.what for lack in found} == {f"charon {version} cannot do mlkem768 (ML_KEM_768)"}
    assert all(lack.certain for lack in found)


@pytest.mark.parametrize(("version", "unknown"), [("5.9.8", '"dir"'), ("6.0.1", '"pcpu-num"')])
def test_tools_that_cannot_ask_a_newer_kernel(version, unknown):
    """bookworm's and trixie's iproute2 on a newer kernel: what they cannot ask is not known, not absent."""
    found = gateway(version)
    assert found.data_path is DataPath.KERNEL
    kernel = found.kernel
    assert all(answer.yes for answer in (kernel.esp, kernel.esp_ipv6, kernel.xfrm_interfaces, kernel.esn))
    assert all(answer.yes for _, answer in kernel.suites)
    assert kernel.per_cpu_sas.has is Has.UNKNOWN and unknown in kernel.per_cpu_sas.why
    assert kernel.iptfs.has is Has.UNKNOWN and '"iptfs"' in kernel.iptfs.why
    assert found.firewall.sets.yes and found.firewall.xfrm.yes
    assert found.unknown == ()
    assert {listener.port for listener in found.listeners} == {500, 4500}


@pytest.mark.parametrize("version", VERSIONS)
def test_sas_are_read(version):
    sas = parse_list_sas(json.loads((RECORDED / f"sas-{version}.json").read_text()))
    assert len(sas) == 2
    for sa in sas:
        assert sa.established and sa.suite.startswith("AES_GCM_16-256")
        assert not sa.nat_local and not sa.nat_remote
        (child,) = sa.children
        assert (child.name, child.installed, child.encapsulated) == (sa.name, True, False)
        assert len(child.spi_in) == len(child.spi_out) == 8
        assert len(child.local_ts) == len(child.remote_ts) == 2
        assert child.age_s is not None and child.rekey_in_s and child.life_in_s
