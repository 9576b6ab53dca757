"""The one table of algorithms: IANA name and number, swanctl keyword, strength, status, and who says so.

Names and numbers are those of the IANA registry "Internet Key Exchange Version 2 (IKEv2) Parameters",
transform types 1 (encryption), 2 (pseudorandom function), 3 (integrity), 4 (key exchange, also as additional
key exchange, types 6 to 12 of RFC 9370) and 5 (sequence numbers). Keywords and aliases are swanctl's
(https://docs.strongswan.org/docs/latest/config/proposals.html).

Strengths are security strengths in bits: NIST SP 800-57 part 1 (rev. 5) tables 2 and 3, NIST SP 800-56A
(rev. 3) tables 25 and 26, FIPS 203 table 2; for integrity the length of the ICV.

What is ``broken`` here: what RFC 8221, RFC 8247 or RFC 9395 forbid for its weakness, what gives less than 112
bits (NIST SP 800-131A), ciphers with blocks of 64 bits, and what does not encrypt.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TypeAlias

__all__ = ["ALGORITHMS", "KEYWORDS", "Algorithm", "Kind", "Status", "nearest"]


class Kind(IntEnum):
    """An IKEv2 transform type, by its IANA number (RFC 7296 section 3.3.2)."""

    ENCRYPTION = 1
    PRF = 2
    INTEGRITY = 3
    KEY_EXCHANGE = 4
    SEQUENCE_NUMBERS = 5

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", " ")


class Status(StrEnum):
    """What to think of an algorithm: use it, only for a partner who has nothing better, or never."""

    GOOD = "good"
    LEGACY = "legacy"
    BROKEN = "broken"


@dataclass(frozen=True, order=True, slots=True)
class Algorithm:
    """An algorithm as IKEv2 negotiates it and swanctl names it.

    ``keyword`` is the usual swanctl keyword, ``aliases`` the others for the same. ``iana_number`` is the
    transform ID; from 1024 on it is in private use and means something among strongSwan gateways only.
    ``key_bits`` is the Key Length attribute (RFC 7296 section 3.3.5), 0 where there is none. ``bits`` is the
    security strength. ``source`` says what the status rests on.

    For ESP (RFC 4303): ``iv_bytes`` on the wire, ``block_bytes`` to which the cipher pads (1 for a stream),
    and ``icv_bytes``. ``aead`` marks ciphers that need no integrity algorithm beside them.
    """

    kind: Kind
    keyword: str
    iana_name: str
    iana_number: int
    bits: int
    status: Status
    source: str
    key_bits: int = 0
    aliases: tuple[str, ...] = ()
    iv_bytes: int = 0
    block_bytes: int = 1
    icv_bytes: int = 0
    aead: bool = False

    def __str__(self) -> str:
        return self.keyword

    @property
    def private(self) -> bool:
        """Whether the number is in IANA's private use range."""
        return self.iana_number >= 1024


_Verdict: TypeAlias = tuple[Status, str]
_SIZES = (128, 192, 256)
_TAGS = (8, 12, 16)


def _good(source: str) -> _Verdict:
    return Status.GOOD, source


def _legacy(source: str) -> _Verdict:
    return Status.LEGACY, source


def _broken(source: str) -> _Verdict:
    return Status.BROKEN, source


def _aeads(
    stem: str, iana_stem: str, first_number: int, verdicts: tuple[_Verdict, ...]
) -> Iterator[Algorithm]:
    """Yield a counter mode in three key sizes and three tag lengths; ``verdicts`` has one for each length."""
    for size in _SIZES:
        for position, (tag, verdict) in enumerate(zip(_TAGS, verdicts, strict=True)):
            status, source = _MAY if size == 192 and verdict is _GCM_16 else verdict
            mode = stem.format(size)
            # swanctl also takes the tag in bits, and for AES no tag at all for the longest.
            bare = (mode,) if tag == _TAGS[-1] and mode.startswith("aes") else ()
            yield Algorithm(
                Kind.ENCRYPTION,
                keyword=f"{mode}{tag}",
                iana_name=f"{iana_stem}_{tag}",
                iana_number=first_number + position,
                bits=size,
                status=status,
                source=source,
                key_bits=size,
                aliases=(f"{mode}{tag * 8}", *bare),
                iv_bytes=8,
                icv_bytes=tag,
                aead=True,
            )


