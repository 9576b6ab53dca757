"""The built-in profiles keep what they promise."""

from __future__ import annotations

import pytest

from ipsecctl.crypto import (
    DEFAULT_PROFILE,
    PROFILES,
    Profile,
    Status,
    esp_suites,
    in_common,
    overhead,
    parse_esp_proposal,
    parse_ike_proposal,
)

each = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


def test_names() -> None:
    assert list(PROFILES) == ["modern", "pq-hybrid", "nist-800-77", "cnsa-2", "legacy-partner"]
    assert DEFAULT_PROFILE in PROFILES


@each
def test_proposals_are_coherent_and_as_good_as_promised(profile: Profile) -> None:
    proposals = [
        *map(parse_ike_proposal, profile.ike_proposals),
        *map(parse_esp_proposal, profile.esp_proposals),
    ]
    worst = Status.LEGACY if profile.name == "legacy-partner" else Status.GOOD
    assert {proposal.status for proposal in proposals} == {worst}


@each
def test_every_child_has_pfs(profile: Profile) -> None:
    assert profile.pfs
    assert all(parse_esp_proposal(text).pfs for text in profile.esp_proposals)


@each
def test_two_ends_with_one_profile_agree(profile: Profile) -> None:
    ike = [parse_ike_proposal(text) for text in profile.ike_proposals]
    esp = [parse_esp_proposal(text) for text in profile.esp_proposals]
    assert in_common(ike, ike)
    assert in_common(esp, esp)


@each
def test_lifetimes_leave_time_to_rekey(profile: Profile) -> None:
    assert 0 < profile.ike_rekey_s < profile.ike_life_s <= 24 * 3600
    assert 0 < profile.esp_rekey_s < profile.esp_life_s <= 8 * 3600
    assert profile.esp_life_s < profile.ike_life_s


@each
def test_the_mtu_does_not_hang_on_the_suite_that_is_chosen(profile: Profile) -> None:
    suites = [suite for text in profile.esp_proposals for suite in esp_suites(parse_esp_proposal(text))]
    assert len({overhead(1500, suite).inner_mtu for suite in suites}) == 1


@pytest.mark.parametrize(("name", "kem"), [("pq-hybrid", "mlkem768"), ("cnsa-2", "mlkem1024")])
def test_hybrid_profiles_demand_ml_kem_for_ike_and_child(name: str, kem: str) -> None:
    profile = PROFILES[name]
    for text in profile.ike_proposals:
        assert [[a.keyword for a in c] for _, c in parse_ike_proposal(text).additional] == [[kem]]
    for text in profile.esp_proposals:
        assert [[a.keyword for a in c] for _, c in parse_esp_proposal(text).additional] == [[kem]]
