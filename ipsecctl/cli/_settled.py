"""What ``plan`` remembers of topologies whose gateways had nothing to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipsecctl.cli._view import print_diagnostics, print_json
from ipsecctl.store.cache import Cache, cache_dir

if TYPE_CHECKING:
    from ipsecctl.deploy.prepare import Prepared
    from ipsecctl.errors import Diagnostic
    from ipsecctl.plan import GatewayPlan

__all__ = ["Memory"]


class Memory:
    """What is known of a topology file with this content, for the gateways of ``lab`` where one is named."""

    def __init__(self, data: bytes, file: Path, lab: str | None) -> None:
        from ipsecctl.deploy.settled import key_of, program_signature

        self._file, self._lab = file, lab
        self._cache = Cache(cache_dir(os.environ))
        self._key = key_of(data, str(file), lab, program_signature())

    def still_settled(
        self, run: Callable[[Coroutine[Any, Any, Any], Callable[[], str]], Any], stopped: str
    ) -> tuple[GatewayPlan, ...] | None:
        """Return the plans of gateways that were asked just now and have nothing to do; ``None`` if that is
        not sure. What there is to say of the topology is then said to standard error."""
        from ipsecctl.deploy.settled import Settled, still_settled

        content = self._cache.read(self._key)
        settled = Settled.from_json(content) if content is not None else None
        if settled is None or settled.file != str(self._file):
            return None
        base = Path() if settled.file == "-" else Path(settled.file).parent
        plans: tuple[GatewayPlan, ...] | None = run(
            still_settled(settled, base, lab=self._lab), lambda: stopped
        )
        if plans is not None:
            print_diagnostics(settled.warnings, sys.stderr)
        return plans

    def shown(
        self,
        run: Callable[[Coroutine[Any, Any, Any], Callable[[], str]], Any],
        stopped: str,
        *,
        json: bool,
    ) -> bool:
        """Show that there is still nothing to do, and return whether that is so."""
        from ipsecctl.cli._plan import print_plan
        from ipsecctl.plan.change import plan_json

        plans = self.still_settled(run, stopped)
        if plans is None:
            return False
        if json:
            print_json(plan_json(plans, {}))
        else:
            print_plan(plans, {}, sys.stdout)
        return True

    def keep(self, prepared: Prepared, warnings: Iterable[Diagnostic]) -> None:
        """Remember plans, if there was nothing to do."""
        from ipsecctl.deploy.settled import settled_now

        settled = settled_now(prepared, warnings)
        if settled is not None:
            self._cache.write(self._key, settled.to_json())
