"""A secret shows itself to nobody who does not ask for its bytes."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from dataclasses import asdict, dataclass

import pytest

from ipsecctl.secrets import Secret

VALUE = "correct-horse-battery"


@pytest.fixture
def secret() -> Secret:
    return Secret(VALUE.encode())


def test_bytes_is_the_way_to_it(secret: Secret) -> None:
    assert bytes(secret) == VALUE.encode()


def test_no_text_shows_it(secret: Secret) -> None:
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{secret:>40}",
        "{} {!r}".format(secret, secret),  # noqa: UP032 - another way of formatting
    ]
    shown += [repr([secret]), repr({"psk": secret}), str({secret})]
    assert not any(VALUE in text for text in shown)


def test_it_cannot_be_pickled_nor_put_into_json(secret: Secret) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)


def test_it_has_no_attributes_to_look_at(secret: Secret) -> None:
    with pytest.raises(TypeError):
        vars(secret)
    with pytest.raises(AttributeError):
        secret.other = 1  # type: ignore[attr-defined]


def test_a_dataclass_with_it_copies_and_prints_without_showing_it(secret: Secret) -> None:
    @dataclass
    class Holder:
        psk: Secret

    assert VALUE not in repr(Holder(secret))
    assert VALUE not in repr(asdict(Holder(secret)))
    assert copy.deepcopy(secret) is secret


def test_a_traceback_with_locals_does_not_show_it(secret: Secret) -> None:
    def fails(psk: Secret) -> None:
        raise RuntimeError("no")

    try:
        fails(secret)
    except RuntimeError as error:
        text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "psk = Secret(***)" in text
    assert f"b'{VALUE}'" not in text


def test_equality(secret: Secret) -> None:
    assert secret == Secret(VALUE.encode())
    assert hash(secret) == hash(Secret(VALUE.encode()))
    assert secret != Secret(b"other")
    assert secret != VALUE.encode()
