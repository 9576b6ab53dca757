"""A CA's keys at rest: PKCS#8 under a passphrase, or encrypted to age recipients; never in plain.

Under a passphrase it is PBES2 with scrypt (RFC 8018, RFC 7914 section 7), which ``openssl pkcs8`` and
``openssl pkey`` read. It is written out here because ``cryptography`` would take PBKDF2 with 2048 rounds:
then a graphics card tries millions of passphrases a second.
"""

from __future__ import annotations

import importlib
import os
from base64 import encodebytes
from collections.abc import Sequence
from typing import Any, Final

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ipsecctl.errors import PkiError
from ipsecctl.pki.keytypes import SigningKey, key_pem
from ipsecctl.secrets import Secret

__all__ = ["MIN_PASSPHRASE", "is_age", "is_under_passphrase", "seal", "seal_to_recipients", "unsealed"]

MIN_PASSPHRASE: Final = 12
"""Characters: fewer are guessed, whatever the key derivation costs."""

# OWASP's password storage cheat sheet: one of its equal settings, with 16 MiB that OpenSSL allows.
_N, _R, _P = 2**14, 8, 5
_KEY_BYTES: Final = 32
_BLOCK_BYTES: Final = 16

_PBES2: Final = "1.2.840.113549.1.5.13"
_SCRYPT: Final = "1.3.6.1.4.1.11591.4.11"
_AES_256_CBC: Final = "2.16.840.1.101.3.4.1.42"

_AGE: Final = (b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----")
_ENCRYPTED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


def seal(key: SigningKey, passphrase: Secret) -> bytes:
    """Return a key as encrypted PKCS#8 (PEM). Raises ``PkiError`` when the passphrase is too short."""
    if len(bytes(passphrase).decode("utf-8", "replace")) < MIN_PASSPHRASE:
        hint = "several words that nobody would put together are easy to remember"
        raise PkiError(f"a passphrase of fewer than {MIN_PASSPHRASE} characters", hint)
    salt, vector = os.urandom(16), os.urandom(_BLOCK_BYTES)
    derived = Scrypt(salt, _KEY_BYTES, _N, _R, _P).derive(bytes(passphrase))
    padder = padding.PKCS7(_BLOCK_BYTES * 8).padder()
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    encryptor = Cipher(algorithms.AES(derived), modes.CBC(vector)).encryptor()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    derivation = _sequence(_oid(_SCRYPT), _sequence(_octets(salt), *map(_integer, (_N, _R, _P))))
    scheme = _sequence(_oid(_AES_256_CBC), _octets(vector))
    der = _sequence(_sequence(_oid(_PBES2), _sequence(derivation, scheme)), _octets(sealed))
    return _ENCRYPTED + b"\n" + _lines(der) + b"-----END ENCRYPTED PRIVATE KEY-----\n"


def seal_to_recipients(content: bytes, recipients: Sequence[str]) -> bytes:
    """Return bytes encrypted to age recipients (``age1...``, SSH public keys), each of whom can open them."""
    age: Any = importlib.import_module("pyrage")
    found = []
    for recipient in recipients:
        kind = age.ssh if recipient.startswith("ssh-") else age.x25519
        try:
            found.append(kind.Recipient.from_str(recipient))
        except age.RecipientError as error:
            hint = "it begins with age1 or ssh-; 'age-keygen -y FILE' prints that of an identity"
            raise PkiError(f"{recipient[:80]!r} is no age recipient ({error})", hint) from None
    return bytes(age.encrypt(content, found))


def sealed_pem(key: SigningKey, recipients: Sequence[str]) -> bytes:
    """Return a key encrypted to age recipients."""
    return seal_to_recipients(key_pem(key), recipients)


def is_age(content: bytes) -> bool:
    """Whether this is an age file."""
    return content.startswith(_AGE)


def is_under_passphrase(content: bytes) -> bool:
    """Whether this is PKCS#8 under a passphrase."""
    return _ENCRYPTED in content


def unsealed(content: bytes, passphrase: Secret | None, name: str) -> SigningKey:
    """Return the key in a PEM file, opened with its passphrase; ``name`` is the file's, for messages.

    Raises ``PkiError`` when the passphrase is wrong or missing, or when it is no key.
    """
    if _ENCRYPTED in content and b"-----END ENCRYPTED PRIVATE KEY-----" not in content:
        raise PkiError(f"{name} is cut off: it has no END line", "bring it back from a backup")
    try:
        key = load_pem_private_key(content, bytes(passphrase) if passphrase is not None else None)
    except TypeError:
        if passphrase is not None:
            return unsealed(content, None, name)
        raise PkiError(f"{name} is under a passphrase", "give it: --passphrase file:PATH") from None
    except ValueError:
        if _ENCRYPTED in content:
            hint = "nothing was changed; try it with: openssl pkey -noout -in FILE"
            raise PkiError(f"the passphrase does not open {name}, or the file is damaged", hint) from None
        raise PkiError(f"{name} is not a private key, or damaged", "a PEM file is wanted") from None
    kinds = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | rsa.RSAPrivateKey
    if not isinstance(key, kinds):
        raise PkiError(f"{name} is a key of a kind that signs no certificates", "take ECDSA, Ed25519 or RSA")
    return key


def _lines(der: bytes) -> bytes:
    text = encodebytes(der).replace(b"\n", b"")
    return b"".join(text[at : at + 64] + b"\n" for at in range(0, len(text), 64))


def _tagged(tag: int, content: bytes) -> bytes:
    """Return a DER element: tag, length (X.690 8.1.3), content."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _octets(content: bytes) -> bytes:
    return _tagged(0x04, content)


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _oid(dotted: str) -> bytes:
    """Return an object identifier (X.690 8.19)."""
    first, second, *rest = map(int, dotted.split("."))
    octets = bytearray((first * 40 + second,))
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        octets += bytes(reversed(groups))
    return _tagged(0x06, bytes(octets))
