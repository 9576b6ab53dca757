"""Revisions (who applied what, when, and what happened on each gateway) and the locks of gateways.

One store is one SQLite file, or one PostgreSQL database for a team::

    store = Store(location(None, os.environ, root=False))
    with store.session() as session:          an apply: locks, a sign of life, its revision
        session.lock(claims, "clinics")
        session.begin(NewRevision(...))
    store.revisions()                         what was applied
"""

from ipsecctl.store.location import VARIABLE, Location, forget, lab_location, location, state_dir
from ipsecctl.store.model import (
    Claim,
    GatewayOutcome,
    GatewayRow,
    Lock,
    NewRevision,
    Outcome,
    Owner,
    Revision,
    Taken,
    history_json,
    revision_json,
    span,
)
from ipsecctl.store.session import Session
from ipsecctl.store.store import Store

__all__ = [
    "VARIABLE",
    "Claim",
    "GatewayOutcome",
    "GatewayRow",
    "Location",
    "Lock",
    "NewRevision",
    "Outcome",
    "Owner",
    "Revision",
    "Session",
    "Store",
    "Taken",
    "forget",
    "history_json",
    "lab_location",
    "location",
    "revision_json",
    "span",
    "state_dir",
]
