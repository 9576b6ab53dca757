"""Tunnels in the making: what could not be found is ``None`` in them, and already reported."""

from __future__ import annotations

from dataclasses import dataclass

from netaddr import IPNetwork

from ipsecctl.crypto import DEFAULT_PROFILE, NO_OPTIONS, PROFILES, Profile, SaOptions
from ipsecctl.topology.model import ChildPer, Credential, End, Flow, Gateway, Mode, Path, Ppk, Tunnel

__all__ = ["Draft", "DraftEnd"]


@dataclass(frozen=True, slots=True)
class DraftEnd:
    """One end: its gateway, what holds there, and where in the file each of these is said.

    ``guessed`` when it is known which site it is, but not which of its gateways. ``secret_known`` is false
    when which file the credential means depends on a name that is not known.
    """

    gateway: Gateway
    ref: Path
    profile: Profile | None
    profile_at: Path
    credential: Credential | None
    credential_at: Path
    secret_known: bool
    mode: Mode = Mode.POLICY
    mode_at: Path = ()
    options: SaOptions = NO_OPTIONS
    addresses: tuple[IPNetwork, ...] = ()
    routes: tuple[IPNetwork, ...] | None = None
    guessed: bool = False

    @property
    def site(self) -> str:
        return self.gateway.site


@dataclass(slots=True)
class Draft:
    """A tunnel in the making; ``flows`` come last.

    ``presumed`` is what those of its flows may mean that name something unknown: no more is known of them
    than the sites.
    """

    name: str
    group: str
    left: DraftEnd
    right: DraftEnd
    initiator: str
    child_per: ChildPer
    if_id: int = 0
    any_selectors: bool = False
    initiator_given: bool = False
    ppk: Ppk | None = None
    flows: tuple[Flow, ...] = ()
    presumed: tuple[Flow, ...] = ()

    @property
    def where(self) -> Path:
        return ("tunnels", self.group)

    @property
    def ends(self) -> tuple[DraftEnd, DraftEnd]:
        return self.left, self.right

    @property
    def guessed(self) -> bool:
        """Whether it is not known which two gateways it joins."""
        return self.left.guessed or self.right.guessed

    def finished(self) -> Tunnel:
        """Return the tunnel; its ends must have profiles and credentials."""
        for end in self.ends:
            if end.profile is None or end.credential is None:
                raise AssertionError(f"{end.gateway.name}: an end without either went unreported")
        return self.known()

    def known(self) -> Tunnel:
        """Return what is known of the tunnel: an end whose credential is not has one with nothing in it."""
        return Tunnel(
            self.name,
            self.group,
            _end(self.left),
            _end(self.right),
            self.flows,
            self.child_per,
            self.initiator,
            self.if_id,
            self.any_selectors,
            self.initiator_given,
            where=self.where,
            ppk=self.ppk,
        )


def _end(end: DraftEnd) -> End:
    return End(
        end.gateway,
        end.profile or PROFILES[DEFAULT_PROFILE],
        end.credential if end.credential is not None and end.secret_known else Credential(),
        end.mode,
        end.addresses,
        end.routes,
        end.options,
    )
