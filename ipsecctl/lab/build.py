"""Wire a lab: from a topology and a lab file to a :class:`Lab`. Pure.

The passes, in order: names and hosts, NAT boxes, WAN addresses, then the plugs of every link. What cannot be
wired is collected as findings, of all passes but the last, which has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import chain

from netaddr import IPAddress, IPNetwork

from ipsecctl.lab.spec import Finding, GatewaySpec, HostSpec, LabSpec
from ipsecctl.lab.wan import Box, around, boxes_wanted, choose_addresses, place_boxes
from ipsecctl.lab.wiring import (
    INTERNET,
    Interface,
    Lab,
    Link,
    LinkKind,
    NatBox,
    Node,
    NodeRoute,
    Role,
    default_host,
    interface_name,
)
from ipsecctl.topology import Gateway, Network, Path, Site, Topology

__all__ = ["wire"]

_HOST_NUMBER = {4: 10, 6: 0x10}
_EVERYWHERE = {4: IPNetwork("0.0.0.0/0"), 6: IPNetwork("::/0")}
_SINGLE = {4: 32, 6: 128}
_ETHERNET_MTU = 1500


@dataclass(frozen=True, slots=True)
class _Plug:
    """An interface of a node, with the link it is on and the routes through it."""

    node: str
    interface: str
    link: Link
    addresses: tuple[IPNetwork, ...]
    routes: tuple[NodeRoute, ...] = ()


def wire(
    name: str, topology: Topology, spec: LabSpec, file: str = ""
) -> tuple[Lab | None, tuple[Finding, ...]]:
    """Wire a lab; ``file`` is where ``spec`` comes from.

    Returns the lab, ``None`` when there are findings, and the findings.
    """
    findings: list[Finding] = [
        *_wrong_names(topology, spec),
        *_small_networks(topology),
        *_wrong_hosts(topology, spec),
    ]
    boxes = place_boxes(topology, spec, findings)
    addresses = choose_addresses(topology, spec, boxes, findings)
    if findings:
        return None, tuple(findings)
    plugs = [
        *_wan_plugs(topology, spec, boxes, addresses),
        *_inside_plugs(spec, boxes),
        *chain.from_iterable(_network_plugs(site, spec) for site in topology.sites),
    ]
    lab = Lab(
        name=name,
        description=spec.description,
        file=file,
        topology=topology,
        nodes=tuple(_nodes(topology, spec, boxes, plugs)),
        links=tuple(sorted({plug.link for plug in plugs})),
        names=tuple(_dns_names(topology, boxes, addresses)),
    )
    return lab, ()


# ------------------------------------------------------------------------------------------------------ names


def _networks(topology: Topology) -> Iterator[tuple[str, Network]]:
    for site in topology.sites:
        for network in site.networks:
            yield f"{site.name}.{network.name}", network


def _wrong_names(topology: Topology, spec: LabSpec) -> Iterator[Finding]:
    """Find names in the lab file that the topology does not have, and nodes that would have one name."""
    gateways = [g.name for g in topology.gateways()]
    networks = [key for key, _ in _networks(topology)]
    spoken: list[tuple[str, str, list[str], Path]] = [
        *(("gateway", name, gateways, ("gateways", name)) for name in spec.gateways),
        *(
            ("gateway", name, gateways, ("nat", box, "gateways", position))
            for box, entry in spec.nat.items()
            for position, name in enumerate(entry.gateways)
        ),
        *(("network", h.network, networks, ("hosts", name, "network")) for name, h in spec.hosts.items()),
        *(
            ("gateway, NAT box or network", key, [*gateways, *spec.nat, *networks], ("links", key))
            for key in spec.links
        ),
    ]
    for kind, name, known, where in spoken:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
            yield Finding(f"there is no {kind} '{name}'", hint, where)
    yield from _doubled_names(topology, spec)


def _doubled_names(topology: Topology, spec: LabSpec) -> Iterator[Finding]:
    taken = {INTERNET: "the node between the gateways"}
    nodes: list[tuple[str, str, Path, bool]] = [
        *((g.name, "a gateway", g.where, True) for g in topology.gateways()),
        *((name, "a NAT box", ("nat", name), False) for name in boxes_wanted(topology, spec)),
        *(
            (default_host(n.site, n.name), f"the host of network {key}", n.where, True)
            for key, n in _networks(topology)
            if default_host(n.site, n.name) not in _said_hosts(key, spec)
        ),
        *((name, "a host", ("hosts", name), False) for name in spec.hosts),
    ]
    for name, what, where, in_topology in nodes:
        if name in taken:
            summary = f"{what} would be node '{name}' of the lab, as {taken[name]} is"
            yield Finding(summary, "rename one of them", where, in_topology)
        taken.setdefault(name, what)


def _dns_names(
    topology: Topology, boxes: tuple[Box, ...], addresses: dict[str, IPAddress]
) -> Iterator[tuple[str, IPAddress]]:
    """Yield the DNS names by which the topology knows gateways, with what they mean in the lab."""
    faces = {g.name: box.name for box in boxes for g in box.gateways}
    for gateway in topology.gateways():
        name = gateway.reachable_at
        if isinstance(name, str):
            yield name, addresses[faces.get(gateway.name, gateway.name)]


# -------------------------------------------------------------------------------------------------- WAN links


def _mtu(spec: LabSpec, key: str, otherwise: int) -> int:
    return spec.links[key].mtu if key in spec.links else otherwise


def _inside_mtu(spec: LabSpec, box: Box) -> int:
    return min(_mtu(spec, g.name, g.mtu) for g in box.gateways)


def _wan_plugs(
    topology: Topology, spec: LabSpec, boxes: tuple[Box, ...], addresses: dict[str, IPAddress]
) -> Iterator[_Plug]:
    """Plug every node that faces the internet into a link of its own."""
    mtus = {g.name: _mtu(spec, g.name, g.mtu) for g in topology.gateways()}
    mtus |= {box.name: _mtu(spec, box.name, _inside_mtu(spec, box)) for box in boxes}
    for name, address in addresses.items():
        link = Link(f"wan.{name}", LinkKind.WAN, mtus[name])
        yield from _wan_link(name, address, link, [a for n, a in addresses.items() if n != name])


def _wan_link(node: str, address: IPAddress, link: Link, others: list[IPAddress]) -> tuple[_Plug, _Plug]:
    prefix, outside = around(address), interface_name("to", node)
    hop = _next_hop(prefix, [address, *others])
    default = NodeRoute(_EVERYWHERE[address.version], hop, "wan")
    # Where two nodes have addresses of one prefix, on links of their own, the prefix as a whole is on
    # neither.
    if any(other in prefix for other in others) or address in (prefix.network, prefix.broadcast):
        length = _SINGLE[address.version]
        to_hop, to_node = NodeRoute(IPNetwork(hop), None, "wan"), NodeRoute(IPNetwork(address), None, outside)
        return (
            _Plug(node, "wan", link, (_with_length(address, length),), (to_hop, default)),
            _Plug(INTERNET, outside, link, (_with_length(hop, length),), (to_node,)),
        )
    return (
        _Plug(node, "wan", link, (_with_length(address, prefix.prefixlen),), (default,)),
        _Plug(INTERNET, outside, link, (_with_length(hop, prefix.prefixlen),)),
    )


def _inside_plugs(spec: LabSpec, boxes: tuple[Box, ...]) -> Iterator[_Plug]:
    """Plug gateways that are behind a NAT into the link to their box."""
    for box in boxes:
        link = Link(f"inside.{box.name}", LinkKind.INSIDE, _inside_mtu(spec, box))
        length = box.inside.prefixlen
        chosen = _inside_addresses(box)
        hop = _next_hop(box.inside, chosen.values())
        yield _Plug(box.name, "lan", link, (_with_length(hop, length),))
        for gateway, address in chosen.items():
            default = NodeRoute(_EVERYWHERE[address.version], hop, "wan")
            yield _Plug(gateway, "wan", link, (_with_length(address, length),), (default,))


def _inside_addresses(box: Box) -> dict[str, IPAddress]:
    """Return the addresses of the gateways behind a box: the topology's, or free ones from the tenth on."""
    fixed = {g.name: g.address for g in box.gateways if isinstance(g.address, IPAddress)}
    chosen: dict[str, IPAddress] = {}
    for gateway in box.gateways:
        taken = {*fixed.values(), *chosen.values()}
        chosen[gateway.name] = fixed.get(gateway.name) or _free(box.inside, _HOST_NUMBER[4], taken)
    return chosen


