"""Templates lay out and nothing else: each value passes a filter that quotes it or refuses."""

from __future__ import annotations

import pytest
from jinja2 import nodes

from ipsecctl.render.files import template_environment
from ipsecctl.render.quoting import FILTERS

TEMPLATES = sorted(template_environment().list_templates(extensions=["j2"]))


def test_there_is_one_template_for_each_file():
    assert TEMPLATES == [
        "call.sh.j2",
        "firewall.nft.j2",
        "guard.service.j2",
        "guard.sh.j2",
        "interfaces.j2",
        "network-manager.conf.j2",
        "networkd.conf.j2",
        "networkd.network.j2",
        "routes.j2",
        "strongswan.conf.j2",
        "strongswan.service.j2",
        "swanctl-secrets.conf.j2",
        "swanctl.conf.j2",
        "sysctl.conf.j2",
    ]


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_value_is_written_without_a_filter_of_ours(name):
    environment = template_environment()
    assert environment.loader is not None
    tree = environment.parse(environment.loader.get_source(environment, name)[0])
    written = [
        node
        for output in tree.find_all(nodes.Output)
        for node in output.nodes
        if not isinstance(node, nodes.TemplateData)
    ]
    assert written
    for node in written:
        assert isinstance(node, nodes.Filter) and node.name in FILTERS, f"{name}:{node.lineno}"
