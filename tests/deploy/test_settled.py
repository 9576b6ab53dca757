"""Gateways that are settled: as long as everything is what it was, and not a moment longer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsecctl.deploy import settled as settling
from ipsecctl.deploy.prepare import Prepared
from ipsecctl.deploy.settled import Settled, key_of, program_signature, settled_now, still_settled
from ipsecctl.desired import KeyKind, SharedKey, compile_topology
from ipsecctl.errors import Diagnostic, GatewayUnreachable, Severity
from ipsecctl.gateway import Facts, KernelView, Observed, Record, Trials
from ipsecctl.gateway import Kernel as KernelAnswers
from ipsecctl.gateway.capabilities import Charon
from ipsecctl.gateway.unchanged import fingerprint, steady
from ipsecctl.plan import Change, Conflict, GatewayPlan, Kind, Note, Part
from ipsecctl.topology import DataPath, SecretKind, SecretRef, load_text
from ipsecctl.vici import Listing, encode_message

PSK = "kV3xv8mZ0Wq2c4Jt7nRb1yLs5dHf9aGe6uPi"
TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {control: lab, credential: {psk: "file:t.psk"}}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
tunnels:
  t: {between: [a, b]}
"""
SA = {
    "state": "ESTABLISHED",
    "uniqueid": "7",
    "remote-host": "192.0.2.2",
    "established": "20",
    "rekey-time": "80",
    "child-sas": {"t-1": {"name": "t", "state": "INSTALLED", "spi-in": "c0ffee01", "bytes-in": "5"}},
}


def seen(name):
    trials = Trials("boot", KernelAnswers())
    record = Record(key=hashlib.sha256(name.encode()).digest(), topology="pair", trials=trials)
    facts = Facts(record=record, record_sha256="5" * 64, kernel="boot", told="7" * 64)
    listing = Listing([encode_message({"t": {"version": "IKEv2"}})])
    return Observed(
        name,
        "6.1.0",
        DataPath.KERNEL,
        listing,
        shared=frozenset({"ike-t"}),
        facts=facts,
        charon=Charon("6.1.0", ("vici",), (("ke", ("CURVE_25519",)),)),
        ike_sas=1,
        sas=({"t": SA},),
        sa_names=frozenset({"t"}),
    )


@pytest.fixture
def prepared(tmp_path):
    (tmp_path / "t.psk").write_text(f"{PSK}\n")
    (tmp_path / "t.psk").chmod(0o600)
    topology = load_text(TOPOLOGY, str(tmp_path / "pair.yaml")).topology
    states = compile_topology(topology)
    observed = {name: seen(name) for name in ("a", "b")}
    wanted = {name: SimpleNamespace(shared={"ike-t": {"data": PSK.encode()}}) for name in observed}
    plans = tuple(GatewayPlan(name, version="6.1.0", restart="systemctl restart it") for name in observed)
    return Prepared(topology, states, {}, observed, wanted, plans, {})


def ask(settled, tmp_path, monkeypatch, now=seen, key=lambda record: record.key.hex()):
    """Return what comes of asking gateways that tell ``now(name)``."""

    async def again(handle, record, prefixes, *, own, outer, timeout_s):
        told = now(handle.name)
        if isinstance(told, Exception):
            raise told
        if told.facts.record_sha256 != record:
            return None
        facts = Facts(record_sha256=record, told=told.facts.told)  # of the rest nothing was read
        return replace(told, facts=facts), key(told.facts.record)

    monkeypatch.setattr(settling, "observe_again", again)
    return asyncio.run(still_settled(settled, tmp_path))


def test_nothing_to_do_stays_so_as_long_as_all_is_the_same(prepared, tmp_path, monkeypatch):
    note = Note("b: something", "Look into it.")
    plans = (prepared.plans[0], replace(prepared.plans[1], notes=(note,)))
    settled = settled_now(replace(prepared, plans=plans), ())
    told = ask(settled, tmp_path, monkeypatch)
    assert told == (GatewayPlan("a"), GatewayPlan("b", notes=(note,)))
    assert [plan.version for plan in told] == ["6.1.0", "6.1.0"]


def older(name):
    """The same some seconds later: ages and counters have gone on."""
    child = {**SA["child-sas"]["t-1"], "bytes-in": "500", "install-time": "30"}
    sa = {**SA, "established": "50", "rekey-time": "50", "child-sas": {"t-1": child}}
    return replace(seen(name), sas=({"t": sa},))


def test_sas_may_grow_older(prepared, tmp_path, monkeypatch):
    assert ask(settled_now(prepared, ()), tmp_path, monkeypatch, older) is not None


def with_sa(**more):
    return lambda was: replace(was, sas=({"t": {**SA, **more}},))


