"""Secrets by reference: read at the last moment, checked, made; never shown.

The finding codes of this room are IP301 to IP329.
"""

from ipsecctl.secrets.certificates import read_certificate
from ipsecctl.secrets.inspection import inspect, unusable_psks
from ipsecctl.secrets.making import generate_psk, write_missing
from ipsecctl.secrets.reading import IDENTITY_VARIABLE, age_recipients, read, read_all
from ipsecctl.secrets.secret import Secret
from ipsecctl.secrets.strength import guess_bits

__all__ = [
    "IDENTITY_VARIABLE",
    "Secret",
    "age_recipients",
    "generate_psk",
    "guess_bits",
    "inspect",
    "read",
    "read_all",
    "read_certificate",
    "unusable_psks",
    "write_missing",
]
