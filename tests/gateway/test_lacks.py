"""What a gateway lacks of what its topology needs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ipsecctl.crypto import ALGORITHMS, PROFILES, Kind, parse_esp_proposal, parse_ike_proposal
from ipsecctl.desired import Means, compile_topology
from ipsecctl.gateway import Answer, Feature, Has, Needs, lacks, needs_of, unknown_options
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
        (Feature.HOLDING_INTERFACE, "dummy"),
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
    needs = needs_of(state, DataPath.KERNEL)
    assert needs.features == {Feature.HOLDING_INTERFACE, Feature.IPV6_OUTSIDE, Feature.UDP_ENCAPSULATION}
    assert needs.data_path is DataPath.KERNEL and needs.firewall
    assert {str(p) for p in needs.esp} == set(PROFILES["modern"].esp_proposals)
    assert len(needs.ike) == 2


OPTIONS = """
ipsecctl: 1
name: options
defaults: {control: lab, credential: {psk: "env:PSK"}, mode: MODE}
profiles:
  esn: {based_on: modern, esp: aes256gcm16-x25519-esn}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
tunnels:
  t: {between: [a, b], profile: esn, options: {OPTIONS}}
"""


@pytest.mark.parametrize(
    ("mode", "options", "asked"),
    [
        ("policy", "iptfs: true", {Feature.IPTFS, Feature.HOLDING_INTERFACE}),
        ("route", "per_cpu_sas: true", {Feature.PER_CPU_SAS, Feature.XFRM_INTERFACES}),
        ("route", "hw_offload: packet", {Feature.HW_OFFLOAD, Feature.XFRM_INTERFACES}),
        ("route", "hw_offload: auto, iptfs: false, per_cpu_sas: false", {Feature.XFRM_INTERFACES}),
    ],
)
def test_needs_that_follow_from_mode_and_options(mode, options, asked):
    topology = load_text(OPTIONS.replace("MODE", mode).replace("OPTIONS", options), "o.yaml").topology
    assert topology is not None
    for state in compile_topology(topology):
        assert needs_of(state).features == {Feature.ESN, *asked}


LISTS = """
ipsecctl: 1
name: lists
defaults: {control: lab, credential: {psk: "env:PSK"}}
profiles:
  ours: {based_on: modern, ike: OURS, esp: aes256gcm16-x25519}
  theirs: {based_on: modern, ike: THEIRS, esp: aes256gcm16-x25519}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1, profile: ours}
  b: {managed: MANAGED, networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2, profile: theirs}
tunnels:
  t: {between: [a, b]}
"""
PLAIN, HYBRID = "aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-x25519-ke1_mlkem768"
OPTIONAL = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_none"


@pytest.mark.parametrize(
    ("ours", "theirs", "managed", "stops"),
    [
        # The responder takes the first of its own that fits, and does not look whether the caller can do it.
        ([HYBRID, PLAIN], [HYBRID, PLAIN], True, True),
        ([PLAIN, HYBRID], [PLAIN, HYBRID], True, False),
        ([PLAIN, HYBRID], [HYBRID, PLAIN], True, True),
        ([HYBRID, PLAIN], [PLAIN], True, False),
        ([PLAIN, HYBRID], [HYBRID], True, True),
        ([OPTIONAL], [PLAIN], True, False),
        ([OPTIONAL], [OPTIONAL], True, True),
        # What somebody else's gateway offers is not known for certain.
        ([PLAIN, HYBRID], [PLAIN, HYBRID], False, True),
    ],
)
def test_a_proposal_that_is_only_offered_stops_nothing(ours, theirs, managed, stops):
    text = LISTS.replace("OURS", json.dumps(ours)).replace("THEIRS", json.dumps(theirs))
    topology = load_text(text.replace("MANAGED", str(managed).lower()), "lists.yaml").topology
    assert topology is not None
    states = {state.name: state for state in compile_topology(topology)}
    algorithms = {k: dict(v) for k, v in CHARON["get-algorithms"].items()}
    algorithms["ke"] = {n: p for n, p in algorithms["ke"].items() if not n.startswith("ML_KEM")}
    found = parse_capabilities("a", KERNEL, charon(algorithms=algorithms, version="6.0.1"))
    (lack,) = lacks(found, needs_of(states["a"], peers=states))
    assert lack.what == "charon 6.0.1 cannot do mlkem768 (ML_KEM_768)"
    assert (lack.certain, lack.stops, lack.spare) == (True, stops, not stops)
    assert ("offered and not used" in lack.why_needed) is not stops


def test_the_first_key_exchange_is_sent_before_anything_is_agreed_on():
    text = LISTS.replace("MANAGED", "true").replace("THEIRS", '["aes256gcm16-prfsha384-x25519"]')
    text = text.replace("OURS", '["aes256gcm16-prfsha384-x448-x25519"]')
    topology = load_text(text, "lists.yaml").topology
    assert topology is not None
    states = {state.name: state for state in compile_topology(topology)}
    needs = needs_of(states["a"], peers=states)
    assert needs.used_ike is not None
    assert {"x448", "x25519"} <= needs.used_ike


def test_words_that_a_charon_does_not_know_are_lacks_of_their_own():
    topology = load_text(OPTIONS.replace("MODE", "policy").replace("OPTIONS", "per_cpu_sas: true"), "o.yaml")
    assert topology.topology is not None
    means = {name: Means(version=(6, 0, 1)) for name in "ab"}
    for state in compile_topology(topology.topology, means):
        (lack,) = unknown_options(state, "6.0.1")
        assert lack.what == "charon 6.0.1 does not know 'per_cpu_sas'" and lack.stops
        assert "'t' asks for it" in lack.why_needed and "6.0.2" in lack.mend
