"""Both renderings of a state: files and VICI messages, which must say the same."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsecctl.desired import Action, GatewayState, Means, compile_topology
from ipsecctl.errors import CannotQuote
from ipsecctl.render import render_files, render_messages
from ipsecctl.secrets import Secret
from ipsecctl.topology import DataPath, SecretRef, load_text

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def states_of(text: str, means: Mapping[str, Means] | None = None) -> tuple[GatewayState, ...]:
    loaded = load_text(text, "topology.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    return compile_topology(loaded.topology, means or {})


def case_states(case: str) -> tuple[GatewayState, ...]:
    """The states of a case; what its gateways were found to have is in its ``means.yaml``, if it has one."""
    text = (GOLDEN / case / "topology.yaml").read_text(encoding="utf-8")
    found = GOLDEN / case / "means.yaml"
    listed = yaml.safe_load(found.read_text(encoding="utf-8")) if found.exists() else {}
    return states_of(text, {name: means(**has) for name, has in listed.items()})


def means(data_path: str, version: list[int] | None = None, xfrm_interfaces: bool | None = None) -> Means:
    return Means(DataPath(data_path), xfrm_interfaces, None if version is None else tuple(version))


def secrets_of(state: GatewayState) -> Mapping[SecretRef, Secret]:
    references = {key.secret for key in state.shared_keys} | {key.secret for key in state.private_keys}
    return {reference: Secret(f"content of {reference}\n".encode()) for reference in references}


def certificates_of(state: GatewayState) -> Mapping[str, bytes]:
    return {file.source: f"content of {file.source}\n".encode() for file in state.certificates}


def rendered(state: GatewayState) -> dict[str, bytes]:
    return {
        file.path: file.content for file in render_files(state, secrets_of(state), certificates_of(state))
    }


@pytest.mark.parametrize("case", CASES)
def test_files_are_those_of_the_golden_tree(case):
    # IPSECCTL_UPDATE=1 writes the trees anew, for `git diff` to show what a change does.
    expected = GOLDEN / case / "expected"
    got = {
        f"{state.name}{path}": content
        for state in case_states(case)
        for path, content in rendered(state).items()
    }
    if os.environ.get("IPSECCTL_UPDATE"):
        for path in sorted(expected.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        for name, content in got.items():
            (expected / name).parent.mkdir(parents=True, exist_ok=True)
            (expected / name).write_bytes(content)
    wanted = {
        str(path.relative_to(expected)): path.read_bytes() for path in expected.rglob("*") if path.is_file()
    }
    assert sorted(got) == sorted(wanted)
    for name in sorted(wanted):
        assert got[name].decode() == wanted[name].decode(), name


@pytest.mark.parametrize("case", CASES)
def test_what_swanctl_would_send_for_the_files_is_what_the_messages_say(case, swanctl_load_all):
    for state in case_states(case):
        messages = render_messages(state, secrets_of(state), certificates_of(state))
        sent = swanctl_load_all(rendered(state))
        assert sent["connections"] == messages.connections
        assert sent["shared"] == messages.shared
        assert sent["certificates"] == list(messages.certificates)
        assert sent["keys"] == list(messages.keys)


identities = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@settings(max_examples=settings.default.max_examples // 2)
@given(identities, st.binary(min_size=1, max_size=40))
def test_any_identity_and_psk_reach_charon_the_same_by_file_and_by_message(swanctl_load_all, name, psk):
    state = case_states("clinic-dc")[0]
    connection = replace(state.connections[0], remote=replace(state.connections[0].remote, identity=name))
    key = replace(state.shared_keys[0], owners=(state.name, name))
    state = replace(state, connections=(connection,), shared_keys=(key,))
    secrets = {key.secret: Secret(psk)}
    try:
        files = {file.path: file.content for file in render_files(state, secrets, {})}
    except CannotQuote:
        with pytest.raises(CannotQuote):
            render_messages(state, secrets, {})
        return
    messages = render_messages(state, secrets, {})
    sent = swanctl_load_all(files)
    assert sent["connections"] == messages.connections
    assert sent["shared"] == messages.shared
    assert messages.shared[f"ike-{key.name}"]["data"] == psk


def test_a_tunnel_named_like_strongswans_directive_is_refused():
    state = case_states("clinic-dc")[0]
    state = replace(state, connections=(replace(state.connections[0], name="include"),))
    with pytest.raises(CannotQuote, match="'include'"):
        render_files(state, secrets_of(state), {})
    with pytest.raises(CannotQuote, match="'include'"):
        render_messages(state, secrets_of(state), {})


@pytest.mark.parametrize("case", CASES)
def test_secrets_are_in_owner_only_files_and_nowhere_else(case):
    for state in case_states(case):
        files = render_files(state, secrets_of(state), certificates_of(state))
        assert {file.mode for file in files} <= {0o600, 0o644, 0o755}
        programs = [file.path for file in files if file.mode == 0o755]
        assert programs == ["/etc/ipsecctl/call", "/etc/ipsecctl/guard"]
        private = [file.path for file in files if file.mode == 0o600]
        assert "/etc/swanctl/conf.d/ipsecctl-secrets.conf" in private
        assert all(path.startswith("/etc/swanctl/private/") for path in private if "secrets" not in path)
        for key in secrets_of(state).values():
            assert not any(bytes(key) in file.content for file in files if file.mode != 0o600)
            assert not any(bytes(key).decode() in repr(file) for file in files)
        messages = render_messages(state, secrets_of(state), certificates_of(state))
        assert "content of" not in repr(messages)


@pytest.mark.parametrize("case", CASES)
def test_who_calls_has_its_children_called(case, tmp_path):
    """And nobody else: run with a swanctl that notes its use."""
    called = tmp_path / "called"
    swanctl = tmp_path / "swanctl"
    swanctl.write_text(f'#!/bin/sh\n[ "$1" = --list-sas ] || echo "$*" >>{called}\n')
    swanctl.chmod(0o755)
    for state in case_states(case):
        called.write_text("")
        script = rendered(state)["/etc/ipsecctl/call"].decode()
        path = f"{tmp_path}:/usr/bin:/bin"
        subprocess.run(["sh", "-c", script], env={"PATH": path}, check=True)
        assert called.read_text().splitlines() == [
            f"--initiate --ike {connection.name} --child {child.name} --timeout -1"
            for connection in state.connections
            for child in connection.children
            if child.start_action is Action.TRAP
        ]


REORDERED = """
tunnels:
  clinics: {spokes: [clinic-b, clinic-a], hub: dc}
