"""`spokes events`: lists, follows, exports and verifies the audit records."""

from __future__ import annotations

import sys
import time

import click

from spokes.admin.resources import events as event_calls
from spokes.admin.schema.events import event_object
from spokes.cli.admin_shell import moment, plain, reading, say, verb
from spokes.cli.server_options import Settings, print_json
from spokes.cli.table import print_table
from spokes.errors import StoreError
from spokes.ids import ZERO_UID
from spokes.store import AdminEvent, Store

FOLLOW_INTERVAL_S = 1.0
BATCH_COUNT = 1_000


@click.group(epilog="Example: spokes events list --action user --limit 20")
def events() -> None:
    """Admin events: who did what, when and from where, as a chain that shows what was changed or taken out."""


@events.command("list", epilog="Example: spokes events list --action tunnel.shutdown --follow")
@click.option("--action", metavar="WORD", help="Whole (user.create), or up to its dot (user).")
@click.option("--actor", "principal", metavar="ID", help="Done by this key or person.")
@click.option("--object", "object_uid", metavar="ID", help="Done to this tunnel, user, key …")
@click.option("--limit", type=click.IntRange(1, BATCH_COUNT), default=100, show_default=True, help="How many.")
@click.option("--before", type=click.IntRange(0), metavar="N", help="Only those before this number.")
@click.option("--follow", is_flag=True, help="Oldest first, then wait for more; with --json one object a line.")
@verb
def list_events(
    settings: Settings, action: str | None, principal: str | None, object_uid: str | None, limit: int,
    before: int | None, follow: bool, as_json: bool,
) -> None:
    """List events, newest first; what was before and after with --json."""
    if follow and before is not None:
        raise click.UsageError("--follow and --before do not go together")
    with reading(settings) as shell:
        chosen = _Chosen(shell.store, principal, object_uid, action)
        found = chosen.newest(limit, before)
        if follow:
            _follow(chosen, found, as_json=as_json)
    if as_json:
        print_json({"events": [plain(event_object(event)) for event in found]})
    else:
        print_table(["No.", "Time", "Who", "From", "Action", "What", "Changed"], [_cells(event) for event in found])


@events.command("export", epilog="Example: spokes events export > events.jsonl")
@click.option("--format", "form", type=click.Choice(("jsonl", "csv")), default="jsonl", show_default=True)
@verb
def export(settings: Settings, form: str, as_json: bool) -> None:
    """Write all events to standard output, oldest first; JSON Lines carry the hashes that verify them."""
    with reading(settings) as shell:
        call = event_calls.export_csv if form == "csv" and not as_json else event_calls.export_json_lines
        for chunk in call(shell.admin, shell.caller, None).chunks or ():
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


@events.command("verify", epilog="Example: spokes events verify && echo whole")
@verb
def verify(settings: Settings, as_json: bool) -> int:
    """Check that no event is missing or was changed; exit code 1 if one is."""
    with reading(settings) as shell:
        broken = shell.store.audit.verify()
    if as_json:
        print_json({"whole": broken is None, "brokenAt": broken or 0})
        return 0 if broken is None else 1
    if broken is not None:
        raise StoreError(f"event {broken} is missing or is not as it was written", hint="compare with an older export")
    say("All events are there, as they were written")
    return 0


class _Chosen:
    """The events that the options name."""

    def __init__(self, store: Store, principal: str | None, object_uid: str | None, action: str | None) -> None:
        self._store = store
        self._principal = principal and principal.lower()
        self._object_uid = object_uid and object_uid.lower()
        self._action = action

    def newest(self, limit: int, before: int | None = None) -> list[AdminEvent]:
        return self._store.audit.select(
            before_seq=before, limit=limit, principal_uid=self._principal, object_uid=self._object_uid,
            action=self._action,
        )

    def after(self, seq: int) -> list[AdminEvent]:
        """Oldest first."""
        found: list[AdminEvent] = []
        batch = self.newest(BATCH_COUNT)
        while batch and batch[-1].seq > seq:
            found += batch
            batch = self.newest(BATCH_COUNT, batch[-1].seq)
        return [event for event in reversed(found + batch) if event.seq > seq]


def _follow(chosen: _Chosen, found: list[AdminEvent], *, as_json: bool) -> None:
    """Until interrupted."""
    seq = found[0].seq if found else 0
    events = found[::-1]
    while True:
        for event in events:
            if as_json:
                print_json(plain(event_object(event)))
            else:
                say("  ".join(cell for cell in _cells(event) if cell))
            seq = event.seq
        sys.stdout.flush()
        time.sleep(FOLLOW_INTERVAL_S)
        events = chosen.after(seq)


def _cells(event: AdminEvent) -> list[str]:
    """One event for people: values stay in --json, here are the names of what changed."""
    # Of what came or went whole, that it did is said by the action.
    changed = sorted({*event.before, *event.after}) if event.before and event.after else []
    return [
        str(event.seq), moment(event.time), f"{event.actor_kind} {event.actor_name or event.actor_uid}", event.address,
        event.action, event.object_uid if event.object_uid != ZERO_UID else event.object_kind, ", ".join(changed),
    ]
