"""What a gateway lacks of what its topology needs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ipsecctl.crypto import ALGORITHMS, PROFILES, Kind, parse_esp_proposal, parse_ike_proposal
from ipsecctl.desired import compile_topology
from ipsecctl.gateway import Answer, Feature, Has, Needs, lacks, needs_of
from ipsecctl.gateway._capability_parser import parse_capabilities, parse_charon
from ipsecctl.gateway._charon_names import CHARON_NAMES
from ipsecctl.topology import DataPath, load_text

RECORDED = Path(__file__).parent / "recorded"
LIBIPSEC = (RECORDED / "lab-libipsec.txt").read_text()
KERNEL = (RECORDED / "debian-13-kernel.txt").read_text()
CHARON = json.loads((RECORDED / "charon-6.1.0.json").read_text())
NO = Answer(Has.NO, "it said so")
UNKNOWN = Answer(Has.UNKNOWN, "it was not tried")


def charon(*, libipsec=False, algorithms=None, version="6.1.0"):
    plugins = [*(["kernel-libipsec"] if libipsec else []), *CHARON["stats"]["plugins"]]
    return parse_charon({"version": version}, {"plugins": plugins}, algorithms or CHARON["get-algorithms"])


def kernel_gateway(**kernel):
    found = parse_capabilities("gw", KERNEL, charon())
    return replace(found, kernel=replace(found.kernel, **kernel))


def libipsec_gateway():
    return parse_capabilities("gw", LIBIPSEC, charon(libipsec=True))


def profile(name, **more):
    wanted = PROFILES[name]
    return Needs(
        ike=tuple(map(parse_ike_proposal, wanted.ike_proposals)),
        esp=tuple(map(parse_esp_proposal, wanted.esp_proposals)),
        **more,
    )


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_gateways_that_have_all_of_it(name):
    assert lacks(kernel_gateway(), profile(name, data_path=DataPath.KERNEL)) == ()
    assert lacks(libipsec_gateway(), profile(name)) == ()


def test_ml_kem_without_a_provider():
    """charon 6.0.1 reads the keyword and has nobody who can do it."""
    algorithms = {k: dict(v) for k, v in CHARON["get-algorithms"].items()}
    algorithms["ke"] = {n: p for n, p in algorithms["ke"].items() if not n.startswith("ML_KEM")}
    told = charon(algorithms=algorithms, version="6.0.1")
    found = parse_capabilities("gw", KERNEL, told)
    first, second = lacks(found, profile("pq-hybrid"))
    assert first.what == "charon 6.0.1 cannot do mlkem768 (ML_KEM_768)"
    assert first.why_needed == "the IKE proposal aes256gcm16-prfsha384-x25519-ecp384-ke1_mlkem768"
    assert "strongSwan 6.1" in first.mend and "ESP proposal" in second.why_needed
    assert lacks(found, profile("modern")) == ()


def test_the_kernel_is_wanted_and_has_no_esp():
    found = parse_capabilities("gw", LIBIPSEC, charon())
    (lack,) = lacks(found, profile("modern", data_path=DataPath.KERNEL))
    assert lack.what == "it has no ESP in the kernel (Requested type not found)" and lack.certain
    (lack,) = lacks(found, profile("modern"))
    assert "so the kernel has to carry ESP" in lack.why_needed
    carried, without_esp = lacks(libipsec_gateway(), profile("modern", data_path=DataPath.KERNEL))
    assert "carries ESP itself" in carried.what and "no ESP" in without_esp.what


def test_libipsec_is_wanted_and_not_loaded():
    (lack,) = lacks(kernel_gateway(), Needs(data_path=DataPath.LIBIPSEC))
    assert lack.what == "charon has no kernel-libipsec loaded"


def test_chacha_is_missing_in_the_kernel():
    suites = tuple((n, NO if n == "chacha20poly1305" else a) for n, a in kernel_gateway().kernel.suites)
    (lack,) = lacks(kernel_gateway(suites=suites), profile("modern"))
    assert lack.what == "it has no chacha20poly1305 in the kernel (it said so)"
    assert lack.why_needed == "the ESP proposal chacha20poly1305-x25519-ecp384"


def test_what_is_not_known_is_said_and_is_not_certain():
    (lack,) = lacks(kernel_gateway(), Needs(esp=(parse_esp_proposal("camellia256-sha256-x25519"),)))
    assert not lack.certain and "not known whether it has camellia256-sha256" in lack.what
    found = kernel_gateway(xfrm_interfaces=UNKNOWN, iptfs=NO)
    first, second = lacks(found, Needs(features=frozenset((Feature.IPTFS, Feature.XFRM_INTERFACES))))
    assert (first.certain, second.certain) == (True, False)


@pytest.mark.parametrize(
    ("feature", "field"),
    [
        (Feature.XFRM_INTERFACES, "xfrm_interfaces"),
        (Feature.IPTFS, "iptfs"),
        (Feature.PER_CPU_SAS, "per_cpu_sas"),
        (Feature.ESN, "esn"),
        (Feature.UDP_ENCAPSULATION, "udp_encapsulation"),
        (Feature.HW_OFFLOAD, "offload"),
        (Feature.IPV6_OUTSIDE, "esp_ipv6"),
    ],
)
def test_features(feature, field):
    needs = Needs(features=frozenset((feature,)))
    assert lacks(kernel_gateway(**{field: Answer(Has.YES)}), needs) == ()
    (lack,) = lacks(kernel_gateway(**{field: NO}), needs)
    assert lack.certain and str(feature) in lack.what and "it said so" in lack.what
    carried = lacks(libipsec_gateway(), needs)
    kept = feature in (Feature.UDP_ENCAPSULATION, Feature.IPV6_OUTSIDE)
    assert bool(carried) is not kept


def test_nftables():
    found = kernel_gateway()
    absent = replace(found, firewall=replace(found.firewall, sets=NO, xfrm=NO))
    (lack,) = lacks(absent, Needs())
    assert "nftables" in lack.what
    assert lacks(absent, Needs(firewall=False)) == ()
    (lack,) = lacks(replace(found, firewall=replace(found.firewall, xfrm=NO)), Needs())
    assert "rt ipsec" in lack.what


def test_charon_that_is_down():
    found = replace(kernel_gateway(), charon=None, charon_why="charon is not running")
    assert lacks(found, profile("modern"))[0].what == "charon could not be asked: charon is not running"


def test_every_algorithm_that_a_good_charon_has_is_known_by_its_name():
    """No name is made up: charon 6.1.0, with all plugins of Debian, lists each one that it can do."""
    told = parse_charon({}, {}, CHARON["get-algorithms"])
    listed = {name for _, names in told.algorithms for name in names}
    elsewhere = {
        "SERPENT_CBC",
        "TWOFISH_CBC",
        "HMAC_SHA2_256_96",
    }  # of gcrypt and af-alg: in Debian 13, not in 14
    assert set(CHARON_NAMES.values()) - listed <= elsewhere
    usual = {a.keyword for a in ALGORITHMS if a.kind is not Kind.SEQUENCE_NUMBERS and not a.private}
    unjudged = usual - CHARON_NAMES.keys()
    assert (
        unjudged
        == {"aes128gmac", "aes192gmac", "aes256gmac", "sha256_96", "none", "gost256", "gost512"} & usual
    )


TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {control: lab, credential: {psk: "env:PSK"}}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: {address: "2001:db8::1", datapath: kernel}}
  b: {networks: {lan: 10.2.0.0/24}, gateway: {address: "2001:db8::2", behind_nat: true}}
tunnels:
  t: {between: [a, b]}
"""


def test_needs_of_a_compiled_gateway():
    topology = load_text(TOPOLOGY, "pair.yaml").topology
    assert topology is not None
    state = compile_topology(topology)[0]
    needs = needs_of(state, DataPath.KERNEL, (Feature.IPTFS,))
    assert needs.features == {Feature.IPTFS, Feature.IPV6_OUTSIDE, Feature.UDP_ENCAPSULATION}
    assert needs.data_path is DataPath.KERNEL and needs.firewall
    assert {str(p) for p in needs.esp} == set(PROFILES["modern"].esp_proposals)
    assert len(needs.ike) == 2
