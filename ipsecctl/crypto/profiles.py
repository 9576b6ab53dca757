"""The profiles that come with ipsecctl.

All of them use PFS and no broken algorithm; only ``legacy-partner`` uses legacy ones. Lifetimes are those of
``Profile``: an IKE SA is rekeyed every 4 hours, a CHILD_SA every hour, well below the 24 and 8 hours of NIST
SP 800-77r1. Sequence numbers have 32 bits (kernel-libipsec knows no others): they last an hour up to 1.19
million packets a second.

All suites of one profile leave the same inner MTU on a link of 1500 bytes, so that the MTU of a tunnel does
not hang on which of them is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ipsecctl.crypto.profile import Profile

__all__ = ["DEFAULT_PROFILE", "PROFILES"]

DEFAULT_PROFILE: Final = "modern"
"""The profile of a topology that names none."""

_BUILT_IN = (
    Profile(
        name="modern",
        summary="AES-256-GCM or ChaCha20-Poly1305, SHA-384, X25519 or ECP-384 (RFC 8221, RFC 8247)",
        ike_proposals=(
            "aes256gcm16-prfsha384-x25519-ecp384",
            "chacha20poly1305-prfsha384-x25519-ecp384",
        ),
        esp_proposals=("aes256gcm16-x25519-ecp384", "chacha20poly1305-x25519-ecp384"),
    ),
    Profile(
        name="pq-hybrid",
        summary="modern and ML-KEM-768 on top, for IKE and CHILD SAs (RFC 9370, FIPS 203); strongSwan 6.1",
        ike_proposals=("aes256gcm16-prfsha384-x25519-ecp384-ke1_mlkem768",),
        esp_proposals=("aes256gcm16-x25519-ecp384-ke1_mlkem768",),
    ),
    Profile(
        name="nist-800-77",
        summary="NIST SP 800-77r1: AES-256-GCM, SHA-384, ECP-384, or AES-128-GCM, SHA-256, ECP-256",
        ike_proposals=(
            "aes256gcm16-prfsha384-ecp384",
            "aes128gcm16-prfsha256-ecp256",
        ),
        esp_proposals=("aes256gcm16-ecp384", "aes128gcm16-ecp256"),
    ),
    Profile(
        name="cnsa-2",
        summary="CNSA 2.0: AES-256-GCM, SHA-384, ECP-384 and ML-KEM-1024 on top (RFC 9206, RFC 9370)",
        ike_proposals=("aes256gcm16-prfsha384-ecp384-ke1_mlkem1024",),
        esp_proposals=("aes256gcm16-ecp384-ke1_mlkem1024",),
    ),
    Profile(
        name="legacy-partner",
        summary="for a partner with nothing newer: AES-256-CBC, SHA-256 or as a last resort SHA-1, MODP-2048",
        ike_proposals=("aes256-sha256-modp2048", "aes256-sha1-modp2048"),
        esp_proposals=("aes256-sha256-modp2048", "aes256-sha1-modp2048"),
    ),
)

PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _BUILT_IN})
"""The built-in profiles by name."""
