"""Every table, in an order in which each comes after those it refers to."""

from __future__ import annotations

import peewee

from spokes.store.models import (
    ApiKeyModel,
    AuthTokenModel,
    ChangeModel,
    EpochModel,
    FormerHostnameModel,
    MetaModel,
    PortMapModel,
    PortModel,
    PositionModel,
    PresenceModel,
    QuarantineModel,
    ReplicaModel,
    RuleStateModel,
    SiteModel,
    TokenModel,
    TombstoneModel,
    TunnelModel,
    UserModel,
    WebhookModel,
)
from spokes.store.models_admin import (
    AdminEventModel,
    AlertModel,
    ApiKeyUseModel,
    DeliveryModel,
    DomainProofModel,
    FrozenListModel,
    LoginFailureModel,
    LoginModel,
    OperationResultModel,
    TrafficModel,
    VisitModel,
)

MODELS: tuple[type[peewee.Model], ...] = (
    MetaModel, PositionModel, ChangeModel, TokenModel, UserModel, TunnelModel, AuthTokenModel, PresenceModel, SiteModel,
    PortModel, PortMapModel, RuleStateModel, ApiKeyModel, ApiKeyUseModel, WebhookModel, DeliveryModel, LoginModel,
    LoginFailureModel, FrozenListModel, AdminEventModel, AlertModel, TrafficModel, VisitModel,
    DomainProofModel, FormerHostnameModel, OperationResultModel, EpochModel, TombstoneModel, QuarantineModel,
    ReplicaModel,
)
