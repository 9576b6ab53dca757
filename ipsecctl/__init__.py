"""ipsecctl: one topology file in, proven site-to-site IPsec tunnels out."""

__version__ = "0.1.0"
