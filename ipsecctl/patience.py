"""How long to wait: one factor for every limit of time.

The limits fit machines of usual speed. Where all is slower, as in an emulated machine, the environment
variable ``IPSECCTL_PATIENCE`` multiplies every limit that is not given by an option. Nothing that goes well
becomes slower by it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from ipsecctl.errors import IpsecctlError

__all__ = ["PATIENCE", "patience"]

_VARIABLE = "IPSECCTL_PATIENCE"


def patience(environment: Mapping[str, str]) -> float:
    """Return the factor in an environment: 1 where none is set; 0.1 to 100.

    Raises ``IpsecctlError`` when it is no such number.
    """
    text = environment.get(_VARIABLE, "").strip() or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0.1 <= factor <= 100:
        raise IpsecctlError(
            f"{_VARIABLE} is '{text}'", "It is a number from 0.1 to 100; 1 is the usual speed."
        )
    return factor


PATIENCE = patience(os.environ)
