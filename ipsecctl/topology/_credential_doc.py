"""Credentials as they stand in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import core_schema

from ipsecctl.topology._doc import Doc
from ipsecctl.topology._references import KeyRef, PskRef
from ipsecctl.topology._scalars import FilePath, refuse

__all__ = ["CredentialDoc", "CredentialUse"]


class _NameOrInline:
    """A credential is used by name, or written where it is used."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        def name_or(value: Any, inline: Any) -> Any:
            return value if isinstance(value, str) else inline(value)

        return core_schema.no_info_wrap_validator_function(name_or, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "description": "A name in credentials:"}, handler(schema)]}


class CredentialDoc(Doc):
    """How a gateway proves who it is: a PSK, or a certificate with its key and the CA that signed it.

    Paths are relative to the topology file; `~` stands for no home directory. A PSK is all that its file
    holds but a last line end; a byte order mark is refused. The placeholders `{tunnel}`, `{gateway}` and
    `{site}` stand for the expanded tunnel's, the end's gateway's and its site's name.
    """

    psk: PskRef = Field(
        default=None,
        description="Where the pre-shared key lies, never the key itself: `file:PATH` (owner-only mode), "
        "`env:NAME`, `age:PATH`, `vault:PATH#FIELD`, or `{command: [PROGRAM, ...]}`, whose output it is. "
        "Both ends of a tunnel use the same key: take `{tunnel}` as placeholder.",
        examples=["file:secrets/clinic-dc/{tunnel}.psk", "env:PSK_PARTNER", "vault:ipsec/{tunnel}#psk"],
    )
    certificate: FilePath = Field(
        default="", description="The gateway's certificate, PEM or DER.", examples=["pki/{gateway}.pem"]
    )
    key: KeyRef = Field(
        default=None,
        description="Where its private key lies: a reference as for `psk`.",
        examples=["file:pki/{gateway}.key"],
    )
    chain: FilePath = Field(
        default="",
        description="The certificate of the CA that issued the gateway's, where that is not `ca` itself but "
        "a CA below it. One CA between is possible.",
        examples=["pki/issuing.pem"],
    )
    ca: FilePath = Field(
        default="",
        description="The CA certificate by which the other end knows this one, of the root if there is a "
        "`chain`; enough for an end that is not managed.",
        examples=["pki/ca.pem"],
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        certificate = {"certificate": self.certificate, "key": self.key, "ca": self.ca}
        given = [name for name, value in certificate.items() if value]
        if self.chain and not given:
            given = ["chain"]
        if self.psk is not None and given:
            hint = f"remove 'psk' or '{given[0]}'"
            refuse("IP018", "a credential is a PSK or a certificate, not both", hint, at=("psk",))
        if self.psk is None and not given:
            hint = "give 'psk', or 'certificate', 'key' and 'ca'"
            without = ("psk", *certificate)
            refuse("IP018", "a credential without 'psk' or 'certificate'", hint, without=without)
        missing = [name for name, value in certificate.items() if not value]
        if self.psk is None and missing and given != ["ca"]:
            hint = "give 'certificate', 'key' and 'ca'; for an end that is not managed 'ca' is enough"
            lacking = " and ".join(f"'{name}'" for name in missing)
            summary = f"a certificate credential without {lacking}"
            refuse("IP018", summary, hint, without=tuple(missing))
        return self


if TYPE_CHECKING:
    CredentialUse: TypeAlias = CredentialDoc | str
else:
    CredentialUse = Annotated[CredentialDoc, _NameOrInline()]
