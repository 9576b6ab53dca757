"""The table of algorithms against itself and against the numbers of the IANA registry."""

from __future__ import annotations

from collections import Counter

import pytest

from ipsecctl.crypto import ALGORITHMS, KEYWORDS, Kind, Status, nearest

# Keyword: transform type, transform ID (IANA registry "IKEv2 Parameters").
IANA = {
    "3des": (1, 3),
    "des": (1, 2),
    "null": (1, 11),
    "aes256": (1, 12),
    "aes128ctr": (1, 13),
    "aes256ccm8": (1, 14),
    "aes256ccm12": (1, 15),
    "aes256ccm16": (1, 16),
    "aes128gcm8": (1, 18),
    "aes192gcm12": (1, 19),
    "aes256gcm16": (1, 20),
    "aes128gmac": (1, 21),
    "camellia256": (1, 23),
    "camellia256ctr": (1, 24),
    "camellia256ccm16": (1, 27),
    "chacha20poly1305": (1, 28),
    "prfmd5": (2, 1),
    "prfsha1": (2, 2),
    "prfaesxcbc": (2, 4),
    "prfsha256": (2, 5),
    "prfsha384": (2, 6),
    "prfsha512": (2, 7),
    "prfaescmac": (2, 8),
    "md5": (3, 1),
    "sha1": (3, 2),
    "aesxcbc": (3, 5),
    "md5_128": (3, 6),
    "sha1_160": (3, 7),
    "aescmac": (3, 8),
    "sha256": (3, 12),
    "sha384": (3, 13),
    "sha512": (3, 14),
    "none": (4, 0),
    "modp768": (4, 1),
    "modp1024": (4, 2),
    "modp1536": (4, 5),
    "modp2048": (4, 14),
    "modp3072": (4, 15),
    "modp4096": (4, 16),
    "modp6144": (4, 17),
    "modp8192": (4, 18),
    "ecp256": (4, 19),
    "ecp384": (4, 20),
    "ecp521": (4, 21),
    "modp1024s160": (4, 22),
    "modp2048s224": (4, 23),
    "modp2048s256": (4, 24),
    "ecp192": (4, 25),
    "ecp224": (4, 26),
    "ecp224bp": (4, 27),
    "ecp256bp": (4, 28),
    "ecp384bp": (4, 29),
    "ecp512bp": (4, 30),
    "x25519": (4, 31),
    "x448": (4, 32),
    "gost256": (4, 33),
    "gost512": (4, 34),
    "mlkem512": (4, 35),
    "mlkem768": (4, 36),
    "mlkem1024": (4, 37),
    "noesn": (5, 0),
    "esn": (5, 1),
}


@pytest.mark.parametrize(("keyword", "transform"), IANA.items(), ids=IANA)
def test_numbers_are_those_of_the_registry(keyword: str, transform: tuple[int, int]) -> None:
    algorithm = KEYWORDS[keyword]
    assert (algorithm.kind, algorithm.iana_number) == transform


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
