"""``ipsecctl`` with one gateway that loads its connections late, for what calls it meanwhile.

    late.py GATEWAY second|after ARGUMENT...

``second``: a second later than it would. ``after``: it does not widen, and has its old connections until SAs
were moved, as if the order of the steps were not kept. Tunnels whose SAs came up narrow and are made anew are
told on stderr.
"""

import asyncio
import sys

from ipsecctl.__main__ import main
from ipsecctl.deploy import tunnels
from ipsecctl.deploy.carry import Carrier

GATEWAY, HOW = sys.argv[1:3]
load, move_all = Carrier._load, tunnels.move_all


async def load_late(self, client):
    if self.handle.name == GATEWAY and HOW == "second":
        await asyncio.sleep(1.0)
    elif self.handle.name == GATEWAY:
        self.held = dict.fromkeys(self.held)  # what charon has
    await load(self, client)


async def move_and_tell(watch, moving, load_one):
    moving = list(moving)
    for entry in moving:
        print("made anew:", entry.tunnel.name, file=sys.stderr)
    return await move_all(watch, moving, load_one)


Carrier._load, tunnels.move_all = load_late, move_and_tell
sys.argv = ["ipsecctl", *sys.argv[3:]]
if __name__ == "__main__":
    main()
