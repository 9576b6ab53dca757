"""Read a topology: YAML with line numbers, checked, typed."""

from ipsecctl.topology.model import *  # noqa: F403
