"""Who waits for the far end before it calls with a new configuration."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from netaddr import IPAddress

from ipsecctl.deploy.narrow import callers_that_wait
from ipsecctl.health import Declared
from ipsecctl.plan import Change, GatewayPlan, Kind, Part
from ipsecctl.topology import Control, ControlKind, DataPath, Gateway


def gateway(name):
    control = Control(ControlKind.LAB)
    return Gateway(name, name, IPAddress("192.0.2.1"), False, None, 1500, control, DataPath.AUTO, name, True)


TUNNEL = Declared("t", gateway("a"), gateway("b"), ("t",))
CREATE, CHANGE, REMOVE = Kind.CREATE, Kind.CHANGE, Kind.REMOVE


def waits(here, there, *, caller="a", moving=(), part=Part.CONNECTION):
    """Return who waits when ``here`` and ``there`` are done to the connection at ``a`` and ``b``."""
    kinds = {"a": here, "b": there}
    plans = tuple(
        GatewayPlan(name, (Change(name, part, "t", kind),) if kind else ()) for name, kind in kinds.items()
    )
    calling = {"t": caller} if caller else {}
    return callers_that_wait(SimpleNamespace(plans=plans), [TUNNEL], calling, moving)


def test_who_calls_waits_where_the_far_end_has_an_old_configuration():
    assert waits(CHANGE, CHANGE) == {"a": {"t"}}
    assert waits(CHANGE, CHANGE, caller="b") == {"b": {"t"}}
    assert waits(CREATE, CHANGE) == {"a": {"t"}}, "it lost it, and the far end has not"


@pytest.mark.parametrize(
    ("here", "there", "more"),
    [
        (CREATE, CREATE, {}),
        (CHANGE, None, {}),
        (None, CHANGE, {}),
        (REMOVE, CHANGE, {}),
        (CHANGE, CHANGE, {"moving": {"t"}}),
        (CHANGE, CHANGE, {"caller": None}),
        (CHANGE, CHANGE, {"part": Part.SHARED}),
    ],
    ids=["new", "far end is right", "caller is right", "ends", "moved", "a partner calls", "keys alone"],
)
def test_nobody_waits_for_nothing(here, there, more):
    assert waits(here, there, **more) == {}
