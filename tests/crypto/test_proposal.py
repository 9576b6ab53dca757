"""Reading proposals, refusing incoherent ones, and choosing as IKEv2 does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsecctl.crypto import (
    KEYWORDS,
    Kind,
    ProposalError,
    Protocol,
    Status,
    examine_proposal,
    in_common,
    negotiate,
    parse_esp_proposal,
    parse_ike_proposal,
)


def test_hybrid_ike_proposal() -> None:
    proposal = parse_ike_proposal("aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_none-ke2_ecp384")
    assert [a.keyword for a in proposal.encryption] == ["aes256gcm16"]
    assert [a.keyword for a in proposal.prf] == ["prfsha384"]
    assert [a.keyword for a in proposal.key_exchange] == ["x25519"]
    assert [(n, [a.keyword for a in choices]) for n, choices in proposal.additional] == [
        (1, ["mlkem768"]),
        (2, ["none", "ecp384"]),
    ]
    assert str(proposal) == "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_none-ke2_ecp384"
    assert proposal.status is Status.GOOD


def test_the_prf_of_an_ike_proposal_follows_its_integrity() -> None:
    proposal = parse_ike_proposal("aes256-sha2_256-sha1_160-modp2048")
    assert [a.keyword for a in proposal.prf] == ["prfsha256", "prfsha1"]


@pytest.mark.parametrize(
    "integrity", [k for k, a in KEYWORDS.items() if a.kind is Kind.INTEGRITY and a.keyword == k]
)
def test_every_integrity_algorithm_has_a_prf(integrity: str) -> None:
    assert parse_ike_proposal(f"aes256-{integrity}-x25519").prf


def test_an_esp_proposal_ignores_a_prf_and_has_32_bit_sequence_numbers() -> None:
    proposal = parse_esp_proposal("aes128-sha256-prfsha256-modp3072")
    assert proposal.prf == ()
    assert not proposal.esn
    assert str(proposal) == "aes128-sha256-modp3072"
    assert str(parse_esp_proposal("aes128-sha256-esn-noesn")) == "aes128-sha256-esn-noesn"


@pytest.mark.parametrize(
    ("text", "pfs"),
    [("aes256gcm16-x25519", True), ("aes256gcm16", False), ("aes256gcm16-x25519-none", False)],
)
def test_pfs(text: str, pfs: bool) -> None:
    assert parse_esp_proposal(text).pfs is pfs


def test_status_is_the_worst_of_all_alternatives() -> None:
    assert parse_esp_proposal("aes256-sha256-sha1-modp2048").status is Status.LEGACY
    assert parse_esp_proposal("aes256-3des-sha256-modp2048").status is Status.BROKEN


@pytest.mark.parametrize(
    ("text", "code", "nearest"),
    [
        ("aes256gmc16-prfsha384-x25519", "IP201", "aes256gcm16"),
        ("aes256gcm16-prfsha384-x25519-ke1_mlkem786", "IP201", "ke1_mlkem768"),
        ("aes256gcm16-prfsha384-x25519-ke1mlkem768", "IP201", "ke1_mlkem768"),
        ("aes256gcm16-prfsha384-x25519-ke8_mlkem768", "IP201", ""),
        ("aes256gcm16-prfsha384-x25519-ke1_sha256", "IP201", ""),
        ("aes-256-sha256-x25519", "IP201", "aes256"),
        ("aes256-sha-256-x25519", "IP201", "sha256"),
        ("aes256-sha256-group14", "IP201", "modp2048"),
        ("aes256--sha256-x25519", "IP201", ""),
        ("default", "IP203", ""),
        ("  ", "IP203", ""),
        ("sha256-x25519", "IP202", ""),
        ("aes256gcm16-aes256-sha256-x25519", "IP202", ""),
        ("aes256-x25519", "IP202", ""),
        ("aes256gcm16-x25519", "IP202", ""),
        ("aes256-sha256", "IP202", ""),
        ("aes256-sha256-none", "IP202", ""),
        ("aes256-sha256-ke1_mlkem768", "IP202", ""),
        ("aes256gcm16-sha384-ecp384", "IP202", "aes256gcm16-prfsha384-ecp384"),
        ("aes256gcm16-sha384-prfsha512-ecp384", "IP202", "aes256gcm16-prfsha512-ecp384"),
    ],
)
def test_refused_ike_proposals(text: str, code: str, nearest: str) -> None:
    with pytest.raises(ProposalError) as caught:
        parse_ike_proposal(text)
    assert (caught.value.code, caught.value.nearest) == (code, nearest)
    assert caught.value.summary


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("aes256", ""),
        ("aes256gcm16-ke1_mlkem768", ""),
        ("aes256gcm16-sha256-x25519-ke1_mlkem768", "aes256gcm16-x25519-ke1_mlkem768"),
    ],
)
def test_refused_esp_proposals(text: str, nearest: str) -> None:
    with pytest.raises(ProposalError) as caught:
        parse_esp_proposal(text)
    assert caught.value.code == "IP202"
    assert caught.value.nearest == nearest
    assert caught.value.hint


@given(st.lists(st.sampled_from([*KEYWORDS, "ke1_mlkem768", "ke2_none", "x"]), max_size=7).map("-".join))
def test_what_is_accepted_reads_back_the_same(text: str) -> None:
    for parse in (parse_ike_proposal, parse_esp_proposal):
        try:
            proposal = parse(text)
        except ProposalError as error:
            assert error.summary
            continue
        assert parse(str(proposal)) == proposal


# Cases of RFC 7296 section 2.7 and RFC 9370 section 2.2.2; the choice falls on our order.
CHOICES = [
    ("esp", "aes128-aes256-sha256", "aes256-aes128-sha256", "aes128-sha256"),
    ("esp", "aes128-sha256", "aes256-sha256", None),
    ("esp", "aes128-sha1-sha256", "aes128-sha256-sha1", "aes128-sha1"),
    ("esp", "aes128-sha256-modp3072", "aes128-sha256", None),
    ("esp", "aes128-sha256-modp3072-none", "aes128-sha256", "aes128-sha256"),
    ("esp", "aes128-sha256", "aes128-sha256-modp3072-none", "aes128-sha256"),
    ("esp", "aes128-sha256-none", "aes128-sha256-modp3072", None),
    ("esp", "aes128-sha256-none-modp3072", "aes128-sha256-modp3072-none", "aes128-sha256"),
    ("esp", "aes128-sha256-esn", "aes128-sha256-noesn", None),
    ("esp", "aes128-sha256-noesn-esn", "aes128-sha256-esn", "aes128-sha256-esn"),
    ("esp", "aes256gcm16-x25519", "aes256-sha256-x25519", None),
    ("ike", "aes256-sha256-x25519-ecp384", "aes256-sha256-ecp384", "aes256-sha256-prfsha256-ecp384"),
    ("ike", "aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-prfsha384-x25519", None),
    (
        "ike",
        "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_none",
        "aes256gcm16-prfsha384-x25519",
        "aes256gcm16-prfsha384-x25519",
    ),
    ("ike", "aes256gcm16-prfsha384-x25519-ke1_x25519", "aes256gcm16-prfsha384-x25519-ke1_x25519", None),
    (
        "ike",
        "aes256gcm16-prfsha384-x25519-ke1_x25519-ke1_ecp384",
        "aes256gcm16-prfsha384-x25519-ke1_ecp384",
        "aes256gcm16-prfsha384-x25519-ke1_ecp384",
    ),
]


@pytest.mark.parametrize(("protocol", "ours", "theirs", "chosen"), CHOICES)
def test_choice(protocol: str, ours: str, theirs: str, chosen: str | None) -> None:
    parse = parse_ike_proposal if protocol == "ike" else parse_esp_proposal
    mine, other = parse(ours), parse(theirs)
    agreed = negotiate([mine], [other])
    assert (None if agreed is None else str(agreed)) == chosen
    assert in_common([other], [mine]) is (chosen is not None)


def test_the_first_of_our_proposals_that_they_accept_is_chosen() -> None:
    ours = [parse_esp_proposal(text) for text in ("aes256gcm16-x25519", "aes256-sha256-x25519")]
    theirs = [parse_esp_proposal(text) for text in ("3des-md5-x25519", "aes256-sha256-x25519")]
    assert str(negotiate(ours, theirs)) == "aes256-sha256-x25519"


def test_ike_and_esp_have_nothing_in_common() -> None:
    assert not in_common(
        [parse_ike_proposal("aes256-sha256-x25519")], [parse_esp_proposal("aes256-sha256-x25519")]
    )


@pytest.mark.parametrize(
    ("text", "codes", "named"),
    [
        ("aes256-md5-sha256-modp1024-x22519", ["IP201"], ["aes256", "md5", "sha256", "modp1024"]),
        ("aes256gcm16-sha256-x22519-prfsha1", ["IP201", "IP202"], ["aes256gcm16", "sha256", "prfsha1"]),
        ("aes-256-gcm16-prfsha384-x22519", ["IP201", "IP201"], ["prfsha384"]),
        ("aes256-sha-256-modp1024", ["IP201"], ["aes256", "modp1024"]),
        ("aes256gcm16-sha256", ["IP202", "IP202"], ["aes256gcm16", "sha256", "prfsha256"]),
        ("", ["IP203"], []),
        ("aes256gcm16-prfsha384-x25519", [], ["aes256gcm16", "prfsha384", "x25519"]),
    ],
)
def test_everything_that_is_wrong_is_found_and_what_is_right_is_named(
    text: str, codes: list[str], named: list[str]
) -> None:
    examined = examine_proposal(text, Protocol.IKE)
    assert [error.code for error in examined.errors] == codes
    assert set(named) <= {a.keyword for a in examined.algorithms}
    assert not {"sha1", "aes128"} & {a.keyword for a in examined.algorithms}
    assert (examined.proposal is None) == bool(codes)
