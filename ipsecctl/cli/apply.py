"""``ipsecctl apply``: make the gateways what the topology says, and wait for the tunnels."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._fleet import (
    Bar,
    BatchOption,
    CanaryOption,
    Fleet,
    LimitOption,
    MaxFailOption,
    RetryOption,
    batch_lines,
    fleet_of,
    half_line,
    result_rows,
    wants_table,
)
from ipsecctl.cli._plan import held_hint, restart_notice
from ipsecctl.cli._safety import AllowOption
from ipsecctl.cli._store import StoreOption
from ipsecctl.cli._undo import (
    BreakLockOption,
    ConfirmOption,
    LabOption,
    LockWaitOption,
    MessageOption,
    UndoOption,
    WaitOption,
    YesOption,
    net_of,
    waiting_json,
    waiting_lines,
)
from ipsecctl.cli._view import paint, print_json, say
from ipsecctl.patience import PATIENCE

if TYPE_CHECKING:
    from ipsecctl.deploy.fleet import Rollout
    from ipsecctl.deploy.outcome import Applied, GatewayResult
    from ipsecctl.deploy.prepare import Prepared
    from ipsecctl.deploy.tunnels import TunnelResult
    from ipsecctl.deploy.undo import Net
    from ipsecctl.plan import Batch, SavedPlan
    from ipsecctl.topology import Topology

__all__ = ["Work", "app", "show_outcome"]

app = command_app()


_NOTHING_YET = "Interrupted before anything was changed."


@app.command()
def apply(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="Topology file, or a plan that 'plan --out' saved.", metavar="FILE")
    ],
    lab: LabOption = None,
    wait: WaitOption = 30.0 * PATIENCE,
    yes: YesOption = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="This topology replaces another one on its gateways.")
    ] = False,
    allow: AllowOption = None,
    limit: LimitOption = None,
    canary: CanaryOption = None,
    batch: BatchOption = None,
    max_fail: MaxFailOption = None,
    retry_failed: RetryOption = False,
    confirm: ConfirmOption = None,
    undo_on_failure: UndoOption = False,
    message: MessageOption = "",
    lock_wait: LockWaitOption = 0.0,
    break_lock: BreakLockOption = False,
    store: StoreOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Make the gateways what the topology says, side by side, then bring the tunnels up.

    Only what changes is touched, and only what ipsecctl made itself. The plan is shown and confirmed first;
    where there is no terminal to ask on (a pipe, cron, CI), changes need --yes, and without it nothing is
    done. A gateway that fails does not stop the others.

    A plan that removes or disturbs more than 10 % of the tunnels that are there (IPSECCTL_SAFETY_LIMIT) and
    more than one, or removes the last tunnel of a site, is held back until --allow says that it is meant;
    --yes does not. A saved plan is carried out without asking; if anything that it was made of has changed
    since (topology, secrets, gateways), nothing is done.

    A fleet is changed side by side; with --canary or --batch in batches. What a batch has touched must be
    well before the next one begins: no gateway has failed, and all tunnels are up that were up before, or are
    new. Otherwise it goes back by itself, and no further one is begun. --max-fail lets so many gateways fail
    before that. A tunnel whose other end is not in --limit goes on as it was until that is changed, too.

    With --confirm each gateway goes back to what it was, by a timer of its own, unless 'ipsecctl confirm'
    comes in time: also when the change has cut you off from it.

    Two people cannot apply to one gateway at a time: who comes second is told who is at work and since when.
    Who, when, what and how it went is in 'ipsecctl history'.

    Exit status: 0 all done and every tunnel up, 1 not so or not confirmed, 2 wrong usage or --yes missing.
    A change that the far end refuses is not done: the tunnel is "kept" up on the SAs that it had, and the
    status is 1, while that of 'ipsecctl status', which tells of tunnels alone, is 0 with a note.
    That an apply still waits for 'ipsecctl confirm' is no failure.

    \b
    Examples:
      ipsecctl apply clinics.yaml
      ipsecctl apply topologies/clinic-dc.yaml --lab clinic-dc --wait 60 --yes
      ipsecctl plan clinics.yaml --out monday.plan && ipsecctl apply monday.plan
      ipsecctl apply clinics.yaml --allow clinics-clinic-c --allow disturb
      ipsecctl apply clinics.yaml --confirm 5m
      ipsecctl apply clinics.yaml --canary clinic-a --batch 10%
      ipsecctl apply clinics.yaml --limit 'clinic-*' --limit dc
      ipsecctl apply clinics.yaml --retry-failed
      ipsecctl apply clinics.yaml --message "CHG-4711: new PACS network" --lock-wait 120
    """
    from ipsecctl.cli._interrupt import one_loop, telling

    net = net_of(confirm, undo_on_failure)
    fleet = fleet_of(limit, canary, batch, max_fail, retry_failed)
    with telling(lambda: _NOTHING_YET), one_loop():
        from ipsecctl.cli._load import errors_as_json, load_with_text
        from ipsecctl.cli._saved import plan_in, topology_of

        with errors_as_json(file, wanted=json):
            saved = plan_in(file)
            if saved is not None:
                if lab is not None or take_over or allow or limit or retry_failed:
                    ctx.fail(
                        "with a saved plan, --lab, --take-over, --allow and --limit are as when it was saved."
                    )
                file, lab, take_over = topology_of(saved, file), saved.lab or None, saved.take_over
                allow, fleet = list(saved.allowed), replace(fleet, limit=saved.limit)
        topology, text = load_with_text(file, json=json)
        with errors_as_json(file, wanted=json):
            work = Work(
                topology,
                text,
                file,
                lab,
                wait,
                yes,
                take_over,
                message,
                lock_wait,
                break_lock,
                net,
                allow=tuple(allow or ()),
                saved=saved,
                fleet=fleet,
            )
            applied = work.carry_out(ctx, store=store, json=json)
    show_outcome(applied, file, lab, json=json, fleet=fleet)


