"""lab.yaml: every finding has its line and column, and says how to mend it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from ipsecctl.errors import LabError, TopologyRefused
from ipsecctl.lab import load
from ipsecctl.lab.find import name_of
from ipsecctl.lab.spec import parse

TOPOLOGY = Path(__file__).parents[2] / "topologies" / "clinic-dc.yaml"


@pytest.mark.parametrize(
    ("text", "place", "code", "summary", "hint"),
    [
        ("hots: {}\n", (1, 1), "IP401", "unknown key 'hots'", "did you mean 'hosts'?"),
        (
            "nat:\n  box: {gateway: a}\n",
            (2, 9),
            "IP401",
            "unknown key 'gateway'",
            "did you mean 'gateways'?",
        ),
        (
            "nat:\n  box: {address: 192.0.2.1}\n",
            (2, 3),
            "IP401",
            "'gateways' is missing",
            "add 'gateways: ...'",
        ),
        (
            "links:\n  dc: {mtu: 200}\n",
            (2, 13),
            "IP402",
            "links.dc.mtu: 200 is out of range",
            "MTUs are from 576 to 9216 bytes",
        ),
        (
            "hosts:\n  pacs:\n    network: dc.imaging\n    address: 10.0.0.300\n",
            (4, 14),
            "IP402",
            "hosts.pacs.address: '10.0.0.300' is not an IP address",
            "see docs/labs.md",
        ),
        (
            "gateways:\n  dc:\n    files: {etc/x: y}\n",
            (3, 20),
            "IP402",
            "gateways.dc.files.etc/x: it is not an absolute path in the node",
            "see docs/labs.md",
        ),
        (
            "links: {dc: {mtu: big}}\n",
            (1, 19),
            "IP402",
            "links.dc.mtu: a whole number is wanted, not the text 'big'",
            "write a number",
        ),
        ("nat: [a]\n", (1, 1), "IP402", "nat: a mapping is wanted, not a list", "write 'name: ...' pairs"),
        (
            "hosts: {b d: {network: dc.servers}}\n",
            (1, 9),
            "IP402",
            "hosts.b d: the text 'b d' cannot be a name",
            "letters, digits, '-' and '_', at most 63, a letter or digit at both ends",
        ),
        (
            "nat: {b: {gateways: [], forward: maybe}}\n",
            (1, 34),
            "IP402",
            "nat.b.forward: true or false is wanted, not the text 'maybe'",
            "write true or false",
        ),
        (
            "ipsecctl-lab: 2\n",
            (1, 15),
            "IP402",
            "ipsecctl-lab: 1 is wanted, not the number 2",
            "this ipsecctl knows version 1",
        ),
        (
            "gateways:\n  dc: {release: buster}\n",
            (2, 17),
            "IP402",
            "gateways.dc.release: 'buster' is none of bookworm, trixie, forky",
            "see docs/labs.md",
        ),
        (
            "gateways:\n  dc: {release: 12}\n",
            (2, 17),
            "IP402",
            "gateways.dc.release: the number 12 is none of bookworm, trixie, forky",
            "see docs/labs.md",
        ),
        (
            "gateways:\n  dc: {init: openrc}\n",
            (2, 14),
            "IP402",
            "gateways.dc.init: 'openrc' is none of small, systemd",
            "see docs/labs.md",
        ),
    ],
)
def test_findings(text: str, place: tuple[int, int], code: str, summary: str, hint: str) -> None:
    spec, _, _, findings = parse(text, "lab.yaml")
    assert spec is None
    found = [((f.line, f.column), f.code, f.summary, f.hint) for f in findings]
    assert (place, code, summary, hint) in found


def test_yaml_errors_have_their_place() -> None:
    spec, _, _, findings = parse("nat: {}\nnat: {}\n", "lab.yaml")
    assert spec is None
    assert (findings[0].line, findings[0].column) == (2, 1)


def lab_file(folder: Path, text: str) -> str:
    file = folder / "t" / "lab.yaml"
    file.parent.mkdir()
    file.write_text(f"topology: {TOPOLOGY}\n{text}")
    return str(file)


def first_finding(file: str) -> tuple[int, int, str]:
    with pytest.raises(TopologyRefused) as caught:
        load(file)
    first = caught.value.diagnostics[0]
    return first.line, first.column, first.summary


def test_what_does_not_fit_the_topology_has_its_place(tmp_path: Path) -> None:
    file = lab_file(tmp_path, "hosts:\n  pacs: {network: dc.imagin}\n")
    assert first_finding(file) == (3, 19, "there is no network 'dc.imagin'")


def test_a_file_that_is_not_there_has_its_place(tmp_path: Path) -> None:
    file = lab_file(tmp_path, "gateways:\n  dc:\n    files:\n      /etc/x: gone\n")
    line, column, summary = first_finding(file)
    assert (line, column) == (5, 15)
    assert summary.endswith("gone: No such file or directory")


def test_a_psk_of_no_tunnel_of_that_gateway(tmp_path: Path) -> None:
    file = lab_file(tmp_path, "gateways:\n  clinic-a: {files: {/etc/x: x}}\n")
    (tmp_path / "t" / "x").write_text("secret = @psk:clinics-clinic-b@\n")
    assert first_finding(file)[2].endswith("@psk:clinics-clinic-b@ is no PSK of clinic-a")


def test_a_topology_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: nowhere.yaml\n")
    line, column, summary = first_finding(str(tmp_path / "lab.yaml"))
    assert (line, column) == (2, 11)
    assert "there is no topology" in summary


def test_names_that_compose_would_not_take(tmp_path: Path) -> None:
    (tmp_path / "Big").mkdir()
    (tmp_path / "Big" / "lab.yaml").write_text(f"topology: {TOPOLOGY}\n")
    with pytest.raises(LabError, match="cannot be the name"):
        load(str(tmp_path / "Big"))


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = lab_file(
        tmp_path,
        "links:\n  dc: {mtu: 200}\n  clinic-x: {mtu: 1400}\n"
        "hosts:\n  pacs: {network: dc.imaging, address: 10.99.0.1}\n  lost: {network: dc.nowhere}\n"
        "nat:\n  box: {gateway: [clinic-b]}\n",
    )
    with pytest.raises(TopologyRefused) as caught:
        load(file)
    found = [(d.line, d.code, d.summary) for d in caught.value.diagnostics]
    assert sorted(found) == [
        (3, "IP402", "links.dc.mtu: 200 is out of range"),
        (4, "IP403", "there is no gateway, NAT box or network 'clinic-x'"),
        (6, "IP403", "10.99.0.1 is not in network dc.imaging"),
        (7, "IP403", "there is no network 'dc.nowhere'"),
        (9, "IP401", "'gateways' is missing"),
        (9, "IP401", "unknown key 'gateway'"),
    ]


@pytest.mark.parametrize("said", [".", "./", "../t", "../t/lab.yaml", "lab.yaml", "..", "../"])
def test_a_lab_is_named_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    lab_file(tmp_path, "")
    (tmp_path / "t" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "t" / ("below" if said in ("..", "../") else ""))
    assert load(said).name == name_of(said) == "t"
    assert Path(load(said).file).is_file()


WHOLE = """\
hosts:
  pacs: {network: dc.imaging, address: 10.10.8.104}
  ris: {network: dc.servers}
