"""Pre-shared keys that take the place of others: what charon needs while both are in use."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping
from typing import Any

from ipsecctl.errors import IpsecctlError
from ipsecctl.gateway import Handle, Record
from ipsecctl.patience import PATIENCE
from ipsecctl.plan import NEXT
from ipsecctl.render import SWANCTL_SECRETS_FILE

__all__ = ["NEXT", "old_keys", "parse_shared"]

_SECTION = re.compile(r"^    ([A-Za-z0-9_-]+) \{\n(.*?)^    \}\n", re.MULTILINE | re.DOTALL)
_OWNER = re.compile(r'^        id-\d+ = "((?:[^"\\]|\\.)*)"$', re.MULTILINE)
_SECRET = re.compile(r"^        secret = 0s([A-Za-z0-9+/=]*)$", re.MULTILINE)


def parse_shared(text: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the load-shared messages, by id, that say what our file of pre-shared keys says.

    What is not as our template writes it is left out.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for name, body in _SECTION.findall(text):
        secret = _SECRET.search(body)
        if secret is not None:
            owners = [re.sub(r"\\(.)", r"\1", owner) for owner in _OWNER.findall(body)]
            data = base64.b64decode(secret[1])
            found[name] = {"id": name, "type": name.partition("-")[0], "data": data, "owners": owners}
    return found


async def old_keys(handle: Handle, names: Collection[str], record: Record) -> dict[str, Mapping[str, Any]]:
    """Return by id the load-shared messages of keys as they were applied, from the file that only root reads.

    A key counts only if it is one of ``names``, and what the record says was applied. What cannot be read or
    found is left out.
    """
    try:
        done = await handle.run(("cat", SWANCTL_SECRETS_FILE), timeout_s=10.0 * PATIENCE)
    except IpsecctlError:
        return {}
    there = parse_shared(done.stdout.decode("utf-8", "replace"))
    return {
        name: message
        for name, message in there.items()
        if name in names and record.shared.get(name) == record.digest("shared", message)
    }