@dataclass(frozen=True, slots=True)
class Work:
    """A topology that is to be applied, and how.

    ``rollback_of`` is the revision that its text is of. ``allow`` lets through what the safety stop would
    hold back. With a ``saved`` plan just that is carried out, and nobody is asked.
    """

    topology: Topology
    text: str
    file: Path
    lab: str | None
    wait_s: float
    yes: bool
    take_over: bool
    message: str
    lock_wait_s: float
    break_lock: bool
    net: Net | None
    rollback_of: int | None = None
    allow: tuple[str, ...] = ()
    saved: SavedPlan | None = None
    fleet: Fleet = field(default_factory=Fleet)

    def carry_out(self, ctx: typer.Context, *, store: str | None, json: bool) -> Applied:
        """Lock, plan, ask, apply; every step is in the history. Raises as these do."""
        from ipsecctl.cli._interrupt import run
        from ipsecctl.cli._load import base_dir, lab_called
        from ipsecctl.cli._safety import safety_of
        from ipsecctl.cli._saved import made_now
        from ipsecctl.cli._store import failed_last, locked
        from ipsecctl.deploy import apply as service
        from ipsecctl.deploy import journal
        from ipsecctl.deploy.prepare import prepare
        from ipsecctl.deploy.saving import demand_fresh

        topology, lab = self.topology, lab_called(self.lab)
        limit = self.fleet.gateways(topology, lambda: failed_last(topology, store, lab))
        rollout = self.fleet.rollout(topology, limit)
        holding = locked(
            topology, store=store, lab=lab, break_lock=self.break_lock, lock_wait_s=self.lock_wait_s
        )
        with holding as session:
            looking = prepare(
                topology,
                base_dir(topology),
                lab=lab,
                take_over=self.take_over,
                safety=safety_of(list(self.allow)),
                limit=limit,
            )
            prepared = run(session.guard(looking), lambda: _NOTHING_YET)
            if self.saved is not None:
                now = made_now(prepared, self.text, self.file, like=self.saved)
                demand_fresh(self.saved, now)
            _confirm(prepared, ctx, yes=self.yes, reviewed=self.saved is not None, rollout=rollout)
            revision = journal.new_revision(
                prepared,
                file=str(self.file) if str(self.file) == "-" else str(self.file.absolute()),
                text=self.text,
                message=self.fleet.noted(self.message, limit),
                lab=lab,
                rollback_of=self.rollback_of,
            )
            if journal.worth_recording(prepared, revision, session):
                session.begin(revision)
            screen = _Screen(
                len(prepared.tunnels),
                [plan.gateway for plan in prepared.plans],
                quiet=json,
                net=self.net,
                gated=rollout.gated,
                held=prepared.held,
            )
            reporter = service.Reporter(journal.both(screen.gateway, session), screen.tunnel, screen.batch)
            working = service.apply(
                prepared,
                reporter,
                wait_s=self.wait_s,
                break_locks=self.break_lock,
                net=self.net,
                rollout=rollout,
            )
            with screen:
                applied = run(session.guard(working), lambda: screen.interrupted(self.file))
            journal.end(session, applied)
        return applied


