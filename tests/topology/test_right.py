"""Right topologies: the examples, and files with every key; as we read them and as the schema does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ipsecctl.errors import Severity
from ipsecctl.resources import resource_dir
from ipsecctl.topology import json_schema, load_text
from ipsecctl.topology.reference import reference

EXAMPLES = sorted(resource_dir("topologies").glob("*.yaml"))
STARTER = resource_dir("templates") / "starter.yaml"
RIGHT = [*sorted((Path(__file__).parent / "right").glob("*.yaml")), *EXAMPLES, STARTER]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: path.stem)
def test_it_has_no_errors(path: Path) -> None:
    loaded = load_text(path.read_text(encoding="utf-8"), path.name)
    assert [str(d) for d in loaded.diagnostics if d.severity is Severity.ERROR] == []
    assert loaded.topology is not None
    assert loaded.topology.tunnels


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: path.stem)
def test_the_schema_accepts_it(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    assert [error.message for error in validator.iter_errors(as_json(path))] == []


def as_json(path: Path) -> Any:
    """Read a file as an editor does: with text for keys."""
    return json.loads(json.dumps(yaml.load(path.read_text(encoding="utf-8"), Loader=_Editor)))


class _Editor(yaml.SafeLoader):
    """YAML 1.2: no booleans but true and false, no octal or sexagesimal numbers."""


_Editor.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag.endswith((":int", ":merge")) and first not in "0"
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Editor.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def test_the_schema_refuses_what_we_refuse() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    example = as_json(EXAMPLES[0])
    for change in (
        {"ipsecctl": 2},
        {"sitez": {}},
        {"sites": {"a": {"gateway": {"mtu": 1500}}}},
        {"sites": {"bad name": {}}},
        {"sites": {"a": {"networks": {"all": ["0.0.0.0/0"]}, "gateway": "dynamic"}}},
        {"defaults": {"datapath": "userland"}},
        {"credentials": {"c": {"psk": "hunter2"}}},
        {"tunnels": {"t": {"hub": "dc", "spokes": []}}},
    ):
        assert list(validator.iter_errors(example | change)), change


def test_every_key_is_described() -> None:
    schema = json_schema()
    for definition in (schema, *schema["$defs"].values()):
        assert definition["description"]
        for key, value in definition["properties"].items():
            assert value.get("description"), key


def test_every_example_in_the_schema_is_right() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    for definition in (schema, *schema["$defs"].values()):
        for key, value in definition["properties"].items():
            validator = jsonschema.Draft202012Validator(value | {"$defs": schema["$defs"]})
            for example in value.get("examples", []):
                assert not list(validator.iter_errors(example)), (key, example)


def test_the_reference_is_current() -> None:
    path = ROOT / "docs" / "topology.md"
    hint = "run: ipsecctl schema --markdown > docs/topology.md"
    assert path.read_text(encoding="utf-8") == reference(), hint


def test_names_are_never_mangled() -> None:
    path = Path(__file__).parent / "right" / "looks-like-something-else.yaml"
    topology = load_text(path.read_text(encoding="utf-8"), path.name).topology
    assert topology is not None
    assert [site.name for site in topology.sites] == ["0x1F", "7", "no", "null", "off"]
    assert {n.name for site in topology.sites for n in site.networks} == {"yes", "1e3", "12", "true", "1_000"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_run_in_labs(path: Path) -> None:
    topology = load_text(path.read_text(encoding="utf-8"), path.name).topology
    assert topology is not None
    assert topology.name == path.stem
    assert {gateway.control.kind.value for gateway in topology.gateways()} == {"lab"}


def test_a_hub_and_three_clinics_are_under_forty_lines() -> None:
    lines = (resource_dir("topologies") / "clinic-dc.yaml").read_text(encoding="utf-8").splitlines()
    another_clinic = 3
    assert len(lines) + another_clinic < 40
