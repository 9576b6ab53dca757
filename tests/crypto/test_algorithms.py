"""The table of algorithms against itself and against the numbers of the IANA registry."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from ipsecctl.crypto import ALGORITHMS, KEYWORDS, Kind, Status, nearest

# Transform type, ID and name (IANA registry "IKEv2 Parameters").
IANA = {
    (1, 2): "ENCR_DES",
    (1, 3): "ENCR_3DES",
    (1, 6): "ENCR_CAST",
    (1, 7): "ENCR_BLOWFISH",
    (1, 11): "ENCR_NULL",
    (1, 12): "ENCR_AES_CBC",
    (1, 13): "ENCR_AES_CTR",
    (1, 14): "ENCR_AES_CCM_8",
    (1, 15): "ENCR_AES_CCM_12",
    (1, 16): "ENCR_AES_CCM_16",
    (1, 18): "ENCR_AES_GCM_8",
    (1, 19): "ENCR_AES_GCM_12",
    (1, 20): "ENCR_AES_GCM_16",
    (1, 21): "ENCR_NULL_AUTH_AES_GMAC",
    (1, 23): "ENCR_CAMELLIA_CBC",
    (1, 24): "ENCR_CAMELLIA_CTR",
    (1, 25): "ENCR_CAMELLIA_CCM_8",
    (1, 26): "ENCR_CAMELLIA_CCM_12",
    (1, 27): "ENCR_CAMELLIA_CCM_16",
    (1, 28): "ENCR_CHACHA20_POLY1305",
    (2, 1): "PRF_HMAC_MD5",
    (2, 2): "PRF_HMAC_SHA1",
    (2, 4): "PRF_AES128_XCBC",
    (2, 5): "PRF_HMAC_SHA2_256",
    (2, 6): "PRF_HMAC_SHA2_384",
    (2, 7): "PRF_HMAC_SHA2_512",
    (2, 8): "PRF_AES128_CMAC",
    (3, 1): "AUTH_HMAC_MD5_96",
    (3, 2): "AUTH_HMAC_SHA1_96",
    (3, 5): "AUTH_AES_XCBC_96",
    (3, 6): "AUTH_HMAC_MD5_128",
    (3, 7): "AUTH_HMAC_SHA1_160",
    (3, 8): "AUTH_AES_CMAC_96",
    (3, 12): "AUTH_HMAC_SHA2_256_128",
    (3, 13): "AUTH_HMAC_SHA2_384_192",
    (3, 14): "AUTH_HMAC_SHA2_512_256",
    (4, 0): "NONE",
    (4, 1): "768-bit MODP Group",
    (4, 2): "1024-bit MODP Group",
    (4, 5): "1536-bit MODP Group",
    (4, 14): "2048-bit MODP Group",
    (4, 15): "3072-bit MODP Group",
    (4, 16): "4096-bit MODP Group",
    (4, 17): "6144-bit MODP Group",
    (4, 18): "8192-bit MODP Group",
    (4, 19): "256-bit random ECP group",
    (4, 20): "384-bit random ECP group",
    (4, 21): "521-bit random ECP group",
    (4, 22): "1024-bit MODP Group with 160-bit Prime Order Subgroup",
    (4, 23): "2048-bit MODP Group with 224-bit Prime Order Subgroup",
    (4, 24): "2048-bit MODP Group with 256-bit Prime Order Subgroup",
    (4, 25): "192-bit Random ECP Group",
    (4, 26): "224-bit Random ECP Group",
    (4, 27): "brainpoolP224r1",
    (4, 28): "brainpoolP256r1",
    (4, 29): "brainpoolP384r1",
    (4, 30): "brainpoolP512r1",
    (4, 31): "Curve25519",
    (4, 32): "Curve448",
    (4, 33): "GOST3410_2012_256",
    (4, 34): "GOST3410_2012_512",
    (4, 35): "ml-kem-512",
    (4, 36): "ml-kem-768",
    (4, 37): "ml-kem-1024",
    (5, 0): "32-bit Sequential Numbers",
    (5, 1): "Partially Transmitted 64-bit Sequential Numbers",
}
_SIZES = (128, 192, 256)
_CBC = {"aes": 12, "blowfish": 7, "camellia": 23, "serpent": 1026, "twofish": 1027}
_AEAD = {"aes{}gcm": 18, "aes{}ccm": 14, "camellia{}ccm": 25}
# What strongSwan takes for a keyword, and the transform type, ID and key length that it makes of it.
STRONGSWAN = {
    "null": (1, 11, 0),
    "des": (1, 2, 0),
    "3des": (1, 3, 0),
    "cast128": (1, 6, 128),
    "chacha20poly1305": (1, 28, 0),
    "chacha20poly1305compat": (1, 28, 256),
    **{f"{stem}{size}": (1, number, size) for stem, number in _CBC.items() for size in _SIZES},
    **{stem: (1, number, 128) for stem, number in _CBC.items()},
    **{f"aes{size}ctr": (1, 13, size) for size in _SIZES},
    **{f"camellia{size}ctr": (1, 24, size) for size in _SIZES},
    **{f"aes{size}gmac": (1, 21, size) for size in _SIZES},
    **{
        f"{stem.format(size)}{tag * unit}": (1, number + step, size)
        for stem, number in _AEAD.items()
        for size in _SIZES
        for step, tag in enumerate((8, 12, 16))
        for unit in (1, 8)
    },
    **{
        f"aes{size}{mode}": (1, number, size)
        for mode, number in (("gcm", 20), ("ccm", 16))
        for size in _SIZES
    },
    **{
        f"prf{word}": (2, number, 0)
        for word, number in {
            "md5": 1,
            "sha1": 2,
            "aesxcbc": 4,
            "sha256": 5,
            "sha384": 6,
            "sha512": 7,
            "aescmac": 8,
            "camelliaxcbc": 1028,
        }.items()
    },
    **{
        word: (3, number, 0)
        for words, number in {
            "md5": 1,
            "sha sha1": 2,
            "aesxcbc": 5,
            "md5_128": 6,
            "sha1_160": 7,
            "aescmac": 8,
            "sha256 sha2_256": 12,
            "sha384 sha2_384": 13,
            "sha512 sha2_512": 14,
            "sha256_96 sha2_256_96": 1026,
            "camelliaxcbc": 1030,
        }.items()
        for word in words.split()
    },
    **{
        word: (4, number, 0)
        for words, number in {
            "none modpnone": 0,
            "modpnull": 1024,
            "modp768": 1,
            "modp1024": 2,
            "modp1536": 5,
            "modp2048": 14,
            "modp3072": 15,
            "modp4096": 16,
            "modp6144": 17,
            "modp8192": 18,
            "ecp256": 19,
            "ecp384": 20,
            "ecp521": 21,
            "ecp192": 25,
            "ecp224": 26,
            "modp1024s160": 22,
            "modp2048s224": 23,
            "modp2048s256": 24,
            "ecp224bp": 27,
            "ecp256bp": 28,
            "ecp384bp": 29,
            "ecp512bp": 30,
            "x25519 curve25519": 31,
            "x448 curve448": 32,
            "gost256": 33,
            "gost512": 34,
            "mlkem512": 35,
            "mlkem768": 36,
            "mlkem1024": 37,
        }.items()
        for word in words.split()
    },
    "noesn": (5, 0, 0),
    "esn": (5, 1, 0),
}
# What RFC 8221 (ESP) and RFC 8247 (IKEv2) demand, for the algorithms that both or one of them name.
LEVELS = {
    "aes128": "RFC 8221 and RFC 8247: MUST",
    "aes256": "RFC 8221 and RFC 8247: MUST",
    "aes192": "RFC 8221 and RFC 8247: MAY",
    "aes128gcm16": "RFC 8221: MUST; RFC 8247: SHOULD",
    "aes192gcm16": "RFC 8221 and RFC 8247: MAY",
    "chacha20poly1305": "RFC 8221 and RFC 8247: SHOULD",
    "aes128ccm8": "RFC 8221: SHOULD",
    "3des": "RFC 8221: SHOULD NOT",
    "des": "RFC 8221 and RFC 8247: MUST NOT",
    "blowfish128": "RFC 8221: MUST NOT",
    "prfsha256": "RFC 8247: MUST",
    "prfsha512": "RFC 8247: SHOULD+",
    "prfsha1": "RFC 8247: MUST-",
    "prfaesxcbc": "RFC 8247: SHOULD",
    "prfmd5": "RFC 8247: MUST NOT",
    "sha256": "RFC 8221 and RFC 8247: MUST",
    "sha512": "RFC 8221 and RFC 8247: SHOULD",
    "sha1": "RFC 8221 and RFC 8247: MUST-",
    "md5": "RFC 8221 and RFC 8247: MUST NOT",
    "modp2048": "RFC 8247: MUST",
    "ecp256": "RFC 8247: SHOULD",
    "modp1536": "RFC 8247: SHOULD NOT",
    "modp1024": "RFC 8247: SHOULD NOT",
    "modp768": "RFC 8247: MUST NOT",
    "modp1024s160": "RFC 8247: MUST NOT",
    "modp2048s224": "RFC 8247: SHOULD NOT",
    "modp2048s256": "RFC 8247: SHOULD NOT",
}


def test_names_and_numbers_are_those_of_the_registry() -> None:
    named = {(int(a.kind), a.iana_number): a.iana_name for a in ALGORITHMS if not a.private}
    assert named == IANA
    assert all(a.iana_name.startswith("private use (") for a in ALGORITHMS if a.private)


def test_keywords_are_strongswans_and_mean_the_same() -> None:
    ours = {word: (int(a.kind), a.iana_number, a.key_bits) for word, a in KEYWORDS.items()}
    assert ours == STRONGSWAN


@pytest.mark.parametrize(("keyword", "level"), LEVELS.items(), ids=LEVELS)
def test_requirement_levels_are_quoted_right(keyword: str, level: str) -> None:
    assert re.search(rf"\b{re.escape(level)}(?![\w+-]| NOT)", KEYWORDS[keyword].source)


def test_every_keyword_names_one_algorithm() -> None:
    words = Counter(word for a in ALGORITHMS for word in (a.keyword, *a.aliases))
    assert [word for word, count in words.items() if count > 1] == []


def test_no_two_algorithms_look_alike_on_the_wire() -> None:
    transforms = Counter((a.kind, a.iana_number, a.key_bits) for a in ALGORITHMS)
    assert [transform for transform, count in transforms.items() if count > 1] == []


def test_every_algorithm_says_what_its_status_rests_on() -> None:
    assert [a.keyword for a in ALGORITHMS if not a.source or not a.iana_name] == []


def test_nothing_weaker_than_112_bits_passes_for_a_cipher_or_key_exchange() -> None:
    weak = [
        a
        for a in ALGORITHMS
        if a.kind in {Kind.ENCRYPTION, Kind.KEY_EXCHANGE} and a.bits < 112 and a.keyword != "none"
    ]
    assert {a.status for a in weak} == {Status.BROKEN}


@pytest.mark.parametrize("keyword", ["null", "des", "3des", "md5", "prfmd5", "modp1024", "aes128gmac"])
def test_what_is_broken_is_named_so(keyword: str) -> None:
    assert KEYWORDS[keyword].status is Status.BROKEN


@pytest.mark.parametrize("keyword", ["sha1", "prfsha1", "modp2048", "aes256gcm8", "aes256ccm8"])
def test_what_is_legacy_is_named_so(keyword: str) -> None:
    assert KEYWORDS[keyword].status is Status.LEGACY


@pytest.mark.parametrize(
    ("alias", "keyword"),
    [("aes", "aes128"), ("aes256gcm", "aes256gcm16"), ("aes256gcm128", "aes256gcm16"), ("sha", "sha1")],
)
def test_aliases_are_strongswans(alias: str, keyword: str) -> None:
    assert KEYWORDS[alias].keyword == keyword


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("AES256GCM16", "aes256gcm16"),
        ("aes256gmc16", "aes256gcm16"),
        ("aes_256_gcm_16", "aes256gcm16"),
        ("group14", "modp2048"),
        ("DH-20", "ecp384"),
        ("grp31", "x25519"),
        ("mlkem786", "mlkem768"),
        ("x22519", "x25519"),
        ("sha2-256", "sha2_256"),
        ("group99", ""),
        ("qqqq", ""),
    ],
)
def test_nearest_keyword(word: str, meant: str) -> None:
    assert nearest(word, KEYWORDS) == meant
