"""``python -m ipsecctl``."""

from ipsecctl.cli import main

main()
