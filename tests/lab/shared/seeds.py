"""Looking for secrets where they must not be, in whatever way they may be written there."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import quote_from_bytes

__all__ = ["forms", "found"]


def forms(seed: bytes) -> dict[str, bytes]:
    """Return the ways in which a secret may be written: as it is, hex, base64 at each alignment, percent."""
    made = {"raw": seed, "hex": seed.hex().encode(), "HEX": seed.hex().upper().encode()}
    made["hex with colons"] = seed.hex(":").encode()
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + seed)
        # What shares bits with the bytes before or after is not the secret's alone.
        first = (before * 8 + 5) // 6
        last = (before + len(seed)) * 8 // 6
        made[f"base64 +{before}"] = whole[first:last]
        made[f"base64url +{before}"] = whole[first:last].translate(bytes.maketrans(b"+/", b"-_"))
    made["percent"] = quote_from_bytes(seed, safe="").encode()
    made["percent, all"] = "".join(f"%{byte:02X}" for byte in seed).encode()
    return made


def found(seeds: Mapping[str, bytes], place: str, content: bytes | str) -> list[str]:
    """Return which secrets stand in a content, in what form: line ends and blanks within are no disguise."""
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    folded = re.sub(rb"[\s\\]+", b"", data)
    return [
        f"{name} as {form} in {place}"
        for name, seed in seeds.items()
        for form, text in forms(seed).items()
        if text in data or text in folded or (form.startswith("percent, ") and text.lower() in data.lower())
    ]
