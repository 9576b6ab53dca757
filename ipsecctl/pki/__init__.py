"""A small private CA: a root and the CA that issues, for the certificates that a topology's gateways show."""
