"""What charon lists, made by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from netaddr import IPAddress

from ipsecctl.gateway import LiveView, ShellView
from ipsecctl.health import Declared
from ipsecctl.topology import Control, ControlKind, DataPath, Gateway


def gateway(name, managed=True):
    control = Control(ControlKind.LAB)
    return Gateway(
        name, name, IPAddress("192.0.2.1"), False, None, 1500, control, DataPath.AUTO, name, managed
    )


def child(name="t", spi_in="11111111", spi_out="22222222", state="INSTALLED", unique_id="1", **more):
    local, remote = ["10.1.0.0/24"], ["10.2.0.0/24"]
    flipped = more.pop("flipped", False)
    return {
        f"{name}-{unique_id}": {
            "name": name,
            "uniqueid": unique_id,
            "state": state,
            "protocol": "ESP",
            "spi-in": spi_out if flipped else spi_in,
            "spi-out": spi_in if flipped else spi_out,
            "encr-alg": "AES_GCM_16",
            "encr-keysize": "256",
            "bytes-in": "10",
            "packets-in": "1",
            "bytes-out": "20",
            "packets-out": "2",
            "install-time": "5",
            "rekey-time": "3000",
            "life-time": "3900",
            "local-ts": remote if flipped else local,
            "remote-ts": local if flipped else remote,
            **more,
        }
    }


def ike(*children, name="t", state="ESTABLISHED", unique_id="1", initiator="yes", **more):
    return {
        name: {
            "uniqueid": unique_id,
            "version": "2",
            "state": state,
            "local-host": "192.0.2.1",
            "local-port": "500",
            "remote-host": "192.0.2.2",
            "remote-port": "500",
            "initiator": initiator,
            "encr-alg": "AES_GCM_16",
            "encr-keysize": "256",
            "prf-alg": "PRF_HMAC_SHA2_384",
            "dh-group": "CURVE_25519",
            "ake1": "ML_KEM_768",
            "established": "60",
            "rekey-time": "14000",
            "child-sas": {key: value for section in children for key, value in section.items()},
            **more,
        }
    }


def view(name, *sas, loaded=("t",), **more):
    return LiveView(name, "6.1.0", tuple(sas), frozenset(loaded), ShellView(**more))


@pytest.fixture
def made():
    """Return the makers above, and the declared tunnel ``t`` between ``a`` and ``b``."""
    return SimpleNamespace(
        gateway=gateway,
        child=child,
        ike=ike,
        view=view,
        tunnel=Declared("t", gateway("a"), gateway("b"), ("t",)),
        partner=Declared("t", gateway("a"), gateway("b", managed=False), ("t",)),
        two=Declared("t", gateway("a"), gateway("b"), ("t-one", "t-two")),
    )