def _next_hop(prefix: IPNetwork, taken: Iterable[IPAddress]) -> IPAddress:
    """Return the first free address of a prefix: where one looks for a router."""
    return _free(prefix, 1, set(taken))


# ----------------------------------------------------------------------------------------- networks and hosts


def _small_networks(topology: Topology) -> Iterator[Finding]:
    for site in topology.sites:
        for network in site.networks:
            for prefix in network.prefixes:
                if _last(prefix) < len(site.gateways) + 1:
                    summary = f"{prefix} is too small for a lab"
                    hint = "it needs an address for each gateway of the site, and one for a host"
                    yield Finding(summary, hint, network.where, in_topology=True)


def _wrong_hosts(topology: Topology, spec: LabSpec) -> Iterator[Finding]:
    """Find addresses of hosts that are not in their network, or taken."""
    sites = {site.name: site for site in topology.sites}
    networks = dict(_networks(topology))
    owners: dict[tuple[str, IPAddress], str] = {}
    for name, host in spec.hosts.items():
        network = networks.get(host.network)
        if network is None:
            continue  # its name is a finding already
        gateways = {
            a.ip for _, addresses in _gateway_addresses(sites[network.site], network) for a in addresses
        }
        for position, said in enumerate(host.address):
            address, where = IPAddress(str(said)), ("hosts", name, "address", position)
            owner = "a gateway" if address in gateways else owners.get((host.network, address))
            if not any(address in prefix for prefix in network.prefixes):
                hint = f"it has {', '.join(map(str, network.prefixes))}"
                yield Finding(f"{address} is not in network {host.network}", hint, where)
            elif owner:
                yield Finding(f"{address} is taken by {owner}", "choose another, or leave it out", where)
            owners[host.network, address] = name


