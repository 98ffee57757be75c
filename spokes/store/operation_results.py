"""Results of operations that other nodes sent, by the name of their idempotency key, for as long as one is sent again.

Results are opaque here: who performs operations encrypts them.
Bound: RESULT_COUNT_MAX rows and RESULTS_BYTES_MAX, the oldest go first; each for RESULT_LIFETIME_S.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

import peewee

from spokes.store.base import View
from spokes.store.changes import Writer
from spokes.store.models_admin import OperationResultModel as Model
from spokes.store.statement import Statement

RESULT_LIFETIME_S = 900.0                # longer than anybody tries one call again
RESULT_COUNT_MAX = 10_000
RESULTS_BYTES_MAX = 64 * 1024 * 1024

_FIND = Statement(
    lambda name: Model.select(Model.digest, Model.epoch, Model.seq, Model.result).where(Model.name == name)
)
_PUT = Statement(
    lambda name, digest, epoch, seq, result, size, created: Model.insert(
        name=name, digest=digest, epoch=epoch, seq=seq, result=result, size=size, created=created
    )
)
_DROP_OLD = Statement(lambda created: Model.delete().where(Model.created < created))
_SUMS = Statement(lambda: Model.select(peewee.fn.COUNT(Model.name), peewee.fn.SUM(Model.size)))
_OLDEST = Statement(lambda: Model.select(Model.name, Model.size).order_by(Model.created, Model.name))


class StoredResult(NamedTuple):
    digest: str                          # of the operation and its principal
    epoch: int                           # the position after the commit
    seq: int
    result: bytes


class OperationResults:
    @staticmethod
    def find(view: View, name: str) -> StoredResult | None:
        for digest, epoch, seq, result in view.rows(_FIND(name)):
            return StoredResult(digest, epoch, seq, base64.b64decode(result))
        return None

    @staticmethod
    def put(tx: Writer, name: str, stored: StoredResult) -> None:
        """Keep a result, and let go of those that are old or too many."""
        tx.unlogged(_DROP_OLD(tx.now - RESULT_LIFETIME_S))
        text = base64.b64encode(stored.result).decode()
        tx.unlogged(_PUT(name, stored.digest, stored.epoch, stored.seq, text, len(text), tx.now))
        ((count, size_bytes),) = tx.rows(_SUMS())
        if count <= RESULT_COUNT_MAX and size_bytes <= RESULTS_BYTES_MAX:
            return
        for oldest, size in tx.rows(_OLDEST()):
            if oldest == name or (count <= RESULT_COUNT_MAX and size_bytes <= RESULTS_BYTES_MAX):
                break
            tx.unlogged(Model.delete().where(Model.name == oldest))
            count, size_bytes = count - 1, size_bytes - size
