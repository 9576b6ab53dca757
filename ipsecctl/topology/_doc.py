"""What all models of the document have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from ipsecctl.topology._scalars import refuse_several

__all__ = ["Doc", "one_to_list"]


class Doc(BaseModel):
    """A mapping of the file: no other keys, no values of another type, nothing changed later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


def one_to_list(value: Any) -> Any:
    """Return a list, also of one value that stands there without one; refuse several in one text."""
    return value if isinstance(value, list) else [refuse_several(value)]
