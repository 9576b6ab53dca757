"""References to secrets, as they stand in the file: each is made one text, ``KIND:VALUE``.

A command is a mapping in the file (``{command: [pass, show, psk]}``) and ``command:`` with its words quoted
as a shell would want them here, so that it is one text, too; no shell ever reads it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import Field, PlainValidator, WithJsonSchema

from ipsecctl.topology._doc import Doc
from ipsecctl.topology._scalars import Duration, FilePath, refuse, refuse_home, shown

__all__ = ["KeyRef", "PpkDoc", "PskRef", "TokenRef", "VaultDoc"]

_WAYS: Final = "file:PATH, env:NAME, age:PATH, vault:PATH#FIELD or {command: [PROGRAM, ...]}"
_PSK_HINT: Final = f"write {_WAYS}; 'ipsecctl secret generate' makes strong ones"
_VARIABLE: Final = re.compile(r"([A-Za-z_]|\{[a-z]*\})([A-Za-z0-9_-]|\{[a-z]*\})*")
_VAULT: Final = re.compile(r"(?P<path>[^#\s?%]+)#(?P<field>[^#\s]+)")
_MOUNT: Final = re.compile(r"(?!\.)[A-Za-z0-9_.-]+(/(?!\.)[A-Za-z0-9_.-]+)*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def _psk(value: Any) -> str:
    # What stands here may be the secret itself: it must not be repeated.
    return _reference(value, "the PSK must be a reference, never the secret itself", "a PSK", _PSK_HINT)


def _ppk(value: Any) -> str:
    return _reference(value, "the PPK must be a reference, never the secret itself", "a PPK", _PSK_HINT)


def _private_key(value: Any) -> str:
    hint = f"write {_WAYS}"
    return _reference(value, "the private key must be a reference", "a private key", hint)


def _token(value: Any) -> str:
    hint = "write env:NAME, file:PATH or age:PATH, or leave it out: VAULT_TOKEN, then ~/.vault-token"
    text = _reference(value, "the token must be a reference, never the token itself", "a token", hint)
    if text.partition(":")[0] in ("vault", "command"):
        refuse("IP162", "Vault's token cannot come from Vault, or from a command", hint)
    return text


def _reference(value: Any, summary: str, what: str, hint: str) -> str:
    if isinstance(value, Mapping):
        return _command(value, hint)
    if not isinstance(value, str):
        refuse("IP013", f"a reference to {what} is wanted here, not {shown(value)}", hint)
    kind, colon, rest = value.partition(":")
    if kind == "command" and colon:
        refuse("IP162", "a command is a list of words: no shell reads it", "write {command: [PROGRAM, ...]}")
    if not colon or kind not in ("file", "env", "age", "vault") or not rest.strip():
        refuse("IP162", summary, hint)
    if kind == "env" and not _VARIABLE.fullmatch(rest):
        refuse("IP162", "'env:' is followed by the name of an environment variable", hint)
    if kind == "vault":
        _check_vault(rest)
    if kind in ("file", "age"):
        refuse_home(rest)
    return value


def _check_vault(value: str) -> None:
    hint = "write vault:PATH#FIELD, such as vault:ipsec/{tunnel}#psk; the mount is named below 'vault:'"
    found = _VAULT.fullmatch(value)
    segments = found["path"].split("/") if found else []
    if any(segment in ("", ".", "..") for segment in segments) or not segments:
        refuse("IP162", "'vault:' is followed by the path of a secret, '#' and one of its fields", hint)
    if segments[0] == "data":
        refuse("IP162", "the path of a secret, as 'vault kv get' takes it, has no 'data/' before it", hint)


def _command(value: Mapping[Any, Any], hint: str) -> str:
    words = value.get("command")
    if set(value) != {"command"}:
        refuse("IP162", "a reference that is a mapping has 'command' in it, and nothing else", hint)
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        hint = 'write a list of texts, the program first: [pass, show, "ipsec/{tunnel}"]'
        refuse("IP162", "a command is a list of words: no shell reads it", hint)
    if not words[0] or any(_CONTROL.search(word) for word in words):
        hint = "name the program first; no word may hold line ends or other control characters"
        refuse("IP162", "a command without a program, or with control characters", hint)
    return f"command:{shlex.join(words)}"


def _ppk_id(value: Any) -> str:
    hint = "write letters, digits, '-', '_' and '.', a letter or digit first; {tunnel} may be among them"
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    plain = text.replace("{tunnel}", "t")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", plain):
        refuse("IP014", "this is not the id of a PPK", hint)
    if re.fullmatch(r"[0-9.]+", plain):
        # charon sends the four bytes of an address, which the far end takes for something else.
        refuse("IP014", f"{text!r} looks like a number or an address", "begin the id of a PPK with a letter")
    return text


def _address(value: Any) -> str:
    hint = "write it as https://vault.example.org:8200; http:// is for this host alone"
    text = value if isinstance(value, str) else ""
    found = re.fullmatch(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?", text)
    if not found or (found[3] and not 1 <= int(found[3]) <= 65535):
        # It may have a password in it: it is not repeated.
        refuse("IP014", "this is not the address of a Vault", hint)
    if found[1] == "http" and found[2] not in ("localhost", "127.0.0.1", "[::1]"):
        refuse("IP014", "over http:// anybody on the way reads token and secrets", hint)
    return text.rstrip("/")


def _mount(value: Any) -> str:
    if not isinstance(value, str) or not _MOUNT.fullmatch(value.strip("/")):
        hint = "write the path at which the KV engine (version 2) is mounted, such as secret"
        refuse("IP014", "this is not the path of a mount", hint)
    return value.strip("/")


def _namespace(value: Any) -> str:
    if not isinstance(value, str) or not _MOUNT.fullmatch(value.strip("/")):
        refuse("IP014", "this is not the path of a namespace", "write it as 'vault namespace list' shows it")
    return value.strip("/")


def _text_schema(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


_SECRET_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        _text_schema("^((file|env|age):.+|vault:[^#]+#[^#]+)$"),
        {
            "type": "object",
            "properties": {"command": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
            "required": ["command"],
            "additionalProperties": False,
        },
    ]
}

PskRef: TypeAlias = Annotated[Any, PlainValidator(_psk), WithJsonSchema(_SECRET_SCHEMA)]
PpkRef: TypeAlias = Annotated[Any, PlainValidator(_ppk), WithJsonSchema(_SECRET_SCHEMA)]
KeyRef: TypeAlias = Annotated[Any, PlainValidator(_private_key), WithJsonSchema(_SECRET_SCHEMA)]
TokenRef: TypeAlias = Annotated[
    Any, PlainValidator(_token), WithJsonSchema(_text_schema("^(file|env|age):.+$"))
]


class PpkDoc(Doc):
    """A Post-quantum Preshared Key (RFC 8784), mixed into the keys of the IKE_SA beside its key exchange.

    Who records a tunnel today and has a quantum computer later cannot read it without the PPK, also where
    ML-KEM cannot be had. Both ends hold the same PPK under the same id, which travels in clear. It is no
    authentication: the tunnel has its credential as ever. `{tunnel}` stands for the expanded tunnel's name.
    """

    secret: PpkRef = Field(
        description="Where the PPK lies: a reference as for `psk`. It wants 256 random bits "
        "(RFC 8784 section 6).",
        examples=["file:secrets/clinic-dc/{tunnel}.ppk"],
    )
    id: Annotated[
        str, PlainValidator(_ppk_id), WithJsonSchema(_text_schema("^[A-Za-z0-9{][A-Za-z0-9_.{}-]*$"))
    ] = Field(
        default="{tunnel}",
        description="Its name, the same at both ends (`PPK_ID_FIXED`, RFC 8784 section 5.1).",
        examples=["{tunnel}", "partner-2026"],
    )
    required: bool = Field(
        default=True,
        description="Whether the tunnel must not come up without it. `false` is for the time in which the "
        "far end does not have it yet (RFC 8784 section 4).",
    )


class VaultDoc(Doc):
    """The HashiCorp Vault that `vault:PATH#FIELD` refers to: a KV secrets engine, version 2.

    What is left out is taken as the `vault` program takes it: VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT,
    VAULT_TOKEN and then `~/.vault-token`. Redirections and proxies are not followed.
    """

    address: Annotated[Any, PlainValidator(_address), WithJsonSchema(_text_schema("^https?://[^/]+/?$"))] = (
        Field(
            default="",
            description="Its address; default VAULT_ADDR. `http://` only on this host.",
            examples=["https://vault.example.org:8200"],
        )
    )
    mount: Annotated[Any, PlainValidator(_mount), WithJsonSchema({"type": "string"})] = Field(
        default="secret", description="Where the KV engine is mounted.", examples=["kv/network"]
    )
    namespace: Annotated[Any, PlainValidator(_namespace), WithJsonSchema({"type": "string"})] = Field(
        default="", description="The namespace (Vault Enterprise); default VAULT_NAMESPACE."
    )
    ca: FilePath = Field(
        default="",
        description="The CA that signed its certificate, PEM; default VAULT_CACERT, then this machine's CAs.",
        examples=["pki/vault-ca.pem"],
    )
    token: TokenRef = Field(
        default=None,
        description="Where the token lies: `env:NAME`, `file:PATH` or `age:PATH`; default VAULT_TOKEN, then "
        "`~/.vault-token`.",
        examples=["file:/run/ipsecctl/vault-token"],
    )
    timeout: Duration = Field(default=10, description="How long one secret may take.", examples=["10s"])
