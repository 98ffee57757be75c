"""Which domains users have proved to be theirs, and what each has to show for it.

A proof is what was seen of the world outside: it is in no change log, and each check is one statement.
"""

from __future__ import annotations

import hashlib
import hmac

from spokes.store.base import Secrets, View
from spokes.store.changes import Writer
from spokes.store.db import Database
from spokes.store.models_admin import DomainProofModel
from spokes.store.rows_admin import DomainVerification
from spokes.store.statement import Statement

CHALLENGE_CHARS = 40

_DELETE_OF_USER = Statement(lambda uid: DomainProofModel.delete().where(DomainProofModel.user_uid == uid))


class DomainVerifications:
    def __init__(self, db: Database, secrets: Secrets) -> None:
        self._db = db
        self._secrets = secrets

    def challenge(self, user_uid: str, domain: str) -> str:
        """The value of the TXT record: the same at each call, and nobody can work it out for another user."""
        text = f"domain proof {user_uid} {domain}".encode()
        return hmac.new(self._secrets.key, text, hashlib.sha256).hexdigest()[:CHALLENGE_CHARS]

    def find(self, view: View, user_uid: str, domain: str) -> DomainVerification | None:
        query = DomainProofModel.select().where(
            DomainProofModel.user_uid == user_uid, DomainProofModel.domain == domain
        )
        return next((DomainVerification(**row) for row in view.read(query.dicts())), None)

    def put(self, tx: Writer, proof: DomainVerification) -> None:
        """In place of what was known of this domain."""
        row = {name: getattr(proof, name) for name in DomainVerification.__slots__}
        tx.unlogged(DomainProofModel.insert(**row).on_conflict(
            conflict_target=[DomainProofModel.user_uid, DomainProofModel.domain],
            preserve=[DomainProofModel.proved, DomainProofModel.checked, DomainProofModel.failures],
        ))

    def delete_of_user(self, tx: Writer, user_uid: str) -> None:
        tx.unlogged(_DELETE_OF_USER(user_uid))

    def select(self, user_uid: str | None = None) -> list[DomainVerification]:
        """Everything that was checked, by domain; a user's only, or everybody's."""
        query = DomainProofModel.select().order_by(DomainProofModel.domain, DomainProofModel.user_uid)
        if user_uid is not None:
            query = query.where(DomainProofModel.user_uid == user_uid)
        return [DomainVerification(**row) for row in self._db.read(query.dicts())]

    @staticmethod
    def proved(view: View, user_uid: str) -> set[str]:
        query = DomainProofModel.select(DomainProofModel.domain).where(
            DomainProofModel.user_uid == user_uid, DomainProofModel.proved > 0
        )
        return {row["domain"] for row in view.read(query.dicts())}