def _ciphers(
    stem: str, iana_name: str, number: int, verdict: _Verdict, block: int = 16
) -> Iterator[Algorithm]:
    """Yield a cipher that needs integrity beside it in three key sizes; ``block`` is 1 for counter mode."""
    for size in _SIZES:
        status, source = _MAY if size == 192 and verdict is _MUST else verdict
        yield Algorithm(
            Kind.ENCRYPTION,
            keyword=stem.format(size),
            iana_name=iana_name,
            iana_number=number,
            bits=size,
            status=status,
            source=source,
            key_bits=size,
            aliases=(stem.format(""),) if size == 128 and block > 1 else (),
            iv_bytes=8 if block == 1 else block,
            block_bytes=block,
        )


def _old_cipher(keyword: str, iana_name: str, number: int, bits: int, verdict: _Verdict) -> Algorithm:
    """Return a cipher with blocks of 8 bytes and one key size."""
    return Algorithm(
        Kind.ENCRYPTION,
        keyword,
        iana_name,
        number,
        bits=bits,
        status=verdict[0],
        source=verdict[1],
        key_bits=128 if keyword == "cast128" else 0,
        iv_bytes=8,
        block_bytes=8,
    )


def _chacha(keyword: str, verdict: _Verdict, key_bits: int = 0) -> Algorithm:
    return Algorithm(
        Kind.ENCRYPTION,
        keyword,
        "ENCR_CHACHA20_POLY1305",
        28,
        bits=256,
        status=verdict[0],
        source=verdict[1],
        key_bits=key_bits,
        iv_bytes=8,
        icv_bytes=16,
        aead=True,
    )


def _gmac(size: int) -> Algorithm:
    return Algorithm(
        Kind.ENCRYPTION,
        f"aes{size}gmac",
        "ENCR_NULL_AUTH_AES_GMAC",
        21,
        bits=0,
        status=Status.BROKEN,
        source="RFC 4543: authenticates, encrypts nothing",
        key_bits=size,
        iv_bytes=8,
        icv_bytes=16,
        aead=True,
    )


def _integrity(
    keyword: str, iana_name: str, number: int, icv: int, verdict: _Verdict, *aliases: str
) -> Algorithm:
    status, source = verdict
    bits, kind = icv * 8, Kind.INTEGRITY
    return Algorithm(kind, keyword, iana_name, number, bits, status, source, aliases=aliases, icv_bytes=icv)


def _prf(keyword: str, iana_name: str, number: int, bits: int, verdict: _Verdict) -> Algorithm:
    return Algorithm(Kind.PRF, keyword, iana_name, number, bits, *verdict)


def _exchange(
    keyword: str, iana_name: str, number: int, bits: int, verdict: _Verdict, *aliases: str
) -> Algorithm:
    return Algorithm(Kind.KEY_EXCHANGE, keyword, iana_name, number, bits, *verdict, aliases=aliases)


