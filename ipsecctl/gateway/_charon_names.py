"""The names that charon's ``get-algorithms`` gives to algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ipsecctl.crypto import KEYWORDS

__all__ = ["CHARON_NAMES"]


def _charon_names() -> dict[str, str]:
    """Return charon's name (as ``get-algorithms`` has it) of each algorithm by its keyword.

    Sources: encryption_algorithm_names, integrity_algorithm_names, pseudo_random_function_names and
    key_exchange_method_names of libstrongswan. What is not among them is not judged.
    """
    names = {
        "chacha20poly1305": "CHACHA20_POLY1305",
        "chacha20poly1305compat": "CHACHA20_POLY1305",
        "3des": "3DES_CBC",
        "cast128": "CAST_CBC",
        "des": "DES_CBC",
        "null": "NULL",
        "sha256": "HMAC_SHA2_256_128",
        "sha256_96": "HMAC_SHA2_256_96",
        "sha384": "HMAC_SHA2_384_192",
        "sha512": "HMAC_SHA2_512_256",
        "sha1": "HMAC_SHA1_96",
        "sha1_160": "HMAC_SHA1_160",
        "md5": "HMAC_MD5_96",
        "md5_128": "HMAC_MD5_128",
        "aesxcbc": "AES_XCBC_96",
        "aescmac": "AES_CMAC_96",
        "camelliaxcbc": "CAMELLIA_XCBC_96",
        "prfsha1": "PRF_HMAC_SHA1",
        "prfsha256": "PRF_HMAC_SHA2_256",
        "prfsha384": "PRF_HMAC_SHA2_384",
        "prfsha512": "PRF_HMAC_SHA2_512",
        "prfmd5": "PRF_HMAC_MD5",
        "prfaesxcbc": "PRF_AES128_XCBC",
        "prfaescmac": "PRF_AES128_CMAC",
        "prfcamelliaxcbc": "PRF_CAMELLIA128_XCBC",
        "x25519": "CURVE_25519",
        "x448": "CURVE_448",
        "modp1024s160": "MODP_1024_160",
        "modp2048s224": "MODP_2048_224",
        "modp2048s256": "MODP_2048_256",
    }
    for bits in (128, 192, 256):
        for cipher, name in (("aes", "AES"), ("camellia", "CAMELLIA")):
            names |= {f"{cipher}{bits}": f"{name}_CBC", f"{cipher}{bits}ctr": f"{name}_CTR"}
            names |= {f"{cipher}{bits}ccm{tag}": f"{name}_CCM_{tag}" for tag in (8, 12, 16)}
        names |= {f"aes{bits}gcm{tag}": f"AES_GCM_{tag}" for tag in (8, 12, 16)}
        names |= {f"{old}{bits}": f"{old.upper()}_CBC" for old in ("serpent", "twofish", "blowfish")}
    names |= {f"modp{n}": f"MODP_{n}" for n in (768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)}
    names |= {f"ecp{n}": f"ECP_{n}" for n in (192, 224, 256, 384, 521)}
    names |= {f"ecp{n}bp": f"ECP_{n}_BP" for n in (224, 256, 384, 512)}
    names |= {f"mlkem{n}": f"ML_KEM_{n}" for n in (512, 768, 1024)}
    return {keyword: name for keyword, name in names.items() if keyword in KEYWORDS}


CHARON_NAMES: Mapping[str, str] = MappingProxyType(_charon_names())
"""charon's name of an algorithm by its keyword."""
