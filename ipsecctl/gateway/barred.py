"""What keeps charon's routes into its own device from coming back, and so the SAs that would have them.

kernel-libipsec sets a route for each pair of networks together with the policies of a CHILD_SA, and the whole
CHILD_SA fails where one of them cannot be set: whoever ends one that still carries a part ends all of it.

Source: ``install_route`` of charon's kernel_libipsec_ipsec.c; tried with charon 5.9.8, 6.0.1 and 6.1.0. The
kernel refuses a route to an interface on which IPv6 is off ("IPv6 is disabled on nexthop device").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from netaddr import IPAddress, IPNetwork

from ipsecctl.desired.means import Version
from ipsecctl.desired.versions import SINCE, Knows, knows, version_text
from ipsecctl.gateway.device import DEVICE, NO_IPV6, Device

__all__ = ["Obstacle", "Pair", "bars", "bars_nothing"]

Pair = tuple[IPNetwork, IPNetwork]
"""A network of the gateway's own and one behind the far end, of one family."""

_LOCALHOST: Final = {4: IPAddress("127.0.0.1"), 6: IPAddress("::1")}
_SHOWN: Final = 3


@dataclass(frozen=True, order=True, slots=True)
class Obstacle:
    """What no apply can overcome, the gateway's name in it, and what somebody must do first."""

    what: str
    mend: str

    @property
    def cause(self) -> str:
        """Both, as a cause of a verdict."""
        return f"{self.what}: {self.mend}"


def bars(
    gateway: str, device: Device | None, version: Version | None, pairs: Iterable[Pair]
) -> tuple[Obstacle, ...]:
    """Return what keeps the routes for a CHILD_SA between ``pairs`` of networks from being set.

    ``device`` is charon's own as it was seen, ``version`` the running charon's; what is not known of either
    bars nothing.
    """
    if device is None or bars_nothing(device, version):
        return ()
    pairs = tuple(pairs)
    return (*_no_ipv6(gateway, device, pairs), *_no_source(gateway, device, version, pairs))


def bars_nothing(device: Device | None, version: Version | None) -> bool:
    """Whether ``bars`` has nothing to say of a gateway, whatever the networks are."""
    if device is None or not device.there:
        return True
    return not device.ipv6_off and (device.sources is None or knows(version, Knows.SOURCELESS_ROUTES))


def _no_ipv6(gateway: str, device: Device, pairs: tuple[Pair, ...]) -> Iterator[Obstacle]:
    far = [there for _, there in pairs if there.version == 6]
    if not far or not device.ipv6_off:
        return
    if device.ipv6_off == NO_IPV6:
        why, mend = "its kernel has no IPv6", "boot it with IPv6 (without ipv6.disable=1)"
    else:
        why = f"IPv6 is off on {DEVICE} (net.ipv6.conf.{DEVICE}.disable_ipv6 is 1)"
        mend = (
            f"switch it on (sysctl -w net.ipv6.conf.{device.ipv6_off}.disable_ipv6=0, and in /etc/sysctl.d; "
            "IPv6 addresses that went with it must be set again)"
        )
    yield Obstacle(f"{gateway}: {why}, {_consequence(far)}", f"{mend}, then apply the topology")


def _no_source(
    gateway: str, device: Device, version: Version | None, pairs: tuple[Pair, ...]
) -> Iterator[Obstacle]:
    if device.sources is None or knows(version, Knows.SOURCELESS_ROUTES):
        return
    bare = [
        pair
        for pair in pairs
        if not (pair[0].version == 6 and device.ipv6_off)  # that is said, and mended first
        and _LOCALHOST[pair[0].version] not in pair[0]
        and not any(address in pair[0] for address in device.sources)
    ]
    if bare:
        since = version_text(SINCE[Knows.SOURCELESS_ROUTES])
        yield Obstacle(
            f"{gateway}: no interface has an address in {_listed(near for near, _ in bare)}, without which "
            f"charon before {since} sets no route through {DEVICE}, {_consequence(far for _, far in bare)}",
            "give the gateway one (ip address add), then apply the topology",
        )


def _consequence(far: Iterable[IPNetwork]) -> str:
    return (
        f"so charon's routes to {_listed(far)} cannot be set: nothing passes to there, and SAs that have "
        "them are not made anew, as they might not come back"
    )


def _listed(networks: Iterable[IPNetwork]) -> str:
    texts = [str(network) for network in sorted(set(networks))]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
