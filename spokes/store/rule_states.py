"""Where the rules of each tunnel stand: their revision, and whether the client takes rules from here.

The revision is the `seq` of the change that last touched one of a tunnel's rules, deletions too; Writer.flush keeps it.
A client that announces its rules names the revision it started from, so that a change made here meanwhile is never
overwritten by a list that does not know of it.
"""

from __future__ import annotations

from spokes.ids import is_uid
from spokes.store.base import View
from spokes.store.changes import Writer
from spokes.store.db import Database
from spokes.store.models import JsonText, RuleStateModel
from spokes.store.rows import RuleSet
from spokes.store.statement import Statement

_JSON = JsonText()

_FIND = Statement(
    lambda tunnel_uid: RuleStateModel.select(RuleStateModel.rev, RuleStateModel.unmanaged).where(
        RuleStateModel.tunnel_uid == tunnel_uid
    )
)

# One statement, so that the revision belongs to the rules beside it whatever is written at this moment.
_READ_RULES = """
SELECT 0, rev, CASE WHEN unmanaged THEN 'unmanaged' ELSE '' END, '' FROM rule_state WHERE tunnel_uid = {}
UNION ALL SELECT 1, 0, domain, rule FROM site WHERE tunnel_uid = {}
UNION ALL SELECT 2, port, '', rule FROM port WHERE tunnel_uid = {}
UNION ALL SELECT 3, listen_port, transport, rule FROM portmap WHERE tunnel_uid = {}
"""
_COUNT_RULE_BYTES = """
SELECT COALESCE(SUM(LENGTH(rule)), 0) FROM (
    SELECT rule FROM site WHERE tunnel_uid = {} UNION ALL SELECT rule FROM port WHERE tunnel_uid = {}
    UNION ALL SELECT rule FROM portmap WHERE tunnel_uid = {}) AS rules
"""


class RuleStates:
    def __init__(self, db: Database) -> None:
        self._db = db

    def read(self, tunnel_uid: str) -> RuleSet:
        """Everything the tunnel serves by what is stored; empty for an unknown one."""
        if not is_uid(tunnel_uid):
            return RuleSet()
        rows = self._db.alone(lambda: self._db.query(_READ_RULES, (tunnel_uid,) * 4))
        state, *lists = ([row for row in sorted(rows) if row[0] == part] for part in range(4))
        sites, ports, portmaps = (tuple(_JSON.python_value(rule) for *_, rule in part) for part in lists)
        return RuleSet(
            rev=state[0][1] if state else 0,
            unmanaged=bool(state and state[0][2]),
            sites=sites, ports=ports, portmaps=portmaps,
        )

    def state(self, tunnel_uid: str, view: View | None = None) -> tuple[int, bool]:
        """(revision, whether the client was last seen refusing rules from here)."""
        for rev, unmanaged in (view or self._db).rows(_FIND(tunnel_uid)):
            return rev, bool(unmanaged)
        return 0, False

    def note_unmanaged(self, tx: Writer, tunnel_uid: str, unmanaged: bool) -> None:
        """Unlogged: what a node saw of a client is no configuration."""
        if self.state(tunnel_uid, tx)[1] != unmanaged:
            tx.unlogged(RuleStateModel.insert(tunnel_uid=tunnel_uid, unmanaged=unmanaged).on_conflict(
                conflict_target=[RuleStateModel.tunnel_uid], preserve=[RuleStateModel.unmanaged]
            ))

    def count_bytes(self, tunnel_uid: str) -> int:
        """Of all rules of a tunnel as they are stored. Called inside a transaction, behind its writes."""
        ((size_bytes,),) = self._db.query(_COUNT_RULE_BYTES, (tunnel_uid,) * 3)
        return int(size_bytes)
