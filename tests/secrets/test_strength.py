"""The estimate of a PSK's strength: low for what people make up, high for what is random."""

from __future__ import annotations

import random
import string

import pytest

from ipsecctl.secrets import generate_psk, guess_bits
from ipsecctl.secrets.strength import STRONG_BITS, WEAK_BITS


@pytest.mark.parametrize(
    "psk",
    [
        "a",
        "password",
        "Passw0rd!2024",
        "cisco123cisco123cisco123",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "abcabcabcabcabcabcabcabcabcabcabc",
        "01234567890123456789012345678901",
        "abcdefghijklmnopqrstuvwxyz",
        "qwertyuiopasdfghjklzxcvbnm",
        "correct horse battery staple",
        "CorrectHorseBatteryStaple",
        "clinics-north-south-vpn-2024",
        "k3:9xQ!z",
    ],
)
def test_made_up_ones_are_weak(psk: str) -> None:
    assert guess_bits(psk, ["clinics", "north", "south"]) < WEAK_BITS


@pytest.mark.parametrize(
    ("alphabet", "length"),
    [
        ("0123456789abcdef", 32),
        (string.ascii_letters + string.digits + "-_", 22),
        (string.ascii_lowercase, 28),
    ],
)
def test_random_ones_are_strong(alphabet: str, length: int) -> None:
    chance = random.Random(1)
    for _ in range(200):
        assert guess_bits("".join(chance.choices(alphabet, k=length))) >= STRONG_BITS - 8


def test_generated_ones_are_strong() -> None:
    assert min(guess_bits(generate_psk()) for _ in range(200)) >= 200


def test_random_but_short_ones_lie_between() -> None:
    assert WEAK_BITS <= guess_bits("Zq7VtK2mX9wB4n") < STRONG_BITS
