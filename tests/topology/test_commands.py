"""``validate``, ``schema`` and ``init`` as a person calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ipsecctl.cli import app, main
from ipsecctl.cli._load import errors_as_json, load_topology
from ipsecctl.errors import CannotTell, IpsecctlError, TopologyRefused
from ipsecctl.resources import resource_dir
from ipsecctl.secrets import inspect
from ipsecctl.topology import json_schema, load_bytes
from ipsecctl.topology.reference import reference


def call(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


@pytest.fixture(autouse=True)
def in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_from_nothing_to_a_right_topology() -> None:
    assert call("init", "mine.yaml").exit_code == 0
    missing = call("validate", "mine.yaml")
    assert missing.exit_code == 1
    assert "IP301" in missing.stdout and "ipsecctl secret generate" in missing.stdout
    assert call("secret", "generate", "mine.yaml").exit_code == 0
    right = call("validate", "mine.yaml")
    assert right.exit_code == 0
    assert right.stdout.endswith("ok: 3 sites, 2 tunnels\n")
    assert [t.name for t in load_topology(Path("mine.yaml")).tunnels] == [
        "clinics-clinic-a",
        "clinics-clinic-b",
    ]


def test_init_overwrites_only_when_told() -> None:
    Path("mine.yaml").write_text("precious\n")
    refused = call("init", "mine.yaml")
    assert isinstance(refused.exception, IpsecctlError)
    assert "--force" in refused.exception.hint
    assert Path("mine.yaml").read_text() == "precious\n"
    assert call("init", "--force", "mine.yaml").exit_code == 0
    assert "ipsecctl: 1" in Path("mine.yaml").read_text()
    assert [path.name for path in Path().iterdir()] == ["mine.yaml"]


def test_init_to_standard_output() -> None:
    starter = (resource_dir("templates") / "starter.yaml").read_text(encoding="utf-8")
    assert call("init", "-").stdout == starter


@pytest.mark.parametrize("name", ["clinic-dc", "mesh-dual-stack", "partner"])
def test_init_copies_examples(name: str) -> None:
    assert call("init", "--example", name, "copy.yaml").exit_code == 0
    assert Path("copy.yaml").read_bytes() == (resource_dir("topologies") / f"{name}.yaml").read_bytes()
    assert call("validate", "--no-secrets", "copy.yaml").exit_code == 0


def test_init_lists_the_examples() -> None:
    unknown = call("init", "--example", "clinic")
    assert unknown.exit_code == 2
    names = sorted(path.stem for path in resource_dir("topologies").glob("*.yaml"))
    assert ", ".join(names) in " ".join(unknown.stderr.split())


def test_schema_prints_the_schema() -> None:
    assert json.loads(call("schema").stdout) == json_schema()
    assert call("schema", "--markdown").stdout == reference()


def test_validate_reads_standard_input() -> None:
    text = (resource_dir("topologies") / "clinic-dc.yaml").read_bytes()
    assert call("validate", "--no-secrets", "-", stdin=text).stdout == "ok: 3 sites, 2 tunnels\n"


def test_a_file_that_is_not_there_is_json_too() -> None:
    result = call("validate", "--json", "nowhere.yaml")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["diagnostics"]
    assert finding["code"] == "IP000"
    assert isinstance(call("validate", "nowhere.yaml").exception, IpsecctlError)


def test_other_commands_refuse_a_wrong_topology_with_all_its_findings() -> None:
    Path("wrong.yaml").write_text("ipsecctl: 1\nname: x y\nsites: []\n")
    with pytest.raises(TopologyRefused) as refused:
        load_topology(Path("wrong.yaml"))
    assert [d.line for d in refused.value.diagnostics] == [2, 3]


def test_a_refusal_is_json_on_request_and_still_ends_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.yaml").write_text("ipsecctl: 1\nname: x y\nsites: []\n")
    with pytest.raises(TopologyRefused):
        load_topology(Path("wrong.yaml"), json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "ipsecctl/diagnostics/1"
    assert [found["line"] for found in document["diagnostics"]] == [2, 3]
    with pytest.raises(IpsecctlError):
        load_topology(Path("nowhere.yaml"), json=True)
    (found,) = json.loads(capsys.readouterr().out)["diagnostics"]
    assert (found["code"], found["file"]) == ("IP000", "nowhere.yaml")


def test_an_error_after_loading_is_json_with_its_own_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CannotTell), errors_as_json(Path("t.yaml"), wanted=True):
        raise CannotTell("no answer", "try again")
    (found,) = json.loads(capsys.readouterr().out)["diagnostics"]
    assert (found["summary"], found["hint"]) == ("no answer", "try again")
    with pytest.raises(CannotTell), errors_as_json(Path("t.yaml"), wanted=False):
        raise CannotTell("no answer")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("command", "schema", "status"),
    [
        ("validate", "diagnostics/1", 1),
        ("status", "status/1", 3),
        ("secret generate", "diagnostics/1", 1),
    ],
)
def test_json_of_a_wrong_topology_through_the_whole_command_line(
    command: str, schema: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.yaml").write_text("ipsecctl: 1\nname: x y\nsites: []\n")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "wrong.yaml", "--json"])
    assert ended.value.code == status
    assert json.loads(capsys.readouterr().out)["schema"] == f"ipsecctl/{schema}"


def test_the_certificates_of_an_example_are_made_by_its_lab(tmp_path: Path) -> None:
    example = resource_dir("topologies") / "mesh-dual-stack.yaml"
    mine = tmp_path / "mine.yaml"
    mine.write_bytes(example.read_bytes())
    hints = []
    for file in (example, mine):
        loaded = load_bytes(file.read_bytes(), str(file))
        assert loaded.topology is not None
        found = inspect(loaded.topology, tmp_path, loaded.source.locate)
        hints.append({d.hint for d in found if d.code in ("IP301", "IP320")})
    assert hints[0] == {"its lab makes it: 'ipsecctl lab up mesh-dual-stack'"}
    assert any("have your CA issue it" in hint for hint in hints[1])
    assert not any("lab" in hint for hint in hints[1])


def test_make_docs_writes_the_reference() -> None:
    command = [sys.executable, "-m", "ipsecctl.topology.reference"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == reference()
