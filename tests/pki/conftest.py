"""A CA in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from small_ca import NOW, Ca, passphrase

from ipsecctl.pki import sealing
from ipsecctl.pki.authority import NewAuthority, init
from ipsecctl.pki.folder import Folder, Settings
from ipsecctl.pki.keytypes import KeyType
from ipsecctl.pki.sealing import seal


@pytest.fixture(autouse=True)
def quick_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes guessing dear would make each test dear, too; how dear it is, test_at_rest.py looks at."""
    monkeypatch.setattr(sealing, "_N", 2)
    monkeypatch.setattr(sealing, "_P", 1)


@pytest.fixture
def make_ca(tmp_path: Path) -> Callable[..., Ca]:
    """Return what makes a CA; arguments are those of its settings and of ``NewAuthority``."""

    def make(
        *, now: datetime = NOW, key: KeyType = KeyType.ECDSA_P256, days: Any = None, **settings: Any
    ) -> Ca:
        new = NewAuthority(
            replace(Settings("Clinics"), **settings),
            lambda made: seal(made, passphrase("")),
            key,
            **(days or {}),
        )
        init(tmp_path / "ca", new, now)
        return Ca(tmp_path, Folder(tmp_path / "ca"))

    return make


@pytest.fixture
def ca(make_ca: Callable[..., Ca]) -> Ca:
    return make_ca()
