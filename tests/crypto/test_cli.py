"""``ipsecctl overhead`` and ``ipsecctl crypto``."""

from __future__ import annotations

import json

import pytest

from ipsecctl.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_overhead_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(
        capsys, "overhead", "--link-mtu", "1500", "--esp", "aes256gcm16-x25519", "--nat-t", "--json"
    )
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert document["schema"] == "ipsecctl/overhead/1"
    assert document["inner_mtu"] == 1438
    assert (document["mss_ipv4"], document["mss_ipv6"]) == (1398, 1378)
    assert document["overhead_bytes"] == 62 == sum(document["breakdown"].values())


def test_overhead_for_people_shows_the_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "overhead", "--link-mtu", "1500", "--esp", "aes256gcm16", "--outer", "ipv6")
    assert status == 0
    rows = {line[4:44].strip(): line[44:].strip() for line in out.splitlines()}
    assert rows["outer IPv6 header"] == "40"
    assert rows["largest inner packet"] == "1426"


def test_the_suite_that_costs_most_decides(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "overhead", "--link-mtu", "1500", "--esp", "aes256-sha256-sha512", "--json")
    document = json.loads(out)
    assert document["suite"] == "aes256-sha512"
    assert [suite["suite"] for suite in document["suites"]] == ["aes256-sha256", "aes256-sha512"]


def test_libipsec_caps_the_inner_packet(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "overhead", "--link-mtu", "1500", "--esp", "aes256gcm16", "--libipsec", "--json")
    assert json.loads(out)["inner_mtu"] == 1400


def test_too_small_for_ipv6_inside_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "overhead", "--link-mtu", "1300", "--esp", "aes256gcm16")
    assert status == 0
    assert "1280" in err
    assert "IPv6 inside" not in out


def test_broken_algorithms_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, "overhead", "--link-mtu", "1500", "--esp", "3des-md5")
    assert "3des is broken" in err
    assert "md5 is broken" in err


@pytest.mark.parametrize(
    ("link_mtu", "esp", "said"),
    [
        ("1500", "aes256gmc16", "aes256gcm16"),
        ("1500", "aes256", "sha256"),
        ("40", "aes256gcm16", "--link-mtu"),
        ("99999", "aes256gcm16", "--link-mtu"),
        ("many", "aes256gcm16", "--link-mtu"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], link_mtu: str, esp: str, said: str) -> None:
    status, out, err = run(capsys, "overhead", "--link-mtu", link_mtu, "--esp", esp)
    assert (status, out) == (2, "")
    assert said in err


def test_algorithms(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "crypto", "algorithms")
    assert status == 0
    assert "aes256gcm16" in out
    status, out, _ = run(capsys, "crypto", "algorithms", "--json")
    rows = {row["keyword"]: row for row in json.loads(out)["algorithms"]}
    assert status == 0
    assert rows["mlkem768"]["iana_number"] == 36
    assert rows["md5"]["status"] == "broken"


def test_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "crypto", "profiles", "pq-hybrid")
    assert status == 0
    assert "ke1_mlkem768" in out
    status, out, _ = run(capsys, "crypto", "profiles", "--json")
    assert status == 0
    assert json.loads(out)["profiles"][0]["name"] == "modern"


def test_an_unknown_profile_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "crypto", "profiles", "cnsa2")
    assert status == 2
    assert "cnsa-2" in err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--link-mtu", "big", "'big' is no number of bytes: write one such as 1500"),
        ("--link-mtu", "1500.5", "'1500.5' is no number of bytes: write one such as 1500"),
        ("--outer", "ipv5", "'ipv5' is no version of IP: write ipv4 or ipv6"),
    ],
)
def test_overhead_refuses_in_plain_words(
    capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    good = {"--link-mtu": "1500", "--esp": "aes256gcm16"} | {option: value}
    status, out, err = run(capsys, "overhead", *(word for pair in good.items() for word in pair))
    assert (status, out) == (2, "")
    assert said in err
    assert "Input should" not in err
