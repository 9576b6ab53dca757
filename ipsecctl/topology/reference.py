"""The reference of the topology language for people: docs/topology.md, made of the JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from ipsecctl.topology.schema import json_schema

__all__ = ["reference"]

# The order in which a person meets them, and the names of the free keys above each.
_SECTIONS: Final = (
    ("DefaultsDoc", "defaults"),
    ("CredentialDoc", "credentials.NAME"),
    ("VaultDoc", "vault"),
    ("ProfileDoc", "profiles.NAME"),
    ("SiteDoc", "sites.NAME"),
    ("GatewayDoc", "sites.NAME.gateway"),
    ("TunnelDoc", "tunnels.NAME"),
    ("FlowDoc", "tunnels.NAME.flows"),
    ("PpkDoc", "tunnels.NAME.ppk"),
    ("OptionsDoc", "tunnels.NAME.options"),
)
_INTRODUCTION: Final = """\
# Topology files

<!-- Made by "ipsecctl schema --markdown" from ipsecctl/topology/document.py. Do not edit. -->

A topology file says in YAML what the sites of a network are and which tunnels join them. `ipsecctl init`
writes a commented starter, `ipsecctl validate FILE` finds mistakes, and `ipsecctl schema` prints the JSON
Schema that editors complete from.

Scalars are those of YAML 1.2: only `true` and `false` are booleans, so a site may be called `no`. Names
consist of letters, digits, `-` and `_`, at most 63, with a letter or digit first and last. Times are written
as `4h`, `90m`, `3600s`, `1h30m`, or in seconds. Paths are relative to the topology file.

What holds at an end of a tunnel is what the tunnel says, else the end's site, else `defaults`, else what is
built in.

Expanded tunnels are called `GROUP` (a pair), `GROUP-SPOKE` (one hub), `GROUP-SPOKE-HUB` (several hubs) and
`GROUP-A-B` (a mesh). An end written as SITE/GATEWAY goes by its gateway's name in them. The end that cannot
be called calls; when both can be called, the spoke or the first one does; somebody else's gateway only when
ours cannot.
"""


def reference() -> str:
    """Return docs/topology.md."""
    schema = json_schema()
    return "\n".join([_INTRODUCTION, *_section("The file", schema, schema), *_parts(schema)]).rstrip() + "\n"


def _parts(schema: dict[str, Any]) -> Iterator[str]:
    for name, path in _SECTIONS:
        yield from _section(f"`{path}`", schema["$defs"][name], schema)


def _section(title: str, definition: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    yield definition["description"] + "\n"
    yield "| key | value | meaning |"
    yield "|---|---|---|"
    required = definition.get("required", [])
    for key, value in definition["properties"].items():
        mark = " (required)" if key in required else ""
        meaning = value.get("description", "") + _examples(value)
        yield f"| `{key}`{mark} | {_cell(_kind(value, schema))} | {_cell(meaning)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _examples(value: dict[str, Any]) -> str:
    examples = [json.dumps(e) if not isinstance(e, str) else e for e in value.get("examples", [])]
    return f" Example: {', '.join(f'`{e}`' for e in examples)}." if examples else ""


def _kind(value: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return what may stand as a value, in a few words."""
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_kind(choice, schema) for choice in value["anyOf"]))
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        path = next(path for section, path in _SECTIONS if section == name)
        return f"mapping as `{path}`"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        default = value.get("default")
        return " or ".join(
            f"`{choice}`{' (default)' if choice == default else ''}" for choice in value["enum"]
        )
    return _plain(value, schema)


def _plain(value: dict[str, Any], schema: dict[str, Any]) -> str:
    kind = value.get("type", "value")
    if kind == "array":
        return f"list of {_kind(value['items'], schema)}"
    if kind == "object":
        inner = next(iter(value.get("patternProperties", {}).values()), None) or value.get(
            "additionalProperties"
        )
        return f"mapping NAME: {_kind(inner, schema)}" if isinstance(inner, dict) else "mapping"
    words = {"string": "text", "integer": "number", "boolean": "`true` or `false`"}
    limits = f" {value['minimum']} to {value['maximum']}" if "maximum" in value else ""
    default = f", default `{json.dumps(value['default'])}`" if "default" in value else ""
    return f"{words.get(kind, kind)}{limits}{default}"


if __name__ == "__main__":
    # "make docs" runs this module.
    print(reference(), end="")
