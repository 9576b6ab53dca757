"""Plans: what is compared, what is ours, why, and what it disturbs."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace

import pytest
from netaddr import IPNetwork

from ipsecctl.cli._plan import print_plan
from ipsecctl.desired import Interface, Route, Rule
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import (
    Facts,
    FileSeen,
    Link,
    NewFile,
    Observed,
    Record,
    RouteSeen,
    RuleSeen,
    Seen,
    StartUp,
    WaysSeen,
)
from ipsecctl.plan import (
    Disruption,
    Kind,
    Part,
    Wanted,
    file_entry,
    interface_text,
    plan_gateway,
    plan_json,
)
from ipsecctl.plan.halves import halves
from ipsecctl.plan.wanted import certificate_digest, sysctls
from ipsecctl.render import (
    FIREWALL_FILE,
    GUARD_UNIT_FILE,
    ROUTES_FILE,
    STRONGSWAN_FILE,
    SWANCTL_FILE,
    SWANCTL_SECRETS_FILE,
    SYSCTL_FILE,
)
from ipsecctl.topology import DataPath

SECRET = b"correct horse battery staple"


def connection(**children):
    child = {
        "local_ts": ["10.1.0.0/24"],
        "remote_ts": ["10.2.0.0/24"],
        "esp_proposals": ["aes256gcm16-x25519"],
        "rekey_time": "3600s",
        "start_action": "none",
    }
    return {
        "version": "2",
        "remote_addrs": ["192.0.2.2"],
        "proposals": ["aes256gcm16-prfsha384-x25519"],
        "rekey_time": "14400s",
        "dpd_delay": "15s",
        "local": {"auth": "psk", "id": "a"},
        "remote": {"auth": "psk", "id": "b"},
        "children": {"t": child | children},
    }


def files(**content):
    everything = {
        FIREWALL_FILE: (b"table inet ipsecctl {}", 0o644),
        ROUTES_FILE: (b"# ours\nroute replace unreachable 10.2.0.0/24 proto 213 metric 1\n", 0o644),
        SWANCTL_FILE: (b"connections {}", 0o644),
        SWANCTL_SECRETS_FILE: (b"secrets { " + SECRET + b" }", 0o600),
        SYSCTL_FILE: (b"# x\nnet.ipv4.ip_forward = 1\n", 0o644),
    }
    return {path: NewFile(path, data, mode) for path, (data, mode) in everything.items()}


WANTED = Wanted(
    gateway="gw",
    topology="top",
    files=files(),
    connections={"t": connection()},
    shared={"ike-t": {"id": "ike-t", "type": "ike", "data": SECRET, "owners": ["a", "b"]}},
    certificates={"x509/a.pem": {"type": "X509", "flag": "NONE", "data": b"der of a"}},
    keys={"private/a.pem": {"type": "any", "data": b"private " + SECRET}},
    interfaces={"ix-t": Interface("ix-t", 7, 1400, (), "t")},
    routes=(Route(IPNetwork("10.2.0.0/24"), "t"),),
    rules=(Rule(4),),
)
BARE = Wanted(gateway="gw", topology="top")
NOTHING = Observed("gw", "6.1.0", DataPath.KERNEL, {})
REPORTED = {"version": "IKEv2", "children": {"t": {"mode": "TUNNEL"}}}


def link(interface, **changes):
    """Return what is seen of an interface that is as wanted."""
    addresses = tuple(sorted(interface.addresses))
    seen = Link(interface.name, "xfrm", interface.if_id, interface.mtu, True, addresses, ours=True)
    return replace(seen, **changes)


def seen_route(route, **changes):
    """Return what is seen of a route that is as wanted."""
    kind = "unicast" if route.interface else "unreachable"
    seen = RouteSeen(route.prefix, kind, route.interface, route.metric, route.source, ours=True)
    return replace(seen, **changes)


def applied(wanted=WANTED):
    """Return what is observed right after an apply."""
    record = Record.fresh()
    seen = {p: FileSeen(hashlib.sha256(f.content).hexdigest(), f.mode) for p, f in wanted.files.items()}
    record = replace(
        record,
        topology=wanted.topology,
        files={p: record.digest("file", file_entry(s.sha256, s.mode)) for p, s in seen.items()},
        connections={n: record.digest("connection", m) for n, m in wanted.connections.items()},
        shared={n: record.digest("shared", m) for n, m in wanted.shared.items()},
        certificates={n: record.digest("certificate", m) for n, m in wanted.certificates.items()},
        keys={n: (f"id of {n}", record.digest("key", m)) for n, m in wanted.keys.items()},
        messages=wanted.connections,
        interfaces={name: interface_text(i) for name, i in wanted.interfaces.items()},
        seen=Seen("6.1.0", {n: record.digest("seen", REPORTED) for n in wanted.connections}, "nft hash"),
    )
    facts = Facts(
        files=seen,
        record=Record.from_json(record.to_json()),
        firewall="nft hash",
        sysctls={"net.ipv4.ip_forward": ("1",)},
        ways=WaysSeen(
            {name: link(i) for name, i in wanted.interfaces.items()},
            frozenset(map(seen_route, wanted.routes)),
            rules=tuple(RuleSeen(r.family, r.priority, "", r.table, True, r) for r in wanted.rules),
        ),
    )
    return Observed(
        "gw",
        "6.1.0",
        DataPath.KERNEL,
        connections=dict.fromkeys(wanted.connections, REPORTED),
        shared=frozenset(wanted.shared),
        certificates=frozenset(certificate_digest(m["data"]) for m in wanted.certificates.values()),
        keys=frozenset(f"id of {n}" for n in wanted.keys),
        facts=facts,
    )


def plan(wanted=WANTED, observed=None, **options):
    return plan_gateway(wanted, applied() if observed is None else observed, **options)


def with_facts(observed, **changes):
    return replace(observed, facts=replace(observed.facts, **changes))


def with_ways(observed, **changes):
    return with_facts(observed, ways=replace(observed.facts.ways, **changes))


def with_record(observed, **changes):
    return with_facts(observed, record=replace(observed.facts.record, **changes))


def only(plan_):
    (change,) = plan_.changes
    return change


def test_a_bare_gateway_gets_everything():
    made = plan(observed=NOTHING)
    assert {change.kind for change in made.changes} == {Kind.CREATE}
    assert {change.part for change in made.changes} == set(Part) - {
        Part.SYSCTL,
        Part.UNIT,
        Part.RECORD,
        Part.CHARON,
        Part.DEVICE,
    }
    assert not made.disturbed
    assert not made.conflicts
    assert [c.address for c in made.changes] == sorted(c.address for c in made.changes)


def test_after_an_apply_there_is_nothing_to_do():
    assert plan().changes == ()
    assert plan().conflicts == ()


@pytest.mark.parametrize("observed", [NOTHING, applied()])
def test_no_secret_is_in_a_plan(observed):
    changed = replace(
        WANTED,
        shared={"ike-t": {**WANTED.shared["ike-t"], "data": SECRET + b"2"}},
        keys={"private/a.pem": {"type": "any", "data": b"other " + SECRET}},
        files={**WANTED.files, SWANCTL_SECRETS_FILE: NewFile(SWANCTL_SECRETS_FILE, SECRET, 0o600)},
    )
    made = plan(changed, observed)
    shown = json.dumps(plan_json([made], {})) + repr(made)
    assert SECRET.decode() not in shown
    for secret in (SECRET, SECRET + b"2", changed.files[SWANCTL_SECRETS_FILE].content):
        assert hashlib.sha256(secret).hexdigest()[:8] not in shown


# ----------------------------------------------------------------------------------------------- whose is it?


def test_anothers_connection_stays():
    observed = applied()
    observed = replace(observed, connections={**observed.connections, "foreign": {}})
    assert plan(observed=observed).changes == ()


def test_anothers_connection_of_the_same_name_is_a_conflict():
    observed = replace(NOTHING, connections={"t": {}}, shared=frozenset({"ike-t"}))
    made = plan(observed=observed)
    assert {c.summary.split("'")[1] for c in made.conflicts} == {"t", "ike-t"}
    assert not made.of(Part.CONNECTION)


def test_anothers_file_is_a_conflict_unless_it_is_the_same():
    observed = with_facts(NOTHING, files={SWANCTL_FILE: FileSeen("other", 0o644)})
    (conflict,) = plan(observed=observed).conflicts
    assert SWANCTL_FILE in conflict.summary
    same = hashlib.sha256(WANTED.files[SWANCTL_FILE].content).hexdigest()
    made = plan(observed=with_facts(NOTHING, files={SWANCTL_FILE: FileSeen(same, 0o644)}))
    assert not made.conflicts
    assert SWANCTL_FILE not in {change.name for change in made.changes}


def test_a_gateway_of_another_topology_is_taken_over_only_when_asked():
    other = replace(WANTED, topology="new")
    (conflict,) = plan(other).conflicts
    assert "'top'" in conflict.summary
    assert plan(other, take_over=True).conflicts == ()


# ---------------------------------------------------------------------------------------------------- removal


def test_what_is_no_longer_wanted_goes_and_says_what_stops():
    made = plan(BARE)
    assert {change.kind for change in made.changes} == {Kind.REMOVE}
    assert {change.part for change in made.changes} == set(Part) - {
        Part.SYSCTL,
        Part.UNIT,
        Part.RECORD,
        Part.CHARON,
        Part.DEVICE,
    }
    assert made.disturbed == {"t": Disruption.IKE_RESTART}


def test_what_is_gone_already_is_not_removed_again():
    record = applied().facts.record
    observed = with_facts(NOTHING, record=replace(record, certificates={}, keys={}))
    assert plan(BARE, observed).changes == ()


# ------------------------------------------------------------------------------------------------------ drift


def test_a_charon_that_restarted():
    observed = replace(
        applied(), connections={}, shared=frozenset(), keys=frozenset(), certificates=frozenset()
    )
    made = plan(observed=observed)
    assert {(c.part, c.kind) for c in made.changes} == {
        (part, Kind.CREATE) for part in (Part.CONNECTION, Part.SHARED, Part.KEY, Part.CERTIFICATE)
    }
    assert all("restarted" in change.reasons[0] for change in made.changes)


def test_a_connection_altered_by_hand():
    observed = replace(applied(), connections={"t": {**REPORTED, "version": "IKEv1"}})
    change = only(plan(observed=observed))
    assert (change.part, change.kind) == (Part.CONNECTION, Kind.CHANGE)
    assert "by hand" in change.reasons[0]


def test_another_version_of_charon_may_use_other_words():
    observed = replace(applied(), version="6.2.0", connections={"t": {"version": "2"}})
    assert plan(observed=observed).changes == ()


@pytest.mark.parametrize("path", [SWANCTL_FILE, FIREWALL_FILE, ROUTES_FILE, SYSCTL_FILE])
@pytest.mark.parametrize("seen", [FileSeen("edited", 0o644), None])
def test_a_file_edited_or_deleted_by_hand(path, seen):
    observed = applied()
    left = {p: s for p, s in observed.facts.files.items() if p != path}
    made = plan(observed=with_facts(observed, files=left | ({path: seen} if seen else {})))
    (change,) = made.of(Part.FILE)
    assert change.kind is (Kind.CHANGE if seen else Kind.CREATE)
    assert "by hand" in change.reasons[0] or "no longer there" in change.reasons[0]


def test_a_loosened_mode_is_found():
    observed = applied()
    seen = observed.facts.files[SWANCTL_SECRETS_FILE]
    loose = {**observed.facts.files, SWANCTL_SECRETS_FILE: FileSeen(seen.sha256, 0o644)}
    made = plan(observed=with_facts(observed, files=loose))
    (change,) = made.of(Part.FILE)
    assert dict(change.before) == {"mode": "0644"}
    assert dict(change.after) == {"mode": "0600"}
    # charon cannot say which key it holds: one that was loaded from an altered file must not stay.
    assert [c.name for c in made.of(Part.SHARED)] == ["ike-t"]


def test_firewall_sysctl_and_route_drift():
    observed = applied()
    change = only(plan(observed=with_facts(observed, firewall="")))
    assert (change.part, change.kind) == (Part.FIREWALL, Kind.CREATE)
    change = only(plan(observed=with_facts(observed, firewall="other")))
    assert (change.part, change.kind) == (Part.FIREWALL, Kind.CHANGE)
    change = only(plan(observed=with_facts(observed, sysctls={"net.ipv4.ip_forward": ("0",)})))
    assert (change.part, dict(change.before), dict(change.after)) == (
        Part.SYSCTL,
        {"value": "0"},
        {"value": "1"},
    )
    change = only(plan(observed=with_ways(observed, routes=frozenset())))
    assert (change.part, change.kind, change.name) == (Part.ROUTE, Kind.CREATE, "10.2.0.0/24")
    extra = RouteSeen(IPNetwork("10.9.0.0/24"), "unreachable", metric=9, ours=True)
    change = only(plan(observed=with_ways(observed, routes=observed.facts.ways.routes | {extra})))
    assert (change.part, change.kind, change.name) == (Part.ROUTE, Kind.REMOVE, "10.9.0.0/24")


GUARDED = replace(WANTED, files={**WANTED.files, GUARD_UNIT_FILE: NewFile(GUARD_UNIT_FILE, b"[Unit]", 0o644)})


def test_where_no_systemd_runs_there_is_no_unit_to_speak_of():
    assert plan(GUARDED, applied(GUARDED)).changes == ()
    assert not plan(GUARDED, NOTHING).of(Part.UNIT)


@pytest.mark.parametrize(
    ("unit", "kind", "reason"),
    [
        (("enabled", "active"), None, ""),
        (("disabled", "active"), Kind.CREATE, "would not be loaded after a reboot"),
        (("not-found", "inactive"), Kind.CREATE, "would not be loaded after a reboot"),
        (("enabled", "inactive"), Kind.CHANGE, "nftables.service"),
        (("enabled", "failed"), Kind.CHANGE, "it failed"),
    ],
)
def test_a_guard_that_would_not_be_there_after_a_reboot(unit, kind, reason):
    made = plan(GUARDED, with_facts(applied(GUARDED), unit=unit))
    assert [change.kind for change in made.changes] == ([kind] if kind else [])
    assert all(change.part is Part.UNIT and reason in change.reasons[0] for change in made.changes)


def test_a_unit_file_that_changes_is_told_to_systemd_and_one_that_goes_is_disabled():
    observed = with_facts(applied(GUARDED), unit=("enabled", "active"))
    other = replace(WANTED, files={**WANTED.files, GUARD_UNIT_FILE: NewFile(GUARD_UNIT_FILE, b"[X]", 0o644)})
    assert [(c.part, c.kind) for c in plan(other, observed).changes] == [
        (Part.FILE, Kind.CHANGE),
        (Part.UNIT, Kind.CHANGE),
    ]
    assert {(c.part, c.kind) for c in plan(WANTED, observed).changes} == {
        (Part.FILE, Kind.REMOVE),
        (Part.UNIT, Kind.REMOVE),
    }
    begun = {**observed.facts.record.files, GUARD_UNIT_FILE: ""}
    assert [(c.part, c.reasons[0]) for c in plan(GUARDED, with_record(observed, files=begun)).changes] == [
        (Part.FILE, "an earlier apply was cut off here"),
        (Part.UNIT, "an earlier apply was cut off here"),
    ]


def test_an_apply_that_was_cut_off_goes_on():
    observed = with_record(
        applied(), connections={"t": ""}, shared={"ike-t": ""}, files={SWANCTL_FILE: ""}, seen=Seen()
    )
    made = plan(observed=observed)
    assert not made.conflicts or all("/etc" in c.summary for c in made.conflicts)
    reasons = {c.part: c.reasons[0] for c in made.changes}
    for part in (Part.CONNECTION, Part.SHARED, Part.FIREWALL):
        assert "cut off" in reasons[part]


# ------------------------------------------------------------------------------------------- what it disturbs


def changed(path, value):
    message = connection()
    *parents, key = path.split(".")
    section = message
    for parent in parents:
        section = section[parent]
    section[key] = value
    return replace(WANTED, connections={"t": message})


@pytest.mark.parametrize(
    ("path", "value", "grade"),
    [
        ("children.t.esp_proposals", ["aes128gcm16"], Disruption.REKEY),
        ("children.t.local_ts", ["10.1.0.0/24", "10.3.0.0/24"], Disruption.REKEY),
        ("children.t.rekey_time", "1800s", Disruption.REKEY),
        ("children.u", {"local_ts": ["10.5.0.0/24"]}, Disruption.NONE),
        ("children", {"u": {"local_ts": ["10.5.0.0/24"]}}, Disruption.REKEY),
        ("proposals", ["aes128-sha256-ecp256"], Disruption.REKEY),
        ("remote_addrs", ["192.0.2.3"], Disruption.IKE_RESTART),
        ("local.id", "c", Disruption.IKE_RESTART),
        ("dpd_delay", "30s", Disruption.REKEY),
        ("rekey_time", "7200s", Disruption.REKEY),
        ("children.t.mode", "transport", Disruption.CHILD_RESTART),
    ],
)
def test_grades(path, value, grade):
    change = only(plan(changed(path, value)))
    assert change.disruption is grade
    assert change.before != change.after
    assert plan(changed(path, value)).disturbed == ({"t": grade} if grade else {})


def test_the_fields_that_change_are_shown_old_and_new():
    change = only(plan(changed("children.t.esp_proposals", ["aes128gcm16"])))
    assert dict(change.before) == {"children.t.esp_proposals": "aes256gcm16-x25519"}
    assert dict(change.after) == {"children.t.esp_proposals": "aes128gcm16"}


def test_a_child_that_starts_by_itself_is_restarted_by_charon():
    started = replace(WANTED, connections={"t": connection(start_action="start")})
    later = replace(WANTED, connections={"t": connection(start_action="start", rekey_time="1800s")})
    assert only(plan(later, applied(started))).disruption is Disruption.CHILD_RESTART


def test_a_new_psk_is_a_change_without_fields():
    wanted = replace(WANTED, shared={"ike-t": {**WANTED.shared["ike-t"], "data": b"another"}})
    made = plan(wanted)
    assert [(c.part, c.kind, c.before, c.after) for c in made.changes] == [
        (Part.CONNECTION, Kind.CHANGE, (), ()),
        (Part.SHARED, Kind.CHANGE, (), ()),
    ]
    assert made.disturbed == {"t": Disruption.REKEY}


def test_a_new_ppk_is_authenticated_anew_as_a_psk_is():
    """Only a new IKE_SA takes it: rekeys go on with the keys of before (RFC 8784 section 3)."""
    ppk = {"id": "ppk-t", "type": "ppk", "data": SECRET, "owners": ["t"]}
    before = replace(WANTED, shared={**WANTED.shared, "ppk-t": ppk})
    made = plan(
        replace(WANTED, shared={**WANTED.shared, "ppk-t": {**ppk, "data": b"another"}}), applied(before)
    )
    assert [(c.part, c.name) for c in made.changes] == [(Part.CONNECTION, "t"), (Part.SHARED, "ppk-t")]
    assert "PPK" in made.changes[0].reasons[0]
    assert made.disturbed == {"t": Disruption.REKEY}
    assert halves([made], ()).keys() == {"t"}


def test_a_ppk_that_is_wanted_from_now_on_makes_a_new_ike_sa():
    with_ppk = {**connection(), "ppk_id": "t", "ppk_required": "yes"}
    ppk = {"id": "ppk-t", "type": "ppk", "data": SECRET, "owners": ["t"]}
    made = plan(replace(WANTED, connections={"t": with_ppk}, shared={**WANTED.shared, "ppk-t": ppk}))
    assert made.disturbed == {"t": Disruption.REKEY}
    assert {(c.part, c.kind) for c in made.changes} >= {
        (Part.SHARED, Kind.CREATE),
        (Part.CONNECTION, Kind.CHANGE),
    }


# ---------------------------------------------------------------------------------------------------- helpers


def test_a_certificate_counts_by_its_der():
    pem = b"-----BEGIN CERTIFICATE-----\nZGVyIG9mIGE=\n-----END CERTIFICATE-----\n"
    assert certificate_digest(pem) == certificate_digest(b"der of a") == certificate_digest(pem.decode())


def test_files_of_sysctls():
    assert sysctls(b"# a = 1\n;b = 2\n-c.d = 3\ne=1\t 2\n") == {"c.d": "3", "e": "1 2"}


# ------------------------------------------------------------------------------------- what was not completed


def test_a_change_that_was_cut_off_is_graded_by_what_charon_had():
    observed = with_record(applied(), connections={"t": ""})
    assert only(plan(changed("local.id", "c"), observed)).disruption is Disruption.IKE_RESTART
    assert only(plan(changed("dpd_delay", "30s"), observed)).disruption is Disruption.REKEY
    assert only(plan(observed=observed)).disruption is Disruption.NONE


def test_what_only_somebody_elses_gateway_can_bring_up_is_ended_for_it():
    wanted = changed("dpd_delay", "30s")
    message = {**wanted.connections["t"], "remote_addrs": ["%any"]}
    old = replace(WANTED, connections={"t": {**connection(), "remote_addrs": ["%any"]}})
    for foreign, grade in ((frozenset(), Disruption.REKEY), (frozenset("t"), Disruption.IKE_RESTART)):
        target = replace(wanted, connections={"t": message}, foreign=foreign)
        assert only(plan(target, applied(old))).disruption is grade


def test_sas_that_were_not_made_anew_stay_in_the_plan():
    change = only(plan(observed=with_record(applied(), renew=("t",))))
    assert (change.part, change.disruption) == (Part.CONNECTION, Disruption.REKEY)
    assert "not made anew" in change.reasons[0]


def refused(why="charon on gw says: no", **changes):
    """Return what is observed after an apply whose new key the far end did not take, and what is wanted."""
    new = {**WANTED.shared["ike-t"], "data": b"another " + SECRET}
    target = replace(WANTED, shared={"ike-t": new})
    seen = replace(applied(), shared=frozenset(("ike-t", "ike-t.next")), sa_names=frozenset("t"))
    begun = {"connections": {"t": ""}, "shared": {"ike-t": "", "ike-t.next": ""}}
    return target, with_record(seen, **begun, kept={"t": why}, renew=("t",), **changes)


def test_what_the_far_end_refused_was_not_cut_off_and_is_tried_again():
    made = plan(*refused())
    assert {(c.part, c.name, c.kind, str(c.cause)) for c in made.changes} == {
        (Part.SHARED, "ike-t", Kind.CHANGE, "not completed"),
        (Part.SHARED, "ike-t.next", Kind.REMOVE, "not completed"),
        (Part.CONNECTION, "t", Kind.CHANGE, "not completed"),
    }
    (change,) = made.of(Part.CONNECTION)
    assert change.reasons[0] == (
        "the last apply did not complete its change (charon on gw says: no); its SAs keep the configuration "
        "of before: it is tried again"
    )
    assert change.disruption is Disruption.REKEY
    out = io.StringIO()
    print_plan([made], {}, out)
    assert "3 of these are left from the last apply, which could not complete them: gw (3)." in out.getvalue()
    assert "no longer in the topology" not in out.getvalue()


def test_after_a_restart_of_charon_no_sa_keeps_what_was_before():
    target, seen = refused(why="", start_up=StartUp("1-1"))
    (change,) = plan(target, with_facts(seen, charon="2-2")).of(Part.CONNECTION)
    assert change.reasons[0] == "the last apply did not complete its change: it is tried again"


def test_our_own_entry_for_a_new_key_is_of_an_apply_that_was_cut_off_where_it_was():
    target, seen = refused()
    made = plan(target, with_record(seen, kept={}))
    assert {str(change.cause) for change in made.changes} == {"cut off"}
    (left,) = made.of(Part.SHARED, Kind.REMOVE)
    assert (left.name, "cut off" in left.reasons[0]) == ("ike-t.next", True)


def test_a_settings_file_that_charon_was_perhaps_not_told_of_is_written_again():
    wanted = replace(WANTED, files={**WANTED.files, STRONGSWAN_FILE: NewFile(STRONGSWAN_FILE, b"", 0o644)})
    observed = applied(wanted)
    assert plan(wanted, observed).changes == ()
    begun = {**observed.facts.record.files, STRONGSWAN_FILE: ""}
    change = only(plan(wanted, with_record(observed, files=begun)))
    assert (change.name, "cut off" in change.reasons[0]) == (STRONGSWAN_FILE, True)


def test_anothers_file_with_the_right_content_gets_the_right_mode():
    same = hashlib.sha256(WANTED.files[SWANCTL_SECRETS_FILE].content).hexdigest()
    made = plan(observed=with_facts(NOTHING, files={SWANCTL_SECRETS_FILE: FileSeen(same, 0o644)}))
    assert not made.conflicts
    (change,) = [c for c in made.of(Part.FILE) if c.name == SWANCTL_SECRETS_FILE]
    assert (change.kind, dict(change.after)) == (Kind.CHANGE, {"mode": "0600"})


def test_a_private_key_that_goes_stays_in_charons_memory_and_the_plan_says_so():
    change = only(plan(replace(WANTED, keys={})))
    assert (change.part, change.kind) == (Part.KEY, Kind.REMOVE)
    assert "keeps it in memory" in change.reasons[0]


def test_without_charon_only_the_hosts_part_is_planned_and_nothing_taken_away():
    down = GatewayUnreachable("gw", "charon is not running", "start it", charon_down=True)
    seen = with_facts(applied(), firewall="", sysctls={"net.ipv4.ip_forward": ("0",)})
    seen = replace(seen, version="", connections={}, shared=frozenset(), keys=frozenset(), charon_down=down)
    made = plan(observed=seen)
    assert {change.part for change in made.changes} == {Part.FIREWALL, Part.SYSCTL}
    assert made.charon_down == "charon is not running"
    emptied = plan(replace(WANTED, connections={}, routes=(), rules=(), interfaces={}), observed=seen)
    assert not [change for change in emptied.changes if change.kind is Kind.REMOVE]
    (told,) = plan_json([made], {})["gateways"]
    assert (told["charon"], told["charon_down"]) == (None, "charon is not running")
    out = io.StringIO()
    print_plan([made], {"gw": down}, out)
    assert out.getvalue().startswith("gw (the host alone: charon is down)\n")
    assert "charon's part not planned: gw: charon is not running\n" in out.getvalue()


def test_what_is_no_longer_protected_is_said():
    def carrying(*remote):
        return {"children": {"c": {"local_ts": ["10.1.0.0/24"], "remote_ts": list(remote)}}}

    before = Wanted("gw", "top", connections={"t": carrying("10.2.0.0/24", "10.3.0.0/24[tcp/80]"), "u": {}})
    none = plan(replace(before, connections={"u": {}}), applied(before))
    (gone,) = none.of(Part.CONNECTION)
    pairs = "10.1.0.0/24 and 10.2.0.0/24, 10.1.0.0/24 and 10.3.0.0/24"
    reason = f"no longer protected: traffic between {pairs} is not held back any more, may leave in clear"
    assert gone.reasons[1:] == (reason,)
    narrower = plan(replace(before, connections={"t": carrying("10.2.0.0/24"), "u": {}}), applied(before))
    assert "between 10.1.0.0/24 and 10.3.0.0/24 is" in narrower.of(Part.CONNECTION)[0].reasons[1]
    moved = plan(replace(before, connections={"v": carrying("10.2.0.0/15"), "u": {}}), applied(before))
    (gone,) = moved.of(Part.CONNECTION, Kind.REMOVE)
    assert gone.reasons == ("no longer in the topology",)


def test_a_take_over_is_a_change_of_the_records_owner():
    another = replace(WANTED, topology="another")
    (change,) = plan(another, applied(), take_over=True).changes
    assert (change.part, change.reasons) == (Part.RECORD, ("taken over from topology 'top'",))
    assert (change.before, change.after) == ((("topology", "top"),), (("topology", "another"),))
    assert plan(take_over=True).changes == ()


# ------------------------------------------------------------------------------------------- on the screen


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [80, 140])
def test_on_a_terminal_no_line_is_too_long_and_no_value_is_cut(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    proposals = [f"aes256gcm16-prfsha384-x25519-ke1_mlkem{size}" for size in (512, 768, 1024)]
    changed = replace(WANTED, connections={"t": connection() | {"proposals": proposals, "encap": "yes"}})
    screen = Screen()
    print_plan([plan(changed, with_facts(applied(), firewall=""))], {}, screen)
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    assert f"-> {', '.join(proposals)}" in text
    assert "encap: (not set) -> yes" in text
    assert "+ firewall inet ipsecctl [drift]: the table was applied and is no longer loaded" in text
    assert "1 of these is drift: gw (1)." in text
    assert "Moved, new SAs before old ones are ended: t." in text


def test_elsewhere_a_change_is_one_line():
    out = io.StringIO()
    print_plan([plan(observed=with_facts(applied(), firewall=""))], {}, out)
    assert (
        "  + firewall inet ipsecctl [drift]: the table was applied and is no longer loaded\n"
        in out.getvalue()
    )
    assert "No running tunnel is disturbed.\n" in out.getvalue()


# --------------------------------------------------------------------------------------------------- causes


def test_what_is_intended_is_no_drift():
    changed = replace(WANTED, connections={"t": connection(rekey_time="60s")})
    made = plan(changed)
    assert [str(change.cause) for change in made.changes] == ["intended"]
    assert made.drift == ()


def test_what_was_altered_by_hand_and_in_the_topology_is_drift_and_says_both():
    changed = replace(WANTED, connections={"t": connection(rekey_time="60s")})
    seen = replace(applied(), connections={"t": {**REPORTED, "version": "IKEv1"}})
    change = only(plan(changed, seen))
    assert change.cause == "drift"
    assert change.reasons[:2] == (
        "altered on the gateway by hand since the last apply",
        "the topology or what it refers to has changed",
    )


@pytest.mark.parametrize(
    ("start", "says"), [("1-1", "unloaded by hand since"), ("2-2", "charon was started anew since")]
)
def test_a_charon_started_anew_is_told_from_an_unloaded_connection(start: str, says: str):
    seen = with_record(applied(), start_up=StartUp("1-1"))
    change = only(plan(observed=replace(with_facts(seen, charon=start), connections={})))
    assert change.cause == "drift"
    assert says in change.reasons[0]


def test_an_sa_that_keeps_another_configuration():
    change = only(plan(outdated={"t": ("its CHILD_SA: it lives for 60 s, declared is 3960 s",)}))
    assert (change.kind, change.cause, change.disruption) == ("change", "drift", Disruption.CHILD_RESTART)
    assert change.reasons[0].startswith("a running SA keeps another configuration: its CHILD_SA: it lives")


def test_of_an_intended_change_nothing_is_said_of_the_sas_that_it_makes_anew():
    changed = replace(WANTED, connections={"t": connection(rekey_time="60s")})
    change = only(plan(changed, outdated={"t": ("its CHILD_SA: it lives for 60 s",)}))
    assert not any("keeps another" in reason for reason in change.reasons)
    assert change.disruption is Disruption.REKEY, "they are moved to the new configuration"
