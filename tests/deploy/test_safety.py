"""What the safety stop takes for a tunnel that carries nothing as it is, and may be made anew unasked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ipsecctl.deploy.safety import _dead
from ipsecctl.gateway import NotInKernel

ONE, TWO = {"t": {"children": {"x": {}}}}, {"t": {"children": {"x": {}, "y": {}}}}


def lost(child, *, dead):
    return NotInKernel("t", child, "c0ffee01", routes=("fd00:2::/64",), dead=dead)


@pytest.mark.parametrize(
    ("applied", "missing", "dead"),
    [
        (ONE, [lost("x", dead=True)], {"t"}),
        (ONE, [lost("x", dead=False)], set()),  # its IPv6 routes alone: IPv4 passes
        (TWO, [lost("x", dead=True)], set()),
        (TWO, [lost("x", dead=True), lost("y", dead=False)], set()),
        (TWO, [lost("x", dead=True), lost("y", dead=True)], {"t"}),
        (ONE, [], set()),
    ],
)
def test_only_a_tunnel_that_has_lost_everything_is_dead(applied, missing, dead):
    assert _dead(SimpleNamespace(not_in_kernel=tuple(missing)), applied) == dead
