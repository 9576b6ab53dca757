"""What charon's complaints mean: the cause in an engineer's words, and whether it was seen or inferred."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["meaning"]

_OTHER_KEY = "MAC mismatched"
_NO_KEY = "no shared key found"
_REFUSED = "AUTHENTICATION_FAILED"
_BAD_SIGNATURE = "signature validation failed"
_PPK_MISSING = "PPK required but no PPK found"
_PPK_UNKNOWN = "PPK required but peer does not support PPK"
_PPK_UNUSED = "PPK required but peer"


def meaning(complaints: Iterable[tuple[str, str]], *, by_psk: bool, by_ppk: bool = False) -> tuple[str, ...]:
    """Return what is to be said before charon's own words, most often nothing.

    ``complaints`` are gateways and the last words of charon there about one tunnel; ``by_psk`` says whether
    its ends know each other by a pre-shared key, ``by_ppk`` whether a PPK is mixed in: that goes into what
    either end authenticates (RFC 8784 section 3), so another PPK looks like another key. charon's words are
    those of its psk_authenticator.c, pubkey_authenticator.c and ike_auth.c: who checks a key that does not
    fit says so, the other end hears only that it was refused.
    """
    said = [(gateway, words) for gateway, words in complaints if words]
    for gateway, words in said if by_ppk else ():
        if _PPK_MISSING in words:
            return (f"charon on {gateway} has no PPK of the id that the tunnel has",)
        if _PPK_UNKNOWN in words:
            return (f"the far end of {gateway} has no PPK for this tunnel, or cannot do PPKs (RFC 8784)",)
        if _PPK_UNUSED in words:
            return (f"the far end of {gateway} used no PPK, and {gateway} requires one",)
    keys = " or ".join([*(["the pre-shared keys"] if by_psk else []), *(["the PPKs"] if by_ppk else [])])
    if not keys:
        return ()
    for gateway, words in said:
        if _OTHER_KEY in words or (by_ppk and _BAD_SIGNATURE in words):
            return (f"{keys} differ: the one at {gateway} does not fit what the far end sent",)
        if by_psk and _NO_KEY in words:
            return (f"charon on {gateway} has no pre-shared key for these two identities",)
    for gateway, words in said:
        if _REFUSED in words:
            why = f"the far end refused what {gateway} sent, and does not say why"
            return (f"perhaps {keys} differ (inferred: {why})",)
    return ()