nat:
  clinic-b-box: {gateways: clinic-b, address: 192.0.2.30, inside: 192.168.178.0/24, forward: false}
links:
  clinic-b-box: {mtu: 1452}
  dc.imaging: {mtu: 1500}
gateways:
  clinic-a:
    release: bookworm
    files: {/etc/swanctl/conf.d/mine.conf: mine.conf}
"""
MISTAKES = {
    "hosts:": "description: [a]\nhosts:",
    "{network: dc.imaging": "{network: dc.imagine",
    "10.10.8.104": "10.10.9.104",
    "{network: dc.servers}": "5",
    "gateways: clinic-b,": "gateways: [clinic-b, clinic-c],",
    "192.0.2.30": "300.1.1.1",
    "192.168.178.0/24": "10.10.0.0/24",
    "forward: false": "forward: maybe",
    "  clinic-b-box: {mtu: 1452}": "  clinic-b-bix: {mtu: 1452}",
    "mtu: 1500": "mtu: 10",
    "  clinic-a:": "  clinic-d:",
    "bookworm": "sarge",
    "mine.conf}": "nofile}",
}

# An address is held against the network that is named, and a release is called wrong by its gateway's name.
OF_ONE_THING = {("{network: dc.imaging", "10.10.8.104"), ("  clinic-a:", "bookworm")}


def findings_of(folder: Path, text: str) -> set[str]:
    (folder / "lab.yaml").write_text(f"topology: {TOPOLOGY}\n{text}")
    try:
        load(str(folder))
    except TopologyRefused as refused:
        return {re.sub(r"there are: .*", "", d.summary) for d in refused.diagnostics}
    return set()


def test_of_two_mistakes_in_a_lab_file_none_hides_the_other(tmp_path: Path) -> None:
    (tmp_path / "mine.conf").write_text("")
    assert findings_of(tmp_path, WHOLE) == set()
    alone = {right: findings_of(tmp_path, WHOLE.replace(right, wrong)) for right, wrong in MISTAKES.items()}
    assert [right for right, found in alone.items() if not found] == []
    hidden = []
    for one, other in itertools.combinations(MISTAKES, 2):
        if (one, other) in OF_ONE_THING:
            continue
        both = findings_of(tmp_path, WHOLE.replace(one, MISTAKES[one]).replace(other, MISTAKES[other]))
        hidden += [(one, other, finding) for finding in (alone[one] | alone[other]) - both]
    assert hidden == []


def test_all_mistakes_in_a_lab_file_are_shown_at_once(tmp_path: Path) -> None:
    text = """\
hosts: {y: 5}
nat: {b: {gateways: zz, address: 300.1.1.1}}
links: {q: {mtu: 10}}
gateways: {clinic-a: {release: sarge, files: {/etc/x: nofile}}}
"""
    found = sorted(findings_of(tmp_path, text))
    assert [summary.split(":")[0] for summary in found] == [
        f"cannot read {tmp_path}/nofile",
        "gateways.clinic-a.release",
        "hosts.y",
        "links.q.mtu",
        "nat.b.address",
        "there is no gateway 'zz'",
        "there is no gateway, NAT box or network 'q'",
    ]
