"""Algorithms, proposals, profiles, and what ESP costs in bytes."""

from ipsecctl.crypto.algorithms import ALGORITHMS, KEYWORDS, Algorithm, Kind, Status, nearest
from ipsecctl.crypto.esp import (
    IPV6_MIN_MTU,
    LIBIPSEC_MTU,
    EspSuite,
    Overhead,
    common_suites,
    esp_suites,
    overhead,
)
from ipsecctl.crypto.profile import Profile
from ipsecctl.crypto.profiles import DEFAULT_PROFILE, PROFILES
from ipsecctl.crypto.proposal import (
    Proposal,
    ProposalError,
    Protocol,
    in_common,
    negotiate,
    parse_esp_proposal,
    parse_ike_proposal,
)

__all__ = [
    "ALGORITHMS",
    "DEFAULT_PROFILE",
    "IPV6_MIN_MTU",
    "KEYWORDS",
    "LIBIPSEC_MTU",
    "PROFILES",
    "Algorithm",
    "EspSuite",
    "Kind",
    "Overhead",
    "Profile",
    "Proposal",
    "ProposalError",
    "Protocol",
    "Status",
    "common_suites",
    "esp_suites",
    "in_common",
    "nearest",
    "negotiate",
    "overhead",
    "parse_esp_proposal",
    "parse_ike_proposal",
]