def show_outcome(
    applied: Applied, file: Path, lab: str | None, *, json: bool, fleet: Fleet | None = None
) -> None:
    """Print what an apply did, and end with status 1 where it did not succeed."""
    if json:
        print_json(_document(applied))
    else:
        fleet = fleet or Fleet()
        if wants_table(applied, fleet):
            for line in ("", *result_rows(applied.gateways, batches=fleet.said), ""):
                print(line)
        print(_summary(applied))
        if applied.waiting is not None:
            for line in waiting_lines(applied.waiting, file, lab):
                print(line)
    if not applied.succeeded or (applied.waiting is not None and applied.waiting.lost):
        raise typer.Exit(1)


def _confirm(
    prepared: Prepared,
    ctx: typer.Context,
    *,
    yes: bool,
    reviewed: bool = False,
    rollout: Rollout | None = None,
) -> None:
    """Show the plan to whoever can be asked, and have it confirmed; a plan without changes needs neither.

    A plan that was ``reviewed`` needs neither, too. Raises ``typer.Abort`` when the answer is no,
    ``SafetyStop`` for a plan that is held back, and ends with a usage error (status 2) when nobody can be
    asked and ``--yes`` was not said: a push never goes ahead by accident.
    """
    from ipsecctl.cli._plan import print_plan
    from ipsecctl.deploy.fleet import batches_of
    from ipsecctl.deploy.safety import refused

    asking = sys.stdin.isatty()
    held = bool(prepared.stops) and not any(plan.conflicts for plan in prepared.plans)
    sure = reviewed or (yes and not asking)
    if not any(plan.changes or plan.conflicts for plan in prepared.plans) or (sure and not held):
        return
    if not reviewed:
        print_plan(prepared.shown, {}, sys.stderr)
        for line in batch_lines(batches_of(prepared, rollout)) if rollout and rollout.gated else ():
            say(line)
    if held:
        raise refused(prepared.stops)
    if yes or any(plan.conflicts for plan in prepared.plans):
        return
    if not asking:
        ctx.fail("nothing was done: there is no terminal to ask on. Say --yes to do what is planned above.")
    if not typer.confirm("Do it?", default=False, err=True):
        raise typer.Abort


class _Screen:
    """Says what happens to each gateway and tunnel as it happens, above a progress bar on a terminal."""

    def __init__(
        self,
        tunnels: int,
        gateways: list[str],
        *,
        quiet: bool,
        net: Net | None = None,
        gated: bool = False,
        held: Collection[str] = (),
    ) -> None:
        self._net = net
        self._gated = gated
        self._held = held
        self._out = sys.stderr if quiet else sys.stdout
        self._waiting = self._tunnels = tunnels
        self._under_way = gateways
        self._gateways = len(gateways)
        self._bar = Bar(len(gateways), tunnels)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def gateway(self, result: GatewayResult) -> None:
        if result.name in self._under_way:
            self._under_way.remove(result.name)
        self._step()
        if not result.begun:
            return  # the table has it
        if result.rolled_back:
            self._line(
                f"{paint('back', 'yellow', self._out)}    {result.name}: its batch failed, it has gone back"
            )
        elif result.partly:
            self._line(
                f"{paint('partly', 'yellow', self._out)}  {result.error.summary if result.error else ''}"
            )
        elif result.error is not None:
            self._line(f"{paint('failed', 'red', self._out)}  {result.error.summary}", result.error.hint)
        elif result.changes:
            changes = f"{result.changes} change{'s' if result.changes != 1 else ''}"
            restarted = ", charon restarted," if result.restarted else ""
            done = f"{result.name}: {changes}{restarted} in {result.took_s:.1f} s"
            self._line(f"{paint('done', 'green', self._out)}    {done}")
        if result.restart_for and result.error is None:
            text, hint = restart_notice(result.name, result.restart_for, result.restart)
            self._line(f"{paint('restart', 'yellow', self._out)} {text}", hint)

    def tunnel(self, result: TunnelResult) -> None:
        self._waiting -= 1
        self._step()
        if result.up:
            how = f"up after {result.took_s:.1f} s" if result.acted else "is up"
            self._line(f"{paint('up', 'green', self._out)}      {result.name}: {how}")
            return
        verdict = "kept" if result.kept else str(result.health.verdict)
        gap = " " * max(1, 8 - len(verdict))
        causes = ("up, but " if result.kept else "") + "; ".join(result.health.causes)
        hint = held_hint(result.name) if result.name in self._held else ""
        self._line(f"{paint(verdict, 'red', self._out)}{gap}{result.name}: {causes}", hint)

    def batch(self, batch: Batch, count: int) -> None:
        what = "the canary" if batch.canary else f"batch {batch.number}"
        self._line(f"{paint('well', 'green', self._out)}    {what}, of {_counted(count, 'batch', 'batches')}")

    def interrupted(self, file: Path) -> str:
        """Return what is to be said when the work is cut short: how far it is, and what finishes it."""
        if self._under_way:
            going_on = f"while these were being changed: {', '.join(self._under_way)}"
        elif self._waiting:
            going_on = f"with every gateway done, while waiting for {_counted(self._waiting, 'tunnel')}"
        else:
            going_on = "with every gateway and every tunnel done, before the end of it was written down"
        self._bar.stop()
        if self._net is not None or self._gated:
            from ipsecctl.deploy.undo import Net

            within_s = (self._net or Net()).wait_s
            which = "that were changed" if self._net is not None else "of the batch at work"
            return f"Interrupted {going_on}. Gateways {which} go back by themselves within {within_s} s."
        return f"Interrupted {going_on}. The next 'ipsecctl apply {file}' does what is left."

    def _step(self) -> None:
        done = self._gateways - len(self._under_way)
        self._bar.step(gateways=done, tunnels=self._tunnels - self._waiting)

    def _line(self, text: str, hint: str = "") -> None:
        with self._bar.aside():
            print(text, file=self._out, flush=True)
            if hint:
                print(f"        {hint}", file=self._out, flush=True)


