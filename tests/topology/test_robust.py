"""Whatever is read, findings come back and never an exception; and in time."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from netaddr.ip import BaseIP

from ipsecctl.errors import Severity
from ipsecctl.resources import resource_dir
from ipsecctl.topology import Loaded, load_bytes, load_text

EXAMPLES = [path.read_text(encoding="utf-8") for path in sorted(resource_dir("topologies").glob("*.yaml"))]
EVERY_KEY = (Path(__file__).parent / "right" / "every-key.yaml").read_text(encoding="utf-8")
EVERY_VALUE = yaml.safe_load(EVERY_KEY.partition("---\n")[2])
CLINIC_DC = next(text for text in EXAMPLES if "name: clinic-dc" in text)
LENIENT = settings(max_examples=2 * settings.default.max_examples // 5)


def sound(loaded: Loaded, text: str) -> None:
    """Check what holds for every answer."""
    errors = [d for d in loaded.diagnostics if d.severity is Severity.ERROR]
    assert (loaded.topology is None) == bool(errors)
    lines = len(text.split("\n"))
    for found in loaded.diagnostics:
        assert found.code.startswith("IP") and found.summary and found.hint
        assert 1 <= found.line <= lines + 1 and found.column >= 1
    assert list(loaded.diagnostics) == sorted(loaded.diagnostics, key=lambda d: d.severity)


def test_every_truncation() -> None:
    data = CLINIC_DC.encode()
    for end in range(len(data)):
        sound(load_bytes(data[:end], "t.yaml"), CLINIC_DC)


@LENIENT
@given(st.sampled_from([*EXAMPLES, EVERY_KEY]), st.data())
def test_mutations(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        new = data.draw(
            st.one_of(st.text("{}[]:,-*&!|>'\"%@`#\n\t <0a/.~?", max_size=4), st.text(max_size=3))
        )
        text = text[:start] + new + text[end:]
    sound(load_text(text, "t.yaml"), text)


@LENIENT
@given(st.sampled_from([*EXAMPLES, EVERY_KEY]), st.data())
def test_lines_moved_about(text: str, data: st.DataObject) -> None:
    lines = text.split("\n")
    for _ in range(data.draw(st.integers(1, 3))):
        line = lines.pop(data.draw(st.integers(0, len(lines) - 1)))
        if data.draw(st.booleans()):
            lines.insert(data.draw(st.integers(0, len(lines))), " " * data.draw(st.integers(0, 3)) + line)
        if not lines:
            break
    text = "\n".join(lines)
    sound(load_text(text, "t.yaml"), text)


@LENIENT
@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf")
@example(b"a: \xed\xa0\x80")
def test_any_bytes(data: bytes) -> None:
    sound(load_bytes(data, "t.yaml"), data.decode("utf-8", "replace").replace("\r", "\n"))


WORDS = st.sampled_from(["dc", "a", "10.0.0.0/8", "::/0"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@LENIENT
@given(st.data())
def test_any_value_anywhere(data: st.DataObject) -> None:
    document = copy.deepcopy(EVERY_VALUE)
    node, keys = document, []
    while isinstance(node, dict | list) and node:
        key = data.draw(
            st.sampled_from(sorted(node, key=str) if isinstance(node, dict) else range(len(node)))
        )
        keys.append((node, key))
        node = node[key]
    container, key = data.draw(st.sampled_from(keys))
    container[key] = data.draw(VALUES)
    text = yaml.safe_dump(document, allow_unicode=True)
    sound(load_text(text, "t.yaml"), text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "a:\n" + "".join(" " * n + "- \n" for n in range(1, 400)),
        "x: &x [*x]",
        "x: &x {<<: *x}",
        "&a a: *a",
        "a: 9" + "9" * 10_000,
        "a: \ud800",
        "? [1]\n: 2",
        "? {a: b}\n: 2",
        "<<: [1, 2]",
        "a: !!int x",
        "a: !!bool maybe",
        "!!set {a, b}",
        "%TAG ! tag:x,2000:\n---\na: !b c",
        "--- |\n text",
        "a: {" + ", ".join(f"k{n}: 1" for n in range(20_000)) + "}",
    ],
    ids=lambda text: text[:12].encode("unicode_escape").decode(),
)
def test_strange_documents(text: str) -> None:
    loaded = load_text(text, "t.yaml")
    sound(loaded, text)
    assert loaded.topology is None


def test_a_chain_of_merges_ends() -> None:
    chain = "a0: &a0 {k0: 1}\n" + "".join(
        f"a{n}: &a{n} {{<<: *a{n - 1}, k{n}: 1}}\n" for n in range(1, 3_000)
    )
    sound(load_text(chain, "t.yaml"), chain)


def test_without_libyaml() -> None:
    """PyYAML without its C part reads the same, and limits nesting, too."""
    script = (
        "import yaml, sys; del yaml.CSafeLoader\n"
        "from ipsecctl.topology import load_bytes\n"
        "for text in sys.stdin.buffer.read().split(b'\\0'):\n"
        "    loaded = load_bytes(text, 't.yaml')\n"
        "    codes = [found.code for found in loaded.diagnostics]\n"
        "    print(loaded.topology and len(loaded.topology.tunnels), *codes)\n"
    )
    wrong = CLINIC_DC.replace("gateway: 198", "gatway: 198")
    texts = "\0".join([CLINIC_DC, wrong, "[" * 5000])
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, input=texts.encode(), capture_output=True, check=True)
    right, misspelt, nested = answer.stdout.decode().splitlines()
    assert right == "2"
    assert misspelt.startswith("None ") and "IP011" in misspelt
    assert nested == "None IP008"


def hub(spokes: int, network: str = "10.{high}.{low}.0/24") -> str:
    head = (
        "ipsecctl: 1\nname: big\ndefaults: {control: lab, credential: {psk: 'file:{tunnel}.psk'}}\nsites:\n"
    )
    dc = "  dc: {networks: {servers: 172.16.0.0/24}, gateway: 198.51.100.1}\n"
    sites = (
        f"  clinic-{n}:\n"
        f"    networks: {{lan: {network.format(high=n >> 8, low=n & 255)}}}\n"
        "    gateway: dynamic\n"
        for n in range(spokes)
    )
    return head + dc + "".join(sites) + "tunnels: {c: {hub: dc, spokes: ['clinic-*']}}\n"


def test_overlaps_of_all_with_all_are_found() -> None:
    text = hub(1_000, "192.168.1.0/24")
    assert len(load_text(text, "t.yaml").diagnostics) == 999


def test_overlaps_cost_no_comparison_of_each_prefix_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    many = 500
    compared = 0
    equal = BaseIP.__eq__

    def counted(self: BaseIP, other: object) -> bool:
        nonlocal compared
        compared += 1
        return equal(self, other)

    prefixes = ", ".join(f"10.{n >> 8}.{n & 255}.0/24" for n in range(many))
    text = hub(1, f"[{prefixes}, 172.16.0.0/25]")
    monkeypatch.setattr(BaseIP, "__eq__", counted)
    loaded = load_text(text, "t.yaml")
    assert [(d.code, d.line) for d in loaded.diagnostics] == [("IP113", 7)]
    assert compared < 20 * many


@pytest.mark.slow
def test_a_thousand_typing_errors_among_thousands_of_sites_end() -> None:
    text = hub(1_000).replace("['clinic-*']", "[" + ", ".join(f"klinic-{n}" for n in range(300)) + "]")
    assert len(load_text(text, "t.yaml").diagnostics) == 300