_MUST = _good("RFC 8221 and RFC 8247: MUST; SP 800-77r1")
_SHOULD = _good("RFC 8221 and RFC 8247: SHOULD; SP 800-77r1")
# The levels of AES in these two RFCs are those of 128 and 256 bits.
_MAY = _good("RFC 8221 and RFC 8247: MAY with 192 bits; SP 800-77r1")
_MUST_NOT = _broken("RFC 8247: MUST NOT; RFC 9395: deprecated")
_XCBC = _good("RFC 8221 and RFC 8247: SHOULD for constrained devices")
_SHA1 = _legacy("RFC 8221 and RFC 8247: MUST-, going away")
_SHA384 = _good("RFC 4868; SP 800-77r1; RFC 9206")
_SEQUENCE = _good("RFC 4304, RFC 7296, RFC 9827")
_UNTIL_2030 = "SP 800-57: 112 bits end in 2030"
_SWEET32 = "64-bit blocks (Sweet32)"
_TDEA = "SP 800-131A: disallowed since 2024"
_SHORT_TAG = "a 64-bit tag is for constrained devices"
_BELOW_112 = "SP 800-131A: disallowed below 112 bits"
_OWN_NUMBER = _legacy("no IANA number: understood by strongSwan only")
_MLKEM = "FIPS 203; draft-ietf-ipsecme-ikev2-mlkem"
_MODP = _good("RFC 3526; SP 800-77r1")
_BRAINPOOL = _good("RFC 6954; BSI TR-02102-3")
_CAMELLIA = _good("RFC 5529")
_CCM = _good("RFC 4309; SP 800-77r1")
_RFC5114 = _legacy("RFC 8247: SHOULD NOT; where its primes come from is not known (RFC 5114)")

_GCM_16 = _good("RFC 8221: MUST; RFC 8247: SHOULD; SP 800-77r1")
_GCM_VERDICTS = (
    _legacy(f"RFC 4106, SP 800-38D section 5.2.1.2: {_SHORT_TAG}"),
    _good("RFC 4106, SP 800-38D section 5.2.1.2"),
    _GCM_16,
)
_CCM_VERDICTS = (_legacy(f"RFC 8221: SHOULD, but {_SHORT_TAG}"), _CCM, _CCM)
_CAMELLIA_VERDICTS = (_legacy(f"RFC 5529; {_SHORT_TAG}"), _CAMELLIA, _CAMELLIA)

_ENCRYPTION = (
    *_aeads("aes{}gcm", "ENCR_AES_GCM", 18, _GCM_VERDICTS),
    _chacha("chacha20poly1305", _good("RFC 7634; RFC 8221 and RFC 8247: SHOULD")),
    _chacha("chacha20poly1305compat", _legacy("sends a key length, which RFC 7634 does not have"), 256),
    *_aeads("aes{}ccm", "ENCR_AES_CCM", 14, _CCM_VERDICTS),
    *_ciphers("aes{}", "ENCR_AES_CBC", 12, _MUST),
    *_ciphers("aes{}ctr", "ENCR_AES_CTR", 13, _good("RFC 3686, RFC 5930; SP 800-77r1"), block=1),
    *_aeads("camellia{}ccm", "ENCR_CAMELLIA_CCM", 25, _CAMELLIA_VERDICTS),
    *_ciphers("camellia{}", "ENCR_CAMELLIA_CBC", 23, _good("RFC 4312, RFC 5529")),
    *_ciphers("camellia{}ctr", "ENCR_CAMELLIA_CTR", 24, _CAMELLIA, block=1),
    *_ciphers("serpent{}", "private use (SERPENT_CBC)", 1026, _OWN_NUMBER),
    *_ciphers("twofish{}", "private use (TWOFISH_CBC)", 1027, _OWN_NUMBER),
    _old_cipher("3des", "ENCR_3DES", 3, 112, _broken(f"RFC 8221: SHOULD NOT; {_TDEA}; {_SWEET32}")),
    _old_cipher("cast128", "ENCR_CAST", 6, 128, _broken(f"RFC 9395: deprecated; {_SWEET32}")),
    *_ciphers(
        "blowfish{}",
        "ENCR_BLOWFISH",
        7,
        _broken(f"RFC 8221: MUST NOT; RFC 9395: deprecated; {_SWEET32}"),
        block=8,
    ),
    _old_cipher("des", "ENCR_DES", 2, 56, _broken("RFC 8221 and RFC 8247: MUST NOT; 56-bit key")),
    *(_gmac(size) for size in _SIZES),
    Algorithm(Kind.ENCRYPTION, "null", "ENCR_NULL", 11, 0, *_broken("RFC 2410: encrypts nothing")),
)

