"""Compile a topology into what each gateway must be."""

from ipsecctl.desired.state import *  # noqa: F403