sites:
  clinic-b:
    gateway: {mtu: 1492, behind_nat: true, address: dynamic}
    networks: {lan: 10.20.2.0/24}
  dc:
    gateway: {address: 198.51.100.10, datapath: libipsec}
    networks:
      imaging: 10.10.8.0/24
      servers: 10.10.0.0/24
  clinic-a:
    networks: {lan: 10.20.1.0/24}
    gateway: 203.0.113.20
credentials:
  clinics: {psk: "file:secrets/{tunnel}.psk"}
defaults: {credential: clinics}
name: clinic-dc
ipsecctl: 1
"""


def test_keys_in_another_order_give_the_same_bytes():
    as_written = {state.name: rendered(state) for state in case_states("clinic-dc")}
    assert {state.name: rendered(state) for state in states_of(REORDERED)} == as_written


def test_a_gateway_without_tunnels_has_every_file_and_no_rule():
    (state,) = compile_topology(
        replace(_topology("clinic-dc"), tunnels=(), sites=_topology("clinic-dc").sites[:1])
    )
    files = rendered(state)
    assert len(files) == 14
    assert b"drop" not in files["/etc/ipsecctl/firewall.nft"]


def test_each_data_path_has_its_own_test_for_what_came_through_ipsec():
    topology = _topology("clinic-dc")
    kernel, libipsec = (
        rendered(compile_topology(topology, {"clinic-a": Means(path)})[0])["/etc/ipsecctl/firewall.nft"]
        for path in (DataPath.KERNEL, DataPath.LIBIPSEC)
    )
    assert b"rt ipsec exists return" in kernel and b"meta ipsec exists return" in kernel
    assert b'oifname "ipsec0" return' in libipsec and b'iifname "ipsec0" return' in libipsec


def _topology(case: str):
    topology = load_text(
        (GOLDEN / case / "topology.yaml").read_text(encoding="utf-8"), "topology.yaml"
    ).topology
    assert topology is not None
    return topology