def _summary(applied: Applied) -> str:
    up, total = sum(tunnel.up for tunnel in applied.tunnels), len(applied.tunnels)
    kept = [tunnel.name for tunnel in applied.tunnels if tunnel.kept]
    tunnels = f"{up + len(kept)} of {_counted(total, 'tunnel')} up"
    failed = [gateway.name for gateway in applied.gateways if gateway.error is not None]
    count = len(applied.gateways)
    gateways = f"{_counted(count, 'gateway')} {'is' if count == 1 else 'are'}"
    half = f" Not changed, up on the SAs of before: {_some(kept)}." if kept else ""
    half += f" {line}" if (line := half_line(applied)) else ""
    if applied.stopped:
        return _stopped(applied) + half
    if applied.nothing_done:
        waiting = any(gateway.restart_for for gateway in applied.gateways)
        but = "once charon is restarted where it is said above, " if waiting else ""
        if not applied.succeeded:
            return f"{tunnels[0].upper()}{tunnels[1:]}, though {but}{gateways} as the topology says.{half}"
        return f"Nothing to do: {gateways} as the topology says, {but}{tunnels}.{half}"
    text = f"{tunnels if total else 'Done'} after {applied.took_s:.1f} s."
    others = "; the others are done" if len(failed) < count else ""
    return text + (f" Failed: {', '.join(failed)}{others}." if failed else "") + half


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _stopped(applied: Applied) -> str:
    """Return what is to be said of an apply that did not come to its last batch."""
    said = [f"Stopped: {applied.stopped}."]
    outcomes = {
        "applied": "Done",
        "partly": "Done in part",
        "rolled back": "Gone back",
        "not begun": "Not begun",
    }
    for outcome, words in outcomes.items():
        names = [gateway.name for gateway in applied.gateways if gateway.outcome == outcome]
        said += [f"{words}: {', '.join(names)}."] if names else []
    return " ".join(said)


def _counted(count: int, noun: str, many: str = "") -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {many or f'{noun}s'}"


def _document(applied: Applied) -> dict[str, Any]:
    return {
        "schema": "ipsecctl/apply/1",
        "nothing_to_do": applied.nothing_done,
        "took_s": round(applied.took_s, 3),
        "gateways": [
            {
                "name": gateway.name,
                "batch": gateway.batch or None,
                "outcome": gateway.outcome,
                "changes": gateway.changes,
                "took_s": round(gateway.took_s, 3),
                "restart_for": list(gateway.restart_for),
                "restart": gateway.restart if gateway.restart_for else None,
                "restarted": gateway.restarted,
                "error": gateway.error.summary if gateway.error else None,
                "hint": gateway.error.hint if gateway.error else None,
            }
            for gateway in applied.gateways
        ],
        "tunnels": [
            {
                "name": tunnel.name,
                "verdict": str(tunnel.health.verdict),
                "causes": list(tunnel.health.causes),
                "acted": tunnel.acted,
                "kept": tunnel.kept,
                "held": tunnel.name in applied.held,
                "took_s": round(tunnel.took_s, 3),
            }
            for tunnel in applied.tunnels
        ],
        "stopped": applied.stopped or None,
        "half": {name: list(others) for name, others in applied.half.items()},
        "waiting": waiting_json(applied.waiting) if applied.waiting else None,
    }
