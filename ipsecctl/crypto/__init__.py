"""Algorithms, proposals, profiles, and what ESP costs in bytes."""

from ipsecctl.crypto.profile import *  # noqa: F403
