"""Numbered steps from an empty database to the present schema.

Bound: a released step is never edited; a change of the schema is a new step. Steps speak the SQL that SQLite and
PostgreSQL share and know no model, because models move on.
Fails: SchemaTooNewError for a database written by a later program.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spokes.errors import SchemaTooNewError, StoreError
from spokes.ids import new_uid
from spokes.password_hash import hash_of, is_own_hash
from spokes.store.db import Database

LOCK_ID = 0x53504F4B                     # PostgreSQL advisory lock: two programs that open one new database take turns
VERSION_KEY = "schema_version"


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    statements: tuple[str, ...]
    work: Callable[[Database], None] | None = None      # behind them; what SQL cannot do


def _seal_passwords(db: Database) -> None:
    """A client's list was once stored with its pages' passwords as they were typed: in the rule, and in its changes."""
    sealed: dict[str, str] = {}

    def seal(rule: dict[str, Any]) -> bool:
        changed = False
        for member in ("password", "basicHttpAuth"):
            text = rule.get(member)
            if isinstance(text, str) and text and not is_own_hash(text):
                rule[member] = sealed[text] = sealed.get(text) or hash_of(text)
                changed = True
        return changed

    like = ("%\"password\":%", "%\"basicHttpAuth\":%")
    for uid, text in db.query("SELECT uid, rule FROM site WHERE rule LIKE {} OR rule LIKE {}", like):
        if seal(rule := json.loads(text)):
            db.query("UPDATE site SET rule = {} WHERE uid = {}", (_canonical(rule), uid))
    for seq, text in db.query(
        "SELECT seq, body FROM change WHERE kind = 'site' AND (body LIKE {} OR body LIKE {})", like
    ):
        body = json.loads(text)
        if seal(body["rule"]):
            db.query("UPDATE change SET body = {} WHERE seq = {}", (_canonical(body), seq))


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _begin_history(db: Database) -> None:
    """The node gets an identity, its epoch an owner. Changes of API keys get the hash that belongs to the row now."""
    node_uid = new_uid()
    db.query("INSERT INTO meta (key, value) VALUES ('node.uid', {})", (node_uid,))
    db.query("UPDATE position SET owner = {}", (node_uid,))
    db.query("INSERT INTO epoch (number, owner, start, time) SELECT epoch, owner, 0, 0 FROM position")
    hashes = dict(db.query("SELECT uid, value_hash FROM api_key"))
    for seq, uid, text in db.query("SELECT seq, uid, body FROM change WHERE kind = 'api_key' AND body IS NOT NULL"):
        body = _canonical(json.loads(text) | {"value_hash": hashes.get(uid, uid)})
        db.query("UPDATE change SET body = {} WHERE seq = {}", (body, seq))


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, (
        """CREATE TABLE position (
            id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
            epoch BIGINT NOT NULL,
            seq BIGINT NOT NULL)""",
        "INSERT INTO position (id, epoch, seq) VALUES (1, 1, 0)",
        """CREATE TABLE change (
            seq BIGINT PRIMARY KEY NOT NULL,
            epoch BIGINT NOT NULL,
            kind TEXT NOT NULL,
            op TEXT NOT NULL CHECK (op IN ('put', 'del')),
            uid TEXT NOT NULL,
            rev BIGINT NOT NULL,
            body TEXT,
            time DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX change_kind_uid ON change (kind, uid)",
        """CREATE TABLE token (
            uid TEXT PRIMARY KEY NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            modified DOUBLE PRECISION NOT NULL,
            active BOOLEAN NOT NULL,
            description TEXT NOT NULL,
            value TEXT NOT NULL,
            value_hash TEXT NOT NULL UNIQUE,
            rev BIGINT NOT NULL)""",
        """CREATE TABLE tunnel (
            uid TEXT PRIMARY KEY NOT NULL,
            user_uid TEXT NOT NULL,
            token_uid TEXT NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            modified DOUBLE PRECISION NOT NULL,
            name TEXT NOT NULL,
            hostname TEXT NOT NULL,
            shutdown BOOLEAN NOT NULL,
            deleted_at DOUBLE PRECISION,
            rev BIGINT NOT NULL)""",
        "CREATE INDEX tunnel_user_uid ON tunnel (user_uid)",
        "CREATE INDEX tunnel_hostname ON tunnel (hostname)",
        "CREATE UNIQUE INDEX tunnel_hostname_live ON tunnel (hostname) WHERE deleted_at IS NULL",
        """CREATE TABLE auth_token (
            uid TEXT PRIMARY KEY NOT NULL,
            tunnel_uid TEXT NOT NULL UNIQUE REFERENCES tunnel (uid) ON DELETE CASCADE,
            created DOUBLE PRECISION NOT NULL,
            modified DOUBLE PRECISION NOT NULL,
            active BOOLEAN NOT NULL,
            value TEXT NOT NULL,
            value_hash TEXT NOT NULL UNIQUE,
            rev BIGINT NOT NULL)""",
        """CREATE TABLE presence (
            tunnel_uid TEXT PRIMARY KEY NOT NULL REFERENCES tunnel (uid) ON DELETE CASCADE,
            state SMALLINT NOT NULL CHECK (state IN (1, 2, 3)),
            last_active DOUBLE PRECISION NOT NULL,
            address TEXT NOT NULL,
            version TEXT NOT NULL,
            os TEXT NOT NULL,
            arch TEXT NOT NULL)""",
        """CREATE TABLE site (
            uid TEXT PRIMARY KEY NOT NULL,
            tunnel_uid TEXT NOT NULL REFERENCES tunnel (uid) ON DELETE CASCADE,
            domain TEXT NOT NULL UNIQUE,
            rule TEXT NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            modified DOUBLE PRECISION NOT NULL,
            rev BIGINT NOT NULL)""",
        "CREATE INDEX site_tunnel_uid ON site (tunnel_uid)",
        """CREATE TABLE port (
            uid TEXT PRIMARY KEY NOT NULL,
            tunnel_uid TEXT NOT NULL REFERENCES tunnel (uid) ON DELETE CASCADE,
            port INTEGER NOT NULL UNIQUE CHECK (port BETWEEN 1 AND 65535),
            rule TEXT NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            modified DOUBLE PRECISION NOT NULL,
            rev BIGINT NOT NULL)""",
        "CREATE INDEX port_tunnel_uid ON port (tunnel_uid)",
    )),
    Migration(2, (
        "ALTER TABLE token ADD COLUMN tunnel_count_max INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE token ADD COLUMN tunnels_per_hour_max INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX tunnel_token_uid_created ON tunnel (token_uid, created)",
    )),
    Migration(3, (
        """CREATE TABLE "user" (
            uid TEXT PRIMARY KEY NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            modified DOUBLE PRECISION NOT NULL,
            active BOOLEAN NOT NULL,
            role TEXT NOT NULL CHECK (role IN ('admin', 'basic')),
            fullname TEXT NOT NULL,
            email TEXT NOT NULL,
            email_key TEXT NOT NULL,
            phone TEXT NOT NULL,
            bandwidth_mb BIGINT NOT NULL,
            check_domains BOOLEAN NOT NULL,
            domains TEXT NOT NULL,
            check_ports BOOLEAN NOT NULL,
            max_ports INTEGER NOT NULL,
            max_tunnels INTEGER NOT NULL,
            password_hash TEXT NOT NULL,
            totp_secret TEXT NOT NULL,
            totp_step BIGINT NOT NULL,
            rev BIGINT NOT NULL)""",
        """CREATE UNIQUE INDEX user_email_key ON "user" (email_key) WHERE email_key <> ''""",
        """CREATE TABLE api_key (
            uid TEXT PRIMARY KEY NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            modified DOUBLE PRECISION NOT NULL,
            active BOOLEAN NOT NULL,
            description TEXT NOT NULL,
            prefix TEXT NOT NULL,
            scopes TEXT NOT NULL,
            user_uid TEXT NOT NULL,
            value_hash TEXT NOT NULL UNIQUE,
            rev BIGINT NOT NULL)""",
        "CREATE INDEX api_key_user_uid ON api_key (user_uid)",
        """CREATE TABLE api_key_use (
            api_key_uid TEXT PRIMARY KEY NOT NULL REFERENCES api_key (uid) ON DELETE CASCADE,
            last_used DOUBLE PRECISION NOT NULL,
            last_address TEXT NOT NULL)""",
        """CREATE TABLE webhook (
            uid TEXT PRIMARY KEY NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            modified DOUBLE PRECISION NOT NULL,
            active BOOLEAN NOT NULL,
            description TEXT NOT NULL,
            url TEXT NOT NULL,
            secret TEXT NOT NULL,
            kinds TEXT NOT NULL,
            user_uid TEXT NOT NULL,
            allow_private BOOLEAN NOT NULL,
            rev BIGINT NOT NULL)""",
        "CREATE INDEX webhook_user_uid ON webhook (user_uid)",
        """CREATE TABLE delivery (
            seq BIGINT PRIMARY KEY NOT NULL,
            uid TEXT NOT NULL UNIQUE,
            webhook_uid TEXT NOT NULL REFERENCES webhook (uid) ON DELETE CASCADE,
            kind TEXT NOT NULL,
            subject TEXT NOT NULL,
            body TEXT NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
            attempts INTEGER NOT NULL,
            next_attempt DOUBLE PRECISION NOT NULL,
            http_status INTEGER NOT NULL,
            error TEXT NOT NULL,
            finished DOUBLE PRECISION)""",
        "CREATE INDEX delivery_webhook_uid ON delivery (webhook_uid, seq)",
        "CREATE INDEX delivery_pending ON delivery (webhook_uid, subject, seq) WHERE state = 'pending'",
        "CREATE INDEX delivery_finished ON delivery (finished)",
        """CREATE TABLE login (
            uid TEXT PRIMARY KEY NOT NULL,
            cookie_hash TEXT NOT NULL UNIQUE,
            api_key_uid TEXT NOT NULL,
            user_uid TEXT NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            expires DOUBLE PRECISION NOT NULL,
            address TEXT NOT NULL,
            agent TEXT NOT NULL)""",
        "CREATE INDEX login_api_key_uid ON login (api_key_uid)",
        "CREATE INDEX login_user_uid ON login (user_uid)",
        "CREATE INDEX login_expires ON login (expires)",
        """CREATE TABLE login_failure (
            source TEXT PRIMARY KEY NOT NULL,
            failure_count INTEGER NOT NULL,
            last DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX login_failure_last ON login_failure (last)",
        """CREATE TABLE frozen_list (
            uid TEXT PRIMARY KEY NOT NULL,
            uids TEXT NOT NULL,
            handed_out DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX frozen_list_handed_out ON frozen_list (handed_out)",
        """CREATE TABLE admin_event (
            seq BIGINT PRIMARY KEY NOT NULL,
            time DOUBLE PRECISION NOT NULL,
            actor_kind TEXT NOT NULL,
            actor_uid TEXT NOT NULL,
            actor_name TEXT NOT NULL,
            address TEXT NOT NULL,
            action TEXT NOT NULL,
            object_kind TEXT NOT NULL,
            object_uid TEXT NOT NULL,
            before TEXT,
            after TEXT,
            previous_hash TEXT NOT NULL,
            hash TEXT NOT NULL)""",
        "CREATE INDEX admin_event_object_uid ON admin_event (object_uid, seq)",
        "CREATE INDEX admin_event_actor_uid ON admin_event (actor_uid, seq)",
        """CREATE TABLE alert (
            uid TEXT PRIMARY KEY NOT NULL,
            kind TEXT NOT NULL,
            subject TEXT NOT NULL,
            severity TEXT NOT NULL CHECK (severity IN ('warning', 'critical')),
            text TEXT NOT NULL,
            raised DOUBLE PRECISION NOT NULL,
            resolved DOUBLE PRECISION,
            acknowledged DOUBLE PRECISION)""",
        "CREATE UNIQUE INDEX alert_open ON alert (kind, subject) WHERE resolved IS NULL",
        "CREATE INDEX alert_raised ON alert (raised)",
        """CREATE TABLE traffic (
            period TEXT NOT NULL CHECK (period IN ('h', 'd', 'm')),
            start BIGINT NOT NULL,
            tunnel_uid TEXT NOT NULL,
            service_uid TEXT NOT NULL,
            bytes_in BIGINT NOT NULL,
            bytes_out BIGINT NOT NULL,
            conns BIGINT NOT NULL,
            PRIMARY KEY (period, start, tunnel_uid, service_uid))""",
        "CREATE INDEX traffic_tunnel_uid ON traffic (tunnel_uid, period, start)",
        """CREATE TABLE visit (
            uid TEXT PRIMARY KEY NOT NULL,
            tunnel_uid TEXT NOT NULL,
            service_uid TEXT NOT NULL,
            service SMALLINT NOT NULL CHECK (service IN (1, 2)),
            address TEXT NOT NULL,
            bytes_in BIGINT NOT NULL,
            bytes_out BIGINT NOT NULL,
            established DOUBLE PRECISION NOT NULL,
            closed DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX visit_closed ON visit (closed, uid)",
        "CREATE INDEX visit_tunnel_uid ON visit (tunnel_uid, closed, uid)",
        "CREATE INDEX tunnel_created ON tunnel (created)",
    )),
    Migration(4, (
        """CREATE TABLE portmap (
            uid TEXT PRIMARY KEY NOT NULL,
            tunnel_uid TEXT NOT NULL REFERENCES tunnel (uid) ON DELETE CASCADE,
            listen_port INTEGER NOT NULL CHECK (listen_port BETWEEN 1 AND 65535),
            transport TEXT NOT NULL CHECK (transport IN ('tcp', 'udp')),
            rule TEXT NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            modified DOUBLE PRECISION NOT NULL,
            rev BIGINT NOT NULL,
            UNIQUE (tunnel_uid, listen_port, transport))""",
        """CREATE TABLE rule_state (
            tunnel_uid TEXT PRIMARY KEY NOT NULL REFERENCES tunnel (uid) ON DELETE CASCADE,
            rev BIGINT NOT NULL,
            unmanaged BOOLEAN NOT NULL)""",
        """INSERT INTO rule_state (tunnel_uid, rev, unmanaged)
            SELECT tunnel_uid, MAX(rev), FALSE
            FROM (SELECT tunnel_uid, rev FROM site UNION ALL SELECT tunnel_uid, rev FROM port) AS rules
            GROUP BY tunnel_uid""",
    )),
    Migration(5, (
        """CREATE TABLE domain_proof (
            user_uid TEXT NOT NULL,
            domain TEXT NOT NULL,
            proved DOUBLE PRECISION NOT NULL,
            checked DOUBLE PRECISION NOT NULL,
            failures INTEGER NOT NULL,
            PRIMARY KEY (user_uid, domain))""",
    )),
    # The list of all tunnels is read from the first of these alone, their number from the second.
    Migration(6, (
        "CREATE INDEX tunnel_newest ON tunnel (created DESC, uid) WHERE deleted_at IS NULL",
        "CREATE INDEX tunnel_shutdown ON tunnel (shutdown) WHERE deleted_at IS NULL",
        "DROP INDEX tunnel_created",
        "DELETE FROM frozen_list",
        "ALTER TABLE frozen_list ADD COLUMN owner_uid TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX frozen_list_owner_uid ON frozen_list (owner_uid, handed_out)",
    )),
    Migration(7, (), _seal_passwords),
    Migration(8, (
        """CREATE TABLE former_hostname (
            hostname TEXT PRIMARY KEY NOT NULL,
            tunnel_uid TEXT NOT NULL,
            user_uid TEXT NOT NULL,
            token_uid TEXT NOT NULL,
            left_at DOUBLE PRECISION NOT NULL)""",
    )),
    Migration(9, (
        """CREATE TABLE operation_result (
            name TEXT PRIMARY KEY NOT NULL,
            digest TEXT NOT NULL,
            epoch BIGINT NOT NULL,
            seq BIGINT NOT NULL,
            result TEXT NOT NULL,
            size BIGINT NOT NULL,
            created DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX operation_result_created ON operation_result (created)",
    )),
    # The digest of the rows is computed when the store is opened (digests.py).
    Migration(10, (
        "ALTER TABLE position ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE position ADD COLUMN digest TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE position ADD COLUMN fenced BOOLEAN NOT NULL DEFAULT FALSE",
        "ALTER TABLE position ADD COLUMN highest_epoch BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE position ADD COLUMN highest_owner TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE position ADD COLUMN generation BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE change ADD COLUMN digest TEXT NOT NULL DEFAULT ''",
        """CREATE TABLE epoch (
            number BIGINT NOT NULL,
            owner TEXT NOT NULL,
            start BIGINT NOT NULL,
            time DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (number, owner))""",
        """CREATE TABLE tombstone (
            kind TEXT NOT NULL,
            uid TEXT NOT NULL,
            seq BIGINT NOT NULL,
            epoch BIGINT NOT NULL,
            time DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (kind, uid))""",
        "CREATE INDEX tombstone_seq ON tombstone (seq)",
        """CREATE TABLE quarantine (
            entry_uid TEXT PRIMARY KEY NOT NULL,
            seq BIGINT NOT NULL,
            epoch BIGINT NOT NULL,
            kind TEXT NOT NULL,
            op TEXT NOT NULL,
            uid TEXT NOT NULL,
            rev BIGINT NOT NULL,
            body TEXT,
            time DOUBLE PRECISION NOT NULL,
            set_aside DOUBLE PRECISION NOT NULL)""",
        """CREATE TABLE replica (
            uid TEXT PRIMARY KEY NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            modified DOUBLE PRECISION NOT NULL,
            hostname TEXT NOT NULL UNIQUE,
            active BOOLEAN NOT NULL,
            rev BIGINT NOT NULL)""",
        "UPDATE meta SET key = 'offset.' || SUBSTR(key, 6) WHERE SUBSTR(key, 1, 5) = 'mark.'",
    ), _begin_history),
)


def schema_version(db: Database) -> int:
    """Number of the last step applied; 0 for an empty database."""
    tables = db.tables()
    if "meta" not in tables:
        if {"change", "position", "tunnel"} & set(tables):
            raise StoreError(f"{db.where} holds another program's tables", hint="name a database of its own for Spokes")
        return 0
    rows = db.query("SELECT value FROM meta WHERE key = {}", (VERSION_KEY,))
    if not rows or not str(rows[0][0]).isdigit():
        raise StoreError(f"{db.where} has no schema version: it is no Spokes database or is damaged")
    return int(rows[0][0])


def check_version(found: int, db: Database, newest: int = MIGRATIONS[-1].version) -> None:
    """Raise for a schema that a later version made."""
    if found > newest:
        raise SchemaTooNewError(
            f"{db.where} has schema version {found}; this program knows up to {newest}",
            hint="start the version of Spokes that wrote it, or a later one",
        )


def migrate(db: Database, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Apply the missing steps, all or none; the version that stands afterwards."""
    newest = migrations[-1].version
    with db.exclusive(LOCK_ID):
        found = schema_version(db)
        check_version(found, db, newest)
        if found == 0:
            db.query("CREATE TABLE meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)")
            db.query("INSERT INTO meta (key, value) VALUES ({}, '0')", (VERSION_KEY,))
        for step in migrations:
            if step.version <= found:
                continue
            for statement in step.statements:
                db.query(statement)
            if step.work is not None:
                step.work(db)
            db.query("UPDATE meta SET value = {} WHERE key = {}", (str(step.version), VERSION_KEY))
    return newest
