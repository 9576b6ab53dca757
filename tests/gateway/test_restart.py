"""Restarting charon by the way that runs it, and what is said when it does not come back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

import ipsecctl.gateway.restart as restarting
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import Completed, ike_sas, restart_charon
from ipsecctl.gateway.restart import restart_command

DOWN = GatewayUnreachable("a", "charon is not running", charon_down=True)


@pytest.mark.parametrize(
    ("lab", "service", "command"),
    [
        ("", "unit strongswan", ("systemctl", "restart", "strongswan")),
        ("", "unit strongswan-starter", ("systemctl", "restart", "strongswan-starter")),
        ("", "systemd", ()),  # a unit that cannot be seen would be a guess
        ("", "unit a; reboot", ()),
        ("", "lab", ()),
        ("", "", ()),
    ],
)
def test_only_what_is_known_is_run(lab, service, command):
    assert restart_command(SimpleNamespace(name="a", lab=lab), service) == command


def test_in_a_lab_the_labs_own_command_is_run():
    (*session, shell, flag, script) = restart_command(SimpleNamespace(name="a", lab="try"), "lab")
    assert session == ["setsid", "--wait"]
    assert (shell, flag) == ("sh", "-c")
    assert script == "/usr/lib/ipsecctl-lab/charon stop && /usr/lib/ipsecctl-lab/charon start"


@pytest.mark.parametrize(
    ("stats", "count"),
    [
        ({"ikesas": {"total": "0", "half-open": "0"}}, 0),
        ({"ikesas": {"total": "12"}}, 12),
        ({"ikesas": {}}, None),
        ({"ikesas": "0"}, None),
        ({}, None),
    ],
)
def test_how_many_ike_sas_there_are_is_known_or_not(stats, count):
    assert ike_sas(stats) == count


class Gateway:
    """A gateway whose charon answers after some tries; ``status`` is that of the restart."""

    name = "a"

    def __init__(self, tries=0, status=0):
        self.tries = tries
        self.status = status
        self.ran = []

    async def run(self, argv, stdin=b"", *, timeout_s=0.0):
        self.ran.append(argv[0])
        if argv[0] == "sh":
            return Completed(0, b"7-1700000000\n", b"")
        return Completed(self.status, b"", b"Job failed.\nSee its log.\n")

    @asynccontextmanager
    async def vici(self, *, timeout_s):
        self.tries -= 1
        if self.tries >= 0:
            raise DOWN
        yield None


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(restarting, "_ASK_AGAIN_S", 0.0)


def restart(gateway):
    return asyncio.run(restart_charon(gateway, ("systemctl", "restart", "strongswan"), "x = 1"))


def test_it_waits_until_charon_answers_and_says_which_start_it_is():
    gateway = Gateway(tries=3)
    assert restart(gateway) == "7-1700000000"
    assert gateway.ran == ["systemctl", "sh"]


def test_a_charon_that_stays_away_is_a_dead_charon(monkeypatch):
    monkeypatch.setattr(restarting, "_BACK_WITHIN_S", 0.0)
    with pytest.raises(GatewayUnreachable) as failed:
        restart(Gateway(tries=10**6))
    assert failed.value.charon_down
    assert failed.value.summary == (
        "a: charon was restarted for x = 1 and is not there again: charon is not running"
    )
    assert failed.value.hint.startswith("Look into its log, start it, then apply again.")


def test_a_restart_that_fails_is_told_in_its_own_words():
    with pytest.raises(GatewayUnreachable, match="is not there again: See its log") as failed:
        restart(Gateway(status=1))
    assert failed.value.charon_down
