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
from ipsecctl.crypto.options import NO_OPTIONS, CopyDscp, Offload, SaOptions
from ipsecctl.crypto.profile import Profile
from ipsecctl.crypto.profiles import DEFAULT_PROFILE, PROFILES
from ipsecctl.crypto.proposal import (
    Examined,
    Proposal,
    ProposalError,
    Protocol,
    examine_proposal,
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
    "NO_OPTIONS",
    "PROFILES",
    "Algorithm",
    "CopyDscp",
    "EspSuite",
    "Examined",
    "Kind",
    "Offload",
    "Overhead",
    "Profile",
    "Proposal",
    "ProposalError",
    "Protocol",
    "SaOptions",
    "Status",
    "common_suites",
    "esp_suites",
    "examine_proposal",
    "in_common",
    "nearest",
    "negotiate",
    "overhead",
    "parse_esp_proposal",
    "parse_ike_proposal",
]
