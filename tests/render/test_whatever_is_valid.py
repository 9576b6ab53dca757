"""What ``validate`` accepts can be rendered: no name, identity, address or text is refused afterwards."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any

import yaml
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from ipsecctl.desired import Means, compile_topology
from ipsecctl.render import render_files, render_messages
from ipsecctl.topology import DataPath, load_text

names = st.one_of(
    st.sampled_from(["include", "a", "a-1", "a_b", "0", "true", "ipv4", "z" * 63]),
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", fullmatch=True),
)
identities = st.one_of(
    st.text(st.characters(codec="ascii"), min_size=1, max_size=8),
    st.from_regex(r"[!-~]([ -~]{0,30}[!-~])?", fullmatch=True),
    st.sampled_from(
        ["%any", "fqdn:^a$", "{0}:x", "x" * 255, 'C=DE, O="A; B", CN=a', "10.0.0.1-a", "klinik-köln"]
    ),
)
texts = st.text(max_size=20)
dns_names = st.one_of(
    st.sampled_from(["dynamic", "_gw.example.org.", "10.0.0.1-static.example.net", "1.2.3.4.in"]),
    st.from_regex(r"([A-Za-z0-9_]([A-Za-z0-9_-]{0,6}[A-Za-z0-9])?\.){1,3}[a-z]{1,9}\.?", fullmatch=True),
)
networks = st.lists(names, min_size=1, max_size=3, unique=True)


@functools.cache  # a strategy takes longer to make than to draw from
def gateways(network: str) -> st.SearchStrategy[dict[str, object]]:
    address = st.ip_addresses(network=network).map(str)
    return st.fixed_dictionaries(
        {"address": address | dns_names, "mtu": st.sampled_from([1500, 1400, 9216, 576])},
        optional={"identity": identities, "public_address": address},
    )


credentials = st.sampled_from(
    [
        {"psk": "file:{tunnel}.psk"},
        {"certificate": "pki/{gateway} ä.pem", "key": "env:KEY_{gateway}", "ca": 'pki/"c a"\\.pem'},
    ]
)
options = st.fixed_dictionaries(
    {},
    optional={
        "replay_window": st.integers(0, 4096),
        "copy_df": st.booleans(),
        "copy_dscp": st.sampled_from(["no", "in", "out", "yes"]),
        "hw_offload": st.sampled_from(["no", "crypto", "packet", "auto"]),
        "per_cpu_sas": st.booleans(),
        "iptfs": st.booleans(),
        "mark_in": st.integers(0, 0xFFFFFFFF) | st.just("0x10/0xFF"),
        "mark_out": st.integers(0, 0xFFFFFFFF) | st.just("0x10/0xFF"),
        "force_udp": st.booleans(),
    },
)
LIKELY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@st.composite
def topologies(draw: st.DrawFn) -> dict[str, object]:
    outside = draw(st.sampled_from(["198.18.{}.0/24", "198.18.{}.0/24", "2001:db8:{}::/48"]))
    drawn = {
        site: {
            "networks": {
                network: [f"10.{x}.{y}.0/24", f"fd00:{x}:{y}::/64"][: draw(st.integers(1, 2))]
                for y, network in enumerate(draw(networks))
            },
            "gateway": draw(gateways(outside.format(x))),
            "description": draw(texts),
            "managed": draw(st.sampled_from([True, True, False])),
        }
        for x, site in enumerate(draw(st.lists(names, min_size=2, max_size=3, unique=True)))
    }
    shape = draw(st.sampled_from(["between", "mesh", "hub"]))
    first, *others = list(drawn)[: 2 if shape == "between" else 3]
    group: dict[str, object] = {
        "between": {"between": [first, others[0]]},
        "mesh": {"mesh": [first, *others]},
        "hub": {"hub": first, "spokes": others},
    }[shape]
    group |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "description": texts,
                "children": st.sampled_from(["flow", "subnet-pair"]),
                "mode": st.sampled_from(["policy", "route", "auto"]),
                "selectors": st.sampled_from(["networks", "any"]),
                "options": options,
            },
        )
    )
    if shape != "mesh" and draw(st.booleans()):
        group["flows"] = [
            {"from": f"{first}.{source}", "to": f"{other}.{target}"}
            for other in others
            for source in drawn[first]["networks"]
            for target in drawn[other]["networks"]
        ]
    return {
        "ipsecctl": 1,
        "name": draw(names),
        "description": draw(texts),
        "defaults": {"credential": draw(credentials), "control": "lab"},
        "sites": drawn,
        "tunnels": {draw(names): group},
    }


def clinic(address: str, **gateway: str) -> dict[str, object]:
    return {
        "ipsecctl": 1,
        "name": "include",
        "defaults": {"credential": {"psk": "env:X"}},
        "sites": {
            "include": {"networks": {"lan": "10.1.0.0/24"}, "gateway": {"address": "dynamic"}},
            "a": {
                "networks": {"lan": "10.2.0.0/24"},
                "managed": False,
                "gateway": {"address": address, **gateway},
            },
        },
        "tunnels": {"x": {"between": ["include", "a"]}},
    }


@LIKELY
@given(topologies(), st.sampled_from(DataPath))
@example(clinic("_gw.example.org"), DataPath.KERNEL)
@example(clinic("10.0.0.1-static.example.net"), DataPath.LIBIPSEC)
@example(clinic("192.0.2.1", identity="ipv4net:10.0.0.0/8"), DataPath.KERNEL)
def test_a_valid_topology_can_be_rendered(
    swanctl_load_all: Any, document: dict[str, object], path: DataPath
) -> None:
    topology = load_text(yaml.safe_dump(document), "t.yaml").topology
    event(f"valid: {topology is not None}")
    if topology is None:
        return
    secrets, certificates = defaultdict(lambda: b"\0secret"), defaultdict(lambda: b"certificate")
    for state in compile_topology(topology, {gateway.name: Means(path) for gateway in topology.gateways()}):
        files = {file.path: file.content for file in render_files(state, secrets, certificates)}
        messages = render_messages(state, secrets, certificates)
        assert swanctl_load_all(files)["connections"] == messages.connections
        for connection in state.connections:
            children = messages.connections[connection.name][connection.name]["children"]
            assert len(children) == len(connection.children) > 0
            assert all(len(name) <= 240 for name in (connection.name, *children))
