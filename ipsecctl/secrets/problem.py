"""A secret that cannot be had: the one error of this room."""

from __future__ import annotations

from typing import Final

from ipsecctl.errors import SecretUnavailable

__all__ = ["NO_FILE", "SecretProblem"]

NO_FILE: Final = "no such file"


class SecretProblem(SecretUnavailable):
    """A secret that cannot be had, taken apart for a finding.

    ``what`` is the problem in general, ``subject`` the reference with what is special about it. ``code`` is
    stable: ``IP301`` not there, ``IP302`` not private, ``IP303`` cannot be used as it is, ``IP304`` cannot be
    decrypted, ``IP305`` Vault does not give it, ``IP306`` the command does not print it.
    """

    def __init__(self, code: str, what: str, subject: str, hint: str) -> None:
        super().__init__(f"{what}: {subject}", hint)
        self.code = code
        self.what = what
        self.subject = subject

    @property
    def is_missing(self) -> bool:
        """Whether a file is not there, and nothing is in its place."""
        return self.what == NO_FILE