ANOTHER = {
    "the gateway's name": lambda was: replace(was, gateway="c"),
    "the version": lambda was: replace(was, version="6.1.1"),
    "the data path": lambda was: replace(was, data_path=DataPath.LIBIPSEC),
    "a connection": lambda was: replace(was, connections=Listing([encode_message({"t": {"version": "x"}})])),
    "a connection's name": lambda was: replace(
        was, connections=Listing([encode_message({"u": {"version": "IKEv2"}})])
    ),
    "one more connection": lambda was: replace(
        was, connections=Listing([encode_message({n: {"version": "IKEv2"}}) for n in ("t", "u")])
    ),
    "a shared key": lambda was: replace(was, shared=frozenset()),
    "a certificate": lambda was: replace(was, certificates=frozenset({"00"})),
    "a private key": lambda was: replace(was, keys=frozenset({"00"})),
    "what the shell tells": lambda was: replace(was, facts=replace(was.facts, told="8" * 64)),
    "the record": lambda was: replace(was, facts=replace(was.facts, record_sha256="6" * 64)),
    "charon's algorithms": lambda was: replace(was, charon=replace(was.charon, algorithms=())),
    "charon's plugins": lambda was: replace(was, charon=replace(was.charon, plugins=())),
    "the number of IKE_SAs": lambda was: replace(was, ike_sas=2),
    "no SA": lambda was: replace(was, sas=(), sa_names=frozenset()),
    "a state": with_sa(state="REKEYING"),
    "another SA": with_sa(uniqueid="8"),
    "another CHILD_SA": with_sa(**{"child-sas": {"t-2": SA["child-sas"]["t-1"]}}),
    "an SPI": with_sa(**{"child-sas": {"t-1": {**SA["child-sas"]["t-1"], "spi-in": "c0ffee02"}}}),
    "a field that nobody knows": with_sa(news="yes"),
}


@pytest.mark.parametrize("what", ANOTHER)
@pytest.mark.parametrize("where", ["a", "b"])
def test_anything_else_at_any_gateway_is_looked_into(what, where, prepared, tmp_path, monkeypatch):
    def now(name):
        return ANOTHER[what](seen(name)) if name == where else seen(name)

    assert ask(settled_now(prepared, ()), tmp_path, monkeypatch, now) is None


def test_every_field_of_what_is_observed_is_compared():
    compared = json.loads(fingerprint(seen("a")))
    assert compared.keys() == {field.name for field in fields(Observed)}
    with pytest.raises(TypeError):
        fingerprint(replace(seen("a"), ike_sas=object()))


def test_another_secret_is_looked_into_and_one_that_cannot_be_had(prepared, tmp_path, monkeypatch):
    settled = settled_now(prepared, ())
    (tmp_path / "t.psk").write_text(f"{PSK}x\n")
    assert ask(settled, tmp_path, monkeypatch) is None
    (tmp_path / "t.psk").write_text(f"{PSK}\n")
    assert ask(settled, tmp_path, monkeypatch) is not None
    (tmp_path / "t.psk").chmod(0o644)
    assert ask(settled, tmp_path, monkeypatch) is None
    (tmp_path / "t.psk").unlink()
    assert ask(settled, tmp_path, monkeypatch) is None


def test_another_key_or_no_answer_is_looked_into(prepared, tmp_path, monkeypatch):
    settled = settled_now(prepared, ())
    assert ask(settled, tmp_path, monkeypatch, key=lambda record: "00" * 32) is None
    gone = GatewayUnreachable("b", "gone")
    assert ask(settled, tmp_path, monkeypatch, lambda name: gone if name == "b" else seen(name)) is None


NOT_SETTLED = {
    "a change": lambda p: {
        "plans": (replace(p.plans[0], changes=(Change("a", Part.FILE, "f", Kind.CREATE),)), p.plans[1])
    },
    "a conflict": lambda p: {"plans": (replace(p.plans[0], conflicts=(Conflict("c", "h"),)), p.plans[1])},
    "a restart that is due": lambda p: {"plans": (replace(p.plans[0], restart_for=("o",)), p.plans[1])},
    "no charon": lambda p: {"plans": (replace(p.plans[0], charon_down="down"), p.plans[1])},
    "one without a plan": lambda p: {"plans": p.plans[:1]},
    "one that failed": lambda p: {"failures": {"b": GatewayUnreachable("b", "gone")}},
    "a limit": lambda p: {"limit": frozenset({"a"})},
    "no record": lambda p: {"observed": p.observed | {"a": without(p, record=None)}},
    "a kernel nobody tried": lambda p: {"observed": p.observed | {"a": without(p, kernel="other boot")}},
    "an SA that only a second look has found": lambda p: {
        "observed": p.observed | {"a": without(p, in_kernel=KernelView(spis=frozenset()))}
    },
}


