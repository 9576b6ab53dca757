"""What charon's complaints mean."""

from __future__ import annotations

import pytest

from ipsecctl.deploy.words import meaning

MISMATCH = "tried 2 shared keys for 'dc' - 'clinic-a', but MAC mismatched"
REFUSED = "received AUTHENTICATION_FAILED notify error"


@pytest.mark.parametrize(
    ("complaints", "begins"),
    [
        ([("a", REFUSED), ("b", MISMATCH)], "the pre-shared keys differ: the one at b"),
        ([("a", REFUSED), ("b", "")], "perhaps the pre-shared keys differ (inferred: the far end refused"),
        ([("a", "no shared key found for 'a' - 'b'")], "charon on a has no pre-shared key"),
        ([("a", "received NO_PROPOSAL_CHOSEN notify error"), ("b", "")], None),
        ([], None),
    ],
)
def test_meaning(complaints, begins):
    found = meaning(complaints, by_psk=True)
    assert [cause.startswith(begins) for cause in found] == ([True] if begins else [])
    assert meaning(complaints, by_psk=False) == ()


@pytest.mark.parametrize(
    ("by_psk", "complaints", "begins"),
    [
        (True, [("a", REFUSED), ("b", MISMATCH)], "the pre-shared keys or the PPKs differ: the one at b"),
        (False, [("a", REFUSED), ("b", "")], "perhaps the PPKs differ (inferred: the far end refused"),
        (False, [("a", "signature validation failed, looking for another key")], "the PPKs differ"),
        (True, [("a", "PPK required but no PPK found for 'x'")], "charon on a has no PPK of the id"),
        (True, [("a", "PPK required but peer does not support PPK")], "the far end of a has no PPK"),
        (True, [("a", "PPK required but peer didn't use PPK")], "the far end of a used no PPK"),
        (True, [("a", "no shared key found for 'a' - 'b'")], "charon on a has no pre-shared key"),
    ],
)
def test_meaning_where_a_ppk_is_mixed_in(by_psk, complaints, begins):
    (found,) = meaning(complaints, by_psk=by_psk, by_ppk=True)
    assert found.startswith(begins)
