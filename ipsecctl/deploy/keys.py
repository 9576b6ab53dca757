"""Pre-shared keys that take the place of others: what charon needs while both are in use."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from ipsecctl.errors import IpsecctlError
from ipsecctl.gateway import Handle, Record
from ipsecctl.patience import PATIENCE
from ipsecctl.render import SWANCTL_SECRETS_FILE

__all__ = ["NEXT", "old_keys"]

NEXT = ".next"
"""What charon's id of a new key ends with as long as the old one is accepted beside it."""

_SECRET = re.compile(rb"^    (ike-\S+) \{$(?:\n.*)*?\n +secret = 0s(\S+)$", re.MULTILINE)


async def old_keys(
    handle: Handle, wanted: Mapping[str, Mapping[str, Any]], record: Record
) -> dict[str, Mapping[str, Any]]:
    """Return by id the load-shared messages of keys as they were applied, from the file that only root reads.

    A key counts only if it is, with the owners of the ``wanted`` one, what the record says was applied. What
    cannot be read or found is left out.
    """
    try:
        done = await handle.run(("cat", SWANCTL_SECRETS_FILE), timeout_s=10.0 * PATIENCE)
    except IpsecctlError:
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for name, encoded in _SECRET.findall(done.stdout):
        key = name.decode()
        try:
            message = {**wanted[key], "data": base64.b64decode(encoded, validate=True)}
        except (KeyError, binascii.Error):
            continue
        if record.shared.get(key) == record.digest("shared", message):
            found[key] = message
    return found