_PRFS = (
    _prf("prfsha256", "PRF_HMAC_SHA2_256", 5, 256, _good("RFC 8247: MUST; SP 800-77r1")),
    _prf("prfsha384", "PRF_HMAC_SHA2_384", 6, 384, _SHA384),
    _prf("prfsha512", "PRF_HMAC_SHA2_512", 7, 512, _good("RFC 8247: SHOULD+; SP 800-77r1")),
    _prf("prfaescmac", "PRF_AES128_CMAC", 8, 128, _good("RFC 4615")),
    _prf("prfaesxcbc", "PRF_AES128_XCBC", 4, 128, _good("RFC 8247: SHOULD for constrained devices")),
    _prf("prfsha1", "PRF_HMAC_SHA1", 2, 160, _legacy("RFC 8247: MUST-, going away")),
    _prf("prfcamelliaxcbc", "private use (CAMELLIA128_XCBC)", 1028, 128, _OWN_NUMBER),
    _prf("prfmd5", "PRF_HMAC_MD5", 1, 128, _MUST_NOT),
)

_INTEGRITY = (
    _integrity("sha256", "AUTH_HMAC_SHA2_256_128", 12, 16, _MUST, "sha2_256"),
    _integrity("sha384", "AUTH_HMAC_SHA2_384_192", 13, 24, _SHA384, "sha2_384"),
    _integrity("sha512", "AUTH_HMAC_SHA2_512_256", 14, 32, _SHOULD, "sha2_512"),
    _integrity("aescmac", "AUTH_AES_CMAC_96", 8, 12, _good("RFC 4494; SP 800-38B")),
    _integrity("aesxcbc", "AUTH_AES_XCBC_96", 5, 12, _XCBC),
    _integrity("sha1", "AUTH_HMAC_SHA1_96", 2, 12, _SHA1, "sha"),
    _integrity("sha1_160", "AUTH_HMAC_SHA1_160", 7, 20, _legacy("RFC 9395: deprecated, never used in IKEv2")),
    _integrity(
        "sha256_96",
        "private use (HMAC_SHA2_256_96)",
        1026,
        12,
        _legacy("an early draft's truncation; RFC 4868 has 128 bits"),
        "sha2_256_96",
    ),
    _integrity("camelliaxcbc", "private use (CAMELLIA_XCBC_96)", 1030, 12, _OWN_NUMBER),
    _integrity("md5", "AUTH_HMAC_MD5_96", 1, 12, _broken("RFC 8221 and RFC 8247: MUST NOT")),
    _integrity("md5_128", "AUTH_HMAC_MD5_128", 6, 16, _broken("RFC 9395: deprecated, never used in IKEv2")),
)