def _gateway_addresses(site: Site, network: Network) -> Iterator[tuple[Gateway, tuple[IPNetwork, ...]]]:
    for number, gateway in enumerate(site.gateways, start=1):
        yield gateway, tuple(_with_length(_nth(p, number), p.prefixlen) for p in network.prefixes)


def _network_plugs(site: Site, spec: LabSpec) -> Iterator[_Plug]:
    """Plug a site's gateways and hosts into its networks; hosts go through the first gateway."""
    for network in site.networks:
        key = f"{site.name}.{network.name}"
        mtu = _mtu(spec, key, max([_ETHERNET_MTU, *(_mtu(spec, g.name, g.mtu) for g in site.gateways)]))
        link = Link(f"lan.{key}", LinkKind.LAN, mtu)
        gateways = list(_gateway_addresses(site, network))
        for gateway, addresses in gateways:
            yield _Plug(gateway.name, interface_name("lan", network.name), link, addresses)
        routes = tuple(_default_routes(gateways[0][1]))
        taken = {a.ip for _, addresses in gateways for a in addresses}
        for name, addresses in _host_addresses(_hosts(network, spec), network, taken):
            yield _Plug(name, "lan", link, addresses, routes)


def _default_routes(gateway: tuple[IPNetwork, ...]) -> Iterator[NodeRoute]:
    for family, everywhere in _EVERYWHERE.items():
        hop = next((a.ip for a in gateway if a.version == family), None)
        if hop is not None:
            yield NodeRoute(everywhere, hop, "lan")


