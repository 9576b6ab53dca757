"""Plans in files, for ``plan --out`` and ``apply``."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ipsecctl.cli._files import MAX_BYTES, write_text
from ipsecctl.errors import ApplyFailed, IpsecctlError

if TYPE_CHECKING:
    from ipsecctl.deploy.prepare import Prepared
    from ipsecctl.plan import SavedPlan

__all__ = ["made_now", "plan_in", "save", "topology_of"]

_SALT_BYTES = 16


def plan_in(file: Path) -> SavedPlan | None:
    """Return the saved plan in a file, ``None`` when it is something else, as a topology.

    Raises ``IpsecctlError`` for a plan that cannot be used.
    """
    from ipsecctl.plan import is_saved_plan, load_plan

    try:
        if not file.is_file() or file.stat().st_size > MAX_BYTES:
            return None  # a pipe can be read only once
        with file.open("rb") as stream:
            if stream.read(1) != b"{":
                return None
            content = b"{" + stream.read(MAX_BYTES)
    except OSError:
        return None  # whoever reads it as a topology says why
    return load_plan(content, str(file)) if is_saved_plan(content) else None


def topology_of(saved: SavedPlan, plan_file: Path) -> Path:
    """Return the topology file that a plan is of. Raises ``ApplyFailed`` when it is not there any more."""
    file = Path(saved.file)
    if not file.exists():
        raise ApplyFailed(
            f"{plan_file} is a plan of {saved.file}, which is not there",
            "Nothing was done. A plan is carried out where it was made, with its topology and secrets.",
        )
    return file


def made_now(
    prepared: Prepared,
    text: str,
    file: Path,
    *,
    lab: str | None = None,
    take_over: bool = False,
    allow: list[str] | None = None,
    limit: list[str] | None = None,
    like: SavedPlan | None = None,
) -> SavedPlan:
    """Return prepared plans as they can be saved; with ``like`` as that one was, to compare the two."""
    from ipsecctl.deploy.saving import saved_plan
    from ipsecctl.whoami import user_at_host

    return saved_plan(
        prepared,
        text,
        str(file.absolute()),
        by=user_at_host(),
        made=datetime.now(UTC),
        salt=bytes.fromhex(like.salt) if like else secrets.token_bytes(_SALT_BYTES),
        lab=like.lab if like else lab,
        take_over=like.take_over if like else take_over,
        allowed=like.allowed if like else allow or (),
        limit=like.limit if like else limit or (),
    )


def save(plan: SavedPlan, out: Path) -> None:
    """Write a plan to a file for its owner only. Raises ``IpsecctlError``."""
    if out.exists() and not out.is_file():
        raise IpsecctlError(f"{out} is no plain file", "name the file to write")
    write_text(out, plan.to_json(), replace=True, mode=0o600)
