"""The JSON Schema of topology files, made of the models in ``document``: what editors complete."""

from __future__ import annotations

from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from ipsecctl.topology.document import Document

__all__ = ["SCHEMA_ID", "json_schema"]

SCHEMA_ID: Final = "ipsecctl/topology/1"


class _Generate(GenerateJsonSchema):
    """Without the defaults that only say that a key is absent, and without titles made of key names."""

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        default = schema.get("default")
        says_nothing = default is not False and (not default or not isinstance(default, bool | int | str))
        if says_nothing:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a topology file, short forms included."""
    schema = Document.model_json_schema(schema_generator=_Generate)
    for definition in schema.get("$defs", {}).values():
        definition.pop("title", None)
        definition["description"] = _one_line(definition.get("description", ""))
    _close(schema)
    head = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": SCHEMA_ID,
        "title": "ipsecctl topology",
        "description": _one_line(schema.pop("description", "")),
    }
    schema.pop("title", None)
    return head | schema


def _close(value: Any) -> None:
    """Allow no other names where the names of a mapping must match a pattern."""
    if isinstance(value, dict):
        if "patternProperties" in value:
            value["additionalProperties"] = False
        for inner in value.values():
            _close(inner)
    elif isinstance(value, list):
        for inner in value:
            _close(inner)


def _one_line(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
