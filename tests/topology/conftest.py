"""A few words to write topologies with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ipsecctl.errors import Severity
from ipsecctl.topology import Topology, load_text

HEAD = """\
ipsecctl: 1
name: t
defaults: {credential: {psk: "file:secrets/{tunnel}.psk"}, control: lab}
"""


@pytest.fixture
def load() -> Callable[[str], Topology]:
    """Return what reads the part of a topology below its head, which must have no errors."""

    def right(body: str) -> Topology:
        loaded = load_text(HEAD + body, "t.yaml")
        errors = [str(d) for d in loaded.diagnostics if d.severity is Severity.ERROR]
        assert not errors
        assert loaded.topology is not None
        return loaded.topology

    return right
