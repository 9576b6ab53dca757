"""The keys that a CA and gateways may have: making them, recognising them, refusing weak ones."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ipsecctl.errors import PkiError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = [
    "KeyType",
    "SigningKey",
    "hash_for",
    "key_pem",
    "key_type_of",
    "make_key",
    "public_der",
    "spelled",
    "weakness",
]

SigningKey: TypeAlias = (
    ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | rsa.RSAPrivateKey
)

MIN_RSA_BITS: Final = 3072
"""112 bits of strength end in 2030 (NIST SP 800-57 part 1 rev. 5, table 4); 3072 bits have 128."""

_RSA_EXPONENT: Final = 65537


class KeyType(StrEnum):
    """What is made here. Others come from elsewhere and are judged by ``weakness``."""

    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    ED25519 = "ed25519"
    ED448 = "ed448"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"


_CURVES: Final[dict[KeyType, type[ec.EllipticCurve]]] = {
    KeyType.ECDSA_P256: ec.SECP256R1,
    KeyType.ECDSA_P384: ec.SECP384R1,
}


def make_key(kind: KeyType) -> SigningKey:
    """Return a new key."""
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind]())
    if kind is KeyType.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    if kind is KeyType.ED448:
        return ed448.Ed448PrivateKey.generate()
    return rsa.generate_private_key(_RSA_EXPONENT, int(kind.partition("-")[2]))


def hash_for(key: SigningKey) -> hashes.SHA256 | hashes.SHA384 | None:
    """Return the hash that a key signs with: as strong as the key; EdDSA has its own (RFC 8410)."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return hashes.SHA256() if key.key_size <= 256 else hashes.SHA384()
    return hashes.SHA256() if isinstance(key, rsa.RSAPrivateKey) else None


def key_pem(key: SigningKey) -> bytes:
    """Return a key in plain, as unencrypted PKCS#8: for a gateway, whose charon can ask nobody."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_der(key: PublicKeyTypes) -> bytes:
    """Return a public key's SubjectPublicKeyInfo, by which keys are compared."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_type_of(key: PublicKeyTypes) -> str:
    """Return how a public key's kind is spelled, as ``ecdsa-p256`` or ``rsa-2048``; also of others."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        known = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
        return f"ecdsa-{known.get(key.curve.name, key.curve.name)}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    return type(key).__name__.removesuffix("PublicKey").lower()


def spelled(text: str) -> KeyType:
    """Return the kind of key that a word names. Raises ``PkiError`` with those there are."""
    try:
        return KeyType(text.lower())
    except ValueError:
        raise PkiError(f"there is no kind of key {text!r}", f"one of {', '.join(KeyType)}") from None


def weakness(key: PublicKeyTypes) -> str:
    """Return why a public key must not be certified, ``""`` when it may.

    Taken are those of ``KeyType``, ECDSA P-521 and RSA of 3072 bits and up with an exponent as OpenSSL checks
    it. DSA, X25519 and curves that charon does not know are no keys to sign with.
    """
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            return f"an RSA key of {key.key_size} bits, and {MIN_RSA_BITS} is the least"
        exponent = key.public_numbers().e
        if exponent < _RSA_EXPONENT:
            return f"an RSA key with the exponent {exponent}"
        return ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        good = key.curve.name in {"secp256r1", "secp384r1", "secp521r1"}
        return "" if good else f"an ECDSA key on the curve {key.curve.name}"
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return ""
    return f"a key of the kind {key_type_of(key)}, which IKE does not sign with"
