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
