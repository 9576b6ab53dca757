"""What charon's complaints mean: the cause in an engineer's words, and whether it was seen or inferred."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["meaning"]

_OTHER_KEY = "MAC mismatched"
_NO_KEY = "no shared key found"
_NO_PPK = ("PPK required", "no PPK for", "PPK for")
_REFUSED = "AUTHENTICATION_FAILED"


def meaning(complaints: Iterable[tuple[str, str]], *, by_psk: bool) -> tuple[str, ...]:
    """Return what is to be said before charon's own words, most often nothing.

    ``complaints`` are gateways and the last words of charon there about one tunnel; ``by_psk`` says whether
    its ends know each other by a pre-shared key. charon's words are those of its psk_authenticator.c and
    ike_auth.c: who checks a key that does not fit says so, the other end hears only that it was refused.
    """
    if not by_psk:
        return ()
    said = [(gateway, words) for gateway, words in complaints if words]
    for gateway, words in said:
        if _OTHER_KEY in words:
            return (f"the pre-shared keys differ: the one at {gateway} does not fit what the far end sent",)
        if _NO_KEY in words:
            return (f"charon on {gateway} has no pre-shared key for these two identities",)
    for gateway, words in said:
        if _REFUSED in words:
            why = f"the far end refused what {gateway} sent, and does not say why"
            return (f"perhaps the pre-shared keys differ (inferred: {why})",)
    return ()
