"""The tables of what is configured, as peewee sees them. migrations.py makes them; a test holds the two together.

Models are bound to no database: every query names the one it runs on (`query.execute(db)`), so that one process can
hold several stores. Large texts and JSON are TEXT; times are Unix seconds; UIDs are 32 hex digits.
"""

from __future__ import annotations

import json
from typing import Any

import peewee


class Real(peewee.DoubleField):
    """Unix seconds."""


class JsonText(peewee.TextField):
    """A JSON object as text in one canonical spelling, so that equal objects are equal texts (and digests)."""

    def db_value(self, value: Any) -> str | None:
        return None if value is None else canonical_json(value)

    def python_value(self, value: str | None) -> Any:
        return None if value is None else json.loads(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)     # made once: it is half the time


def canonical_json(value: Any) -> str:
    return _ENCODER.encode(value)


class TextTuple(JsonText):
    """A list of texts as JSON; a tuple in rows."""

    def python_value(self, value: str | None) -> Any:
        return () if value is None else tuple(json.loads(value))


class MetaModel(peewee.Model):
    """Facts about this database: schema version, secrets (by name). The epoch stands in `position`."""

    key = peewee.TextField(primary_key=True)
    value = peewee.TextField()

    class Meta:
        table_name = "meta"


class PositionModel(peewee.Model):
    """One row: where the change log stands (place.py). Locked by every writing transaction, first of all."""

    id = peewee.IntegerField(primary_key=True)
    epoch = peewee.BigIntegerField()
    seq = peewee.BigIntegerField()
    owner = peewee.TextField()
    digest = peewee.TextField()
    fenced = peewee.BooleanField()
    highest_epoch = peewee.BigIntegerField()
    highest_owner = peewee.TextField()
    generation = peewee.BigIntegerField()

    class Meta:
        table_name = "position"


class EpochModel(peewee.Model):
    """Who owned which epoch, and behind which change it began."""

    number = peewee.BigIntegerField()
    owner = peewee.TextField()
    start = peewee.BigIntegerField()
    time = Real()

    class Meta:
        table_name = "epoch"
        primary_key = peewee.CompositeKey("number", "owner")


class ChangeModel(peewee.Model):
    seq = peewee.BigIntegerField(primary_key=True)
    epoch = peewee.BigIntegerField()
    kind = peewee.TextField()
    op = peewee.TextField()
    uid = peewee.TextField()
    rev = peewee.BigIntegerField()
    body = JsonText(null=True)
    time = Real()
    digest = peewee.TextField()                              # behind this change; "" of those from before there was one

    class Meta:
        table_name = "change"


class TombstoneModel(peewee.Model):
    """An object that was deleted."""

    kind = peewee.TextField()
    uid = peewee.TextField()
    seq = peewee.BigIntegerField(index=True)
    epoch = peewee.BigIntegerField()
    time = Real()

    class Meta:
        table_name = "tombstone"
        primary_key = peewee.CompositeKey("kind", "uid")


class QuarantineModel(peewee.Model):
    """What this node committed as a master that was deposed already, and the cluster does not know."""

    entry_uid = peewee.TextField(primary_key=True)
    seq = peewee.BigIntegerField()
    epoch = peewee.BigIntegerField()
    kind = peewee.TextField()
    op = peewee.TextField()
    uid = peewee.TextField()
    rev = peewee.BigIntegerField()
    body = JsonText(null=True)
    time = Real()
    set_aside = Real()

    class Meta:
        table_name = "quarantine"


class ReplicaModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    created = Real()
    modified = Real()
    hostname = peewee.TextField(unique=True)
    active = peewee.BooleanField()
    rev = peewee.BigIntegerField()

    class Meta:
        table_name = "replica"


class TokenModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    created = Real()
    modified = Real()
    active = peewee.BooleanField()
    description = peewee.TextField()
    value = peewee.TextField()
    value_hash = peewee.TextField(unique=True)
    rev = peewee.BigIntegerField()
    tunnel_count_max = peewee.IntegerField()
    tunnels_per_hour_max = peewee.IntegerField()

    class Meta:
        table_name = "token"


class TunnelModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    user_uid = peewee.TextField(index=True)
    token_uid = peewee.TextField()
    created = Real()
    modified = Real()
    name = peewee.TextField()
    hostname = peewee.TextField(index=True)
    shutdown = peewee.BooleanField()
    deleted_at = Real(null=True)
    rev = peewee.BigIntegerField()

    class Meta:
        table_name = "tunnel"


class FormerHostnameModel(peewee.Model):
    """What a tunnel was called before it was renamed, and whose it was then; held for a while."""

    hostname = peewee.TextField(primary_key=True)
    tunnel_uid = peewee.TextField()
    user_uid = peewee.TextField()
    token_uid = peewee.TextField()
    left_at = Real()

    class Meta:
        table_name = "former_hostname"


class AuthTokenModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    tunnel_uid = peewee.TextField(unique=True)
    created = Real()
    modified = Real()
    active = peewee.BooleanField()
    value = peewee.TextField()
    value_hash = peewee.TextField(unique=True)
    rev = peewee.BigIntegerField()

    class Meta:
        table_name = "auth_token"


class PresenceModel(peewee.Model):
    """What was seen of a tunnel: apart from its row, so that beats never touch (or lock) what is replicated."""

    tunnel_uid = peewee.TextField(primary_key=True)
    state = peewee.SmallIntegerField()
    last_active = Real()
    address = peewee.TextField()
    version = peewee.TextField()
    os = peewee.TextField()
    arch = peewee.TextField()

    class Meta:
        table_name = "presence"


class SiteModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    tunnel_uid = peewee.TextField(index=True)
    domain = peewee.TextField(unique=True)
    rule = JsonText()
    created = Real()
    modified = Real()
    rev = peewee.BigIntegerField()

    class Meta:
        table_name = "site"


class PortModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    tunnel_uid = peewee.TextField(index=True)
    port = peewee.IntegerField(unique=True)
    rule = JsonText()
    created = Real()
    modified = Real()
    rev = peewee.BigIntegerField()

    class Meta:
        table_name = "port"


class PortMapModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    tunnel_uid = peewee.TextField()
    listen_port = peewee.IntegerField()
    transport = peewee.TextField()
    rule = JsonText()
    created = Real()
    modified = Real()
    rev = peewee.BigIntegerField()

    class Meta:
        table_name = "portmap"
        indexes = ((("tunnel_uid", "listen_port", "transport"), True),)


class RuleStateModel(peewee.Model):
    """Where the rules of a tunnel stand on this node: computed beside the rows, never replicated."""

    tunnel_uid = peewee.TextField(primary_key=True)
    rev = peewee.BigIntegerField(default=0)
    unmanaged = peewee.BooleanField(default=False)

    class Meta:
        table_name = "rule_state"


class UserModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    created = Real()
    modified = Real()
    active = peewee.BooleanField()
    role = peewee.TextField()
    fullname = peewee.TextField()
    email = peewee.TextField()
    email_key = peewee.TextField()                           # case folded; unlogged
    phone = peewee.TextField()
    bandwidth_mb = peewee.BigIntegerField()
    check_domains = peewee.BooleanField()
    domains = TextTuple()
    check_ports = peewee.BooleanField()
    max_ports = peewee.IntegerField()
    max_tunnels = peewee.IntegerField()
    password_hash = peewee.TextField()
    totp_secret = peewee.TextField()
    totp_step = peewee.BigIntegerField()                     # newest time step whose code was used; unlogged
    rev = peewee.BigIntegerField()

    class Meta:
        table_name = "user"


class ApiKeyModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    created = Real()
    modified = Real()
    active = peewee.BooleanField()
    description = peewee.TextField()
    prefix = peewee.TextField()
    scopes = TextTuple()
    user_uid = peewee.TextField(index=True)
    value_hash = peewee.TextField(unique=True)               # logged: nobody could compute it from another column
    rev = peewee.BigIntegerField()

    class Meta:
        table_name = "api_key"


class WebhookModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    created = Real()
    modified = Real()
    active = peewee.BooleanField()
    description = peewee.TextField()
    url = peewee.TextField()
    secret = peewee.TextField()
    kinds = TextTuple()
    user_uid = peewee.TextField(index=True)
    allow_private = peewee.BooleanField()
    rev = peewee.BigIntegerField()

    class Meta:
        table_name = "webhook"