def without(prepared, **facts):
    was = prepared.observed["a"]
    return replace(was, facts=replace(was.facts, **facts))


@pytest.mark.parametrize("what", NOT_SETTLED)
def test_only_what_has_nothing_to_do_and_is_known_is_settled(what, prepared):
    assert settled_now(replace(prepared, **NOT_SETTLED[what](prepared)), ()) is None


def test_certificates_are_never_settled(prepared):
    state = replace(prepared.states[0], certificates=("one",))
    assert settled_now(replace(prepared, states=(state, prepared.states[1])), ()) is None


def test_secrets_that_somebody_is_asked_for_are_never_settled(prepared):
    state = prepared.states[0]
    (key,) = state.shared_keys
    for kind in (SecretKind.VAULT, SecretKind.COMMAND):
        asked = replace(state, shared_keys=(replace(key, secret=SecretRef(kind, "x")),))
        assert settled_now(replace(prepared, states=(asked, prepared.states[1])), ()) is None


def test_a_command_in_a_file_is_never_run(prepared):
    document = json.loads(settled_now(prepared, ()).to_json())
    document["gateways"][0]["secrets"] = [["command", "touch /tmp/x"]]
    assert Settled.from_json(json.dumps(document).encode()) is None


def test_a_second_key_of_a_tunnel_counts(prepared, tmp_path, monkeypatch):
    (tmp_path / "t.ppk").write_text(f"{PSK}2\n")
    (tmp_path / "t.ppk").chmod(0o600)
    more = SharedKey("t", ("id",), SecretRef(SecretKind.FILE, "t.ppk"), KeyKind.PPK)
    states = tuple(replace(s, shared_keys=(*s.shared_keys, more)) for s in prepared.states)
    shared = {"ike-t": {"data": PSK.encode()}, "ppk-t": {"data": f"{PSK}2".encode()}}
    wanted = {name: SimpleNamespace(shared=shared) for name in prepared.wanted}
    settled = settled_now(replace(prepared, states=states, wanted=wanted), ())
    assert ask(settled, tmp_path, monkeypatch) is not None
    (tmp_path / "t.ppk").write_text(f"{PSK}3\n")
    assert ask(settled, tmp_path, monkeypatch) is None


def test_without_charon_nothing_is_steady():
    assert steady(seen("a"))
    assert not steady(replace(seen("a"), charon_down=GatewayUnreachable("a", "down", charon_down=True)))


# ----------------------------------------------------------------------------------------------- what is kept


def test_it_is_the_same_from_its_file_and_holds_nothing_to_guess_a_secret_by(prepared):
    warning = Diagnostic(Severity.WARNING, "IP100", "so", "mend it", "pair.yaml", 3, 4)
    settled = settled_now(prepared, (warning,))
    content = settled.to_json()
    assert Settled.from_json(content) == settled
    assert settled.warnings == (warning,)
    for secret in (PSK.encode(), prepared.observed["a"].facts.record.key.hex().encode()):
        assert secret not in content
        for algorithm in ("md5", "sha1", "sha256", "sha512"):
            assert hashlib.new(algorithm, secret).hexdigest().encode() not in content


@given(st.data())
def test_a_damaged_file_is_none(data):
    document = json.loads(Settled("pair", "pair.yaml", ()).to_json())
    document["gateways"] = data.draw(
        st.sampled_from([None, [{}], [7], ["x"], {"a": 1}, [{"name": "a", "control": ["no", "way"]}]])
    )
    assert Settled.from_json(json.dumps(document).encode()) is None
    assert Settled.from_json(data.draw(st.binary(max_size=40))) is None


TEXTS = st.text(max_size=6)


@given(st.tuples(st.binary(max_size=6), TEXTS, st.none() | TEXTS, TEXTS), st.data())
def test_another_input_has_another_key(inputs, data):
    other = data.draw(st.tuples(st.binary(max_size=6), TEXTS, st.none() | TEXTS, TEXTS))
    assert (key_of(*inputs) == key_of(*other)) == (inputs == other)


def test_another_folder_has_another_key(tmp_path, monkeypatch):
    here = key_of(b"", "pair.yaml", None, "")
    monkeypatch.chdir(tmp_path)
    assert key_of(b"", "pair.yaml", None, "") != here


def test_other_templates_are_another_program(tmp_path, monkeypatch):
    monkeypatch.setattr(settling, "resource_dir", lambda name: tmp_path)
    signatures = [program_signature()]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.j2").write_text("x")
    signatures.append(program_signature())
    (tmp_path / "sub" / "one.j2").write_text("xy")
    signatures.append(program_signature())
    (tmp_path / "sub" / "one.j2").rename(tmp_path / "sub" / "two.j2")
    signatures.append(program_signature())
    assert len({*signatures}) == len(signatures)
    assert program_signature() == signatures[-1]