_PRIME_ORDER = "MODP Group with {}-bit Prime Order Subgroup"
_EXCHANGES = (
    _exchange("x25519", "Curve25519", 31, 128, _good("RFC 8031"), "curve25519"),
    _exchange("x448", "Curve448", 32, 224, _good("RFC 8031"), "curve448"),
    _exchange("ecp256", "256-bit random ECP group", 19, 128, _good("RFC 8247: SHOULD; SP 800-77r1")),
    _exchange("ecp384", "384-bit random ECP group", 20, 192, _good("RFC 5903; SP 800-77r1; RFC 9206")),
    _exchange("ecp521", "521-bit random ECP group", 21, 256, _good("RFC 5903; SP 800-77r1")),
    _exchange("ecp256bp", "brainpoolP256r1", 28, 128, _BRAINPOOL),
    _exchange("ecp384bp", "brainpoolP384r1", 29, 192, _BRAINPOOL),
    _exchange("ecp512bp", "brainpoolP512r1", 30, 256, _BRAINPOOL),
    _exchange("mlkem512", "ml-kem-512", 35, 128, _good(_MLKEM)),
    _exchange("mlkem768", "ml-kem-768", 36, 192, _good(_MLKEM)),
    _exchange("mlkem1024", "ml-kem-1024", 37, 256, _good(f"{_MLKEM}; CNSA 2.0")),
    _exchange("modp3072", "3072-bit MODP Group", 15, 128, _MODP),
    _exchange("modp4096", "4096-bit MODP Group", 16, 152, _MODP),
    _exchange("modp6144", "6144-bit MODP Group", 17, 176, _MODP),
    _exchange("modp8192", "8192-bit MODP Group", 18, 200, _MODP),
    _exchange("modp2048", "2048-bit MODP Group", 14, 112, _legacy(f"RFC 8247: MUST; {_UNTIL_2030}")),
    _exchange("ecp224", "224-bit Random ECP Group", 26, 112, _legacy(f"RFC 5114; {_UNTIL_2030}")),
    _exchange("ecp224bp", "brainpoolP224r1", 27, 112, _legacy(f"RFC 6954; {_UNTIL_2030}")),
    _exchange("modp2048s224", f"2048-bit {_PRIME_ORDER.format(224)}", 23, 112, _RFC5114),
    _exchange("modp2048s256", f"2048-bit {_PRIME_ORDER.format(256)}", 24, 112, _RFC5114),
    _exchange("gost256", "GOST3410_2012_256", 33, 128, _legacy("RFC 9385: a national algorithm")),
    _exchange("gost512", "GOST3410_2012_512", 34, 256, _legacy("RFC 9385: a national algorithm")),
    _exchange("modp1536", "1536-bit MODP Group", 5, 96, _broken(f"RFC 8247: SHOULD NOT; {_BELOW_112}")),
    _exchange("ecp192", "192-bit Random ECP Group", 25, 96, _broken(f"RFC 5114; {_BELOW_112}")),
    _exchange("modp1024", "1024-bit MODP Group", 2, 80, _broken(f"RFC 8247: SHOULD NOT; {_BELOW_112}")),
    _exchange("modp1024s160", f"1024-bit {_PRIME_ORDER.format(160)}", 22, 80, _MUST_NOT),
    _exchange("modp768", "768-bit MODP Group", 1, 64, _MUST_NOT),
    _exchange("modpnull", "private use (MODP_NULL)", 1024, 0, _broken("a test group: no secret at all")),
    _exchange("none", "NONE", 0, 0, _good("RFC 7296: makes a key exchange optional"), "modpnone"),
)

_SEQUENCE_NUMBERS = (
    Algorithm(Kind.SEQUENCE_NUMBERS, "noesn", "32-bit Sequential Numbers", 0, 0, *_SEQUENCE),
    Algorithm(
        Kind.SEQUENCE_NUMBERS, "esn", "Partially Transmitted 64-bit Sequential Numbers", 1, 0, *_SEQUENCE
    ),
)

ALGORITHMS: tuple[Algorithm, ...] = (*_ENCRYPTION, *_PRFS, *_INTEGRITY, *_EXCHANGES, *_SEQUENCE_NUMBERS)
"""Every algorithm that a swanctl proposal can name, by kind, better ones first within a kind."""

KEYWORDS: Mapping[str, Algorithm] = MappingProxyType(
    {word: algorithm for algorithm in ALGORITHMS for word in (algorithm.keyword, *algorithm.aliases)}
)
"""Keyword or alias to its algorithm; key exchanges without their ``keN_`` prefix."""

_GROUP = re.compile(r"(?:dh|group|grp|dhgroup)([0-9]{1,2})")


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return the candidate that ``word`` was most probably meant to be, or ``""`` when none is near.

    Also knows the names that other vendors give key exchanges: ``group14``, ``dh14`` (by IANA number).
    """
    plain = re.sub(r"[-_ ]", "", word.lower())
    shapes = {candidate.replace("_", ""): candidate for candidate in candidates}
    group = _GROUP.fullmatch(plain)
    if group is not None:
        named = (a.keyword for a in _EXCHANGES if a.iana_number == int(group[1]) > 0)
        return next((keyword for keyword in named if keyword in shapes), "")
    if plain in shapes:
        return shapes[plain]
    close = difflib.get_close_matches(plain, shapes, n=1, cutoff=0.6)
    return shapes[close[0]] if close else ""
