"""The tables of what happens: logins, deliveries, events, alerts, traffic. None of them is in the change log."""

from __future__ import annotations

import peewee

from spokes.store.models import JsonText, Real


class ApiKeyUseModel(peewee.Model):
    """What was seen of an API key: apart from its row, as presence is from a tunnel's."""

    api_key_uid = peewee.TextField(primary_key=True)
    last_used = Real()
    last_address = peewee.TextField()

    class Meta:
        table_name = "api_key_use"


class LoginModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    cookie_hash = peewee.TextField(unique=True)
    api_key_uid = peewee.TextField(index=True)
    user_uid = peewee.TextField(index=True)
    created = Real()
    expires = Real(index=True)
    address = peewee.TextField()
    agent = peewee.TextField()

    class Meta:
        table_name = "login"


class LoginFailureModel(peewee.Model):
    source = peewee.TextField(primary_key=True)
    failure_count = peewee.IntegerField()
    last = Real(index=True)

    class Meta:
        table_name = "login_failure"


class FrozenListModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)                 # 24 hex digits: the first part of its pages' ids
    uids = peewee.TextField()                                # 32 digits each, nothing between them
    handed_out = Real(index=True)
    owner_uid = peewee.TextField()

    class Meta:
        table_name = "frozen_list"


class OperationResultModel(peewee.Model):
    name = peewee.TextField(primary_key=True)
    digest = peewee.TextField()
    epoch = peewee.BigIntegerField()
    seq = peewee.BigIntegerField()
    result = peewee.TextField()                              # base64
    size = peewee.BigIntegerField()                          # bytes of it
    created = Real(index=True)

    class Meta:
        table_name = "operation_result"


class DeliveryModel(peewee.Model):
    seq = peewee.BigIntegerField(primary_key=True)
    uid = peewee.TextField(unique=True)
    webhook_uid = peewee.TextField(index=True)
    kind = peewee.TextField()
    subject = peewee.TextField()
    body = peewee.TextField()
    created = Real()
    state = peewee.TextField()
    attempts = peewee.IntegerField()
    next_attempt = Real()
    http_status = peewee.IntegerField()
    error = peewee.TextField()
    finished = Real(null=True)

    class Meta:
        table_name = "delivery"


class AdminEventModel(peewee.Model):
    seq = peewee.BigIntegerField(primary_key=True)
    time = Real()
    actor_kind = peewee.TextField()
    actor_uid = peewee.TextField()
    actor_name = peewee.TextField()
    address = peewee.TextField()
    action = peewee.TextField()
    object_kind = peewee.TextField()
    object_uid = peewee.TextField()
    before = JsonText(null=True)
    after = JsonText(null=True)
    previous_hash = peewee.TextField()
    hash = peewee.TextField()

    class Meta:
        table_name = "admin_event"


class AlertModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    kind = peewee.TextField()
    subject = peewee.TextField()
    severity = peewee.TextField()
    text = peewee.TextField()
    raised = Real(index=True)
    resolved = Real(null=True)
    acknowledged = Real(null=True)

    class Meta:
        table_name = "alert"


class TrafficModel(peewee.Model):
    period = peewee.TextField()
    start = peewee.BigIntegerField()
    tunnel_uid = peewee.TextField()
    service_uid = peewee.TextField()
    bytes_in = peewee.BigIntegerField()
    bytes_out = peewee.BigIntegerField()
    conns = peewee.BigIntegerField()

    class Meta:
        table_name = "traffic"
        primary_key = peewee.CompositeKey("period", "start", "tunnel_uid", "service_uid")


class VisitModel(peewee.Model):
    uid = peewee.TextField(primary_key=True)
    tunnel_uid = peewee.TextField()
    service_uid = peewee.TextField()
    service = peewee.SmallIntegerField()
    address = peewee.TextField()
    bytes_in = peewee.BigIntegerField()
    bytes_out = peewee.BigIntegerField()
    established = Real()
    closed = Real()

    class Meta:
        table_name = "visit"


class DomainProofModel(peewee.Model):
    user_uid = peewee.TextField()
    domain = peewee.TextField()
    proved = Real()
    checked = Real()
    failures = peewee.IntegerField()

    class Meta:
        table_name = "domain_proof"
        primary_key = peewee.CompositeKey("user_uid", "domain")
