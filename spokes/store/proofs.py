"""Which domains users have proved to be theirs, and what each has to show for it.

A proof is what was seen of the world outside: it is in no change log, and each check is one statement.
"""

from __future__ import annotations

import hashlib
import hmac

from spokes.store.base import Read, Secrets
from spokes.store.changes import ChangeLog, Writer
from spokes.store.db import Database
from spokes.store.models_admin import DomainProofModel
from spokes.store.rows_admin import DomainProof

CHALLENGE_CHARS = 40
LOST_AFTER_COUNT = 3                     # checks in a row that found no record


class Proofs:
    def __init__(self, db: Database, changes: ChangeLog, secrets: Secrets) -> None:
        self._db = db
        self._changes = changes
        self._secrets = secrets
        # Whether users whose domains are checked may serve only what they have proved; set once by who opens the store.
        self.required = False

    def challenge(self, user_uid: str, domain: str) -> str:
        """The value of the TXT record: the same at each call, and nobody can work it out for another user."""
        text = f"domain proof {user_uid} {domain}".encode()
        return hmac.new(self._secrets.key, text, hashlib.sha256).hexdigest()[:CHALLENGE_CHARS]

    def note_check(self, user_uid: str, domain: str, *, seen: bool) -> DomainProof:
        """What a check found. A proof is lost when LOST_AFTER_COUNT checks in a row found none."""
        with self._changes.transaction() as tx:
            return self._note_check(tx, user_uid, domain, seen=seen)

    def _note_check(self, tx: Writer, user_uid: str, domain: str, *, seen: bool) -> DomainProof:
        now, old = tx.now, self._find_proof(tx.read, user_uid, domain)
        proved = old.proved if old else 0.0
        failures = 0 if seen else (old.failures if old else 0) + 1
        if seen:
            proved = proved or now
        elif failures >= LOST_AFTER_COUNT:
            proved = 0.0
        proof = DomainProof(user_uid=user_uid, domain=domain, proved=proved, checked=now, failures=failures)
        row = {name: getattr(proof, name) for name in DomainProof.__slots__}
        query = DomainProofModel.insert(**row).on_conflict(
            conflict_target=[DomainProofModel.user_uid, DomainProofModel.domain],
            preserve=[DomainProofModel.proved, DomainProofModel.checked, DomainProofModel.failures],
        )
        tx.unlogged(query)
        return proof

    def select(self, user_uid: str | None = None) -> list[DomainProof]:
        """Everything that was checked, by domain; a user's only, or everybody's."""
        query = DomainProofModel.select().order_by(DomainProofModel.domain, DomainProofModel.user_uid)
        if user_uid is not None:
            query = query.where(DomainProofModel.user_uid == user_uid)
        return [DomainProof(**row) for row in self._db.read(query.dicts())]

    @staticmethod
    def proved(read: Read, user_uid: str) -> set[str]:
        query = DomainProofModel.select(DomainProofModel.domain).where(
            DomainProofModel.user_uid == user_uid, DomainProofModel.proved > 0
        )
        return {row["domain"] for row in read(query.dicts())}

    @staticmethod
    def _find_proof(read: Read, user_uid: str, domain: str) -> DomainProof | None:
        query = DomainProofModel.select().where(
            DomainProofModel.user_uid == user_uid, DomainProofModel.domain == domain
        )
        return next((DomainProof(**row) for row in read(query.dicts())), None)