def _hosts(network: Network, spec: LabSpec) -> dict[str, HostSpec]:
    """Return the hosts of a network: the one it always has, and the lab file's, which may redefine it."""
    key = f"{network.site}.{network.name}"
    return {default_host(network.site, network.name): HostSpec(network=key)} | _said_hosts(key, spec)


def _said_hosts(key: str, spec: LabSpec) -> dict[str, HostSpec]:
    return {name: host for name, host in spec.hosts.items() if host.network == key}


def _host_addresses(
    hosts: dict[str, HostSpec], network: Network, taken: set[IPAddress]
) -> Iterator[tuple[str, tuple[IPNetwork, ...]]]:
    """Yield each host with an address in each prefix: the one said, or the first free from the tenth on."""
    said = {name: [IPAddress(str(a)) for a in host.address] for name, host in hosts.items()}
    taken = taken.union(*said.values())
    for name, wanted in said.items():
        addresses = []
        for prefix in network.prefixes:
            address = next((a for a in wanted if a in prefix), None)
            if address is None:
                address = _free(prefix, _HOST_NUMBER[prefix.version], taken)
            taken.add(address)
            addresses.append(_with_length(address, prefix.prefixlen))
        yield name, tuple(addresses)


# ------------------------------------------------------------------------------------------------- arithmetic


def _nth(prefix: IPNetwork, number: int) -> IPAddress:
    return IPAddress(prefix.first + number, prefix.version)


def _last(prefix: IPNetwork) -> int:
    """Return the number of a prefix's last address that a host can have, 0 when there is none."""
    return max(0, int(prefix.size) - (2 if prefix.version == 4 else 1))


def _free(prefix: IPNetwork, first: int, taken: set[IPAddress]) -> IPAddress:
    """Return the first address of a prefix, from number ``first`` on and then from 1, that is not taken."""
    numbers = chain(range(first, _last(prefix) + 1), range(1, first))
    return next(
        address for number in numbers if (address := _nth(prefix, number)) not in taken and address in prefix
    )


def _with_length(address: IPAddress, length: int) -> IPNetwork:
    return IPNetwork(f"{address}/{length}")


# ------------------------------------------------------------------------------------------------------ nodes


def _nodes(topology: Topology, spec: LabSpec, boxes: tuple[Box, ...], plugs: list[_Plug]) -> Iterator[Node]:
    """Yield the nodes with their plugs: the internet, NAT boxes, gateways, hosts; each by name."""
    yield _node(INTERNET, Role.INTERNET, plugs)
    for box in boxes:
        to = next(iter(_inside_addresses(box).values())) if box.forwards else None
        yield replace(_node(box.name, Role.NAT, plugs), nat=NatBox(box.inside, to))
    for gateway in topology.gateways():
        own = spec.gateways.get(gateway.name, GatewaySpec())
        yield replace(
            _node(gateway.name, Role.GATEWAY, plugs),
            site=gateway.site,
            data_path=gateway.data_path,
            managed=gateway.managed,
            files=tuple(sorted(own.files.items())),
            release=own.release,
            init=own.init,
        )
    hosts = [(name, network) for _, network in _networks(topology) for name in _hosts(network, spec)]
    for name, network in sorted(hosts, key=lambda host: host[0]):
        yield replace(_node(name, Role.HOST, plugs), site=network.site, network=network.name)


def _node(name: str, role: Role, plugs: list[_Plug]) -> Node:
    own = [plug for plug in plugs if plug.node == name]
    interfaces = tuple(Interface(p.interface, p.link.name, p.addresses, p.link.mtu) for p in own)
    routes = tuple(route for plug in own for route in plug.routes)
    return Node(name, role, interfaces, routes)
