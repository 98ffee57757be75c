"""Users, their limits and their domains."""

from __future__ import annotations

from typing import Any

from spokes import clock
from spokes.admin.context import Admin, Caller
from spokes.admin.schema.envelope import Answer
from spokes.admin.schema.tunnels import TunnelsAnswer
from spokes.admin.schema.users import (
    ActivateUserRequest,
    BandwidthCapRequest,
    DomainsAnswer,
    DomainsRequest,
    DomainVerification,
    DomainVerificationAnswer,
    DomainVerificationsAnswer,
    User,
    UserAnswer,
    UserRequest,
    UsersAnswer,
    VerifyDomainRequest,
    user_object,
)
from spokes.admin.tunnel_objects import tunnel_objects
from spokes.domain_verification import has_record
from spokes.errors import ForbiddenError
from spokes.ids import ZERO_UID, verification_domain, verification_record
from spokes.model.domains import AllowDomains, NoteDomainCheck, RemoveDomains, ResetDomains, canonical_domain
from spokes.model.limits import check_allowed
from spokes.model.users import CreateUser, DeleteUser, EditUser
from spokes.plural import counted
from spokes.store import DomainVerification as StoredVerification
from spokes.store import User as StoredUser
from spokes.wire.api_types import time_text

_PROPERTIES = (
    "active", "email", "fullname", "phone", "bandwidth_mb", "check_domains", "max_ports", "check_ports", "max_tunnels",
)


def list_all(admin: Admin, caller: Caller, body: None) -> UsersAnswer:
    """All users; a basic caller's own."""
    if caller.is_admin:
        return UsersAnswer(users=admin.users.read(admin.store))
    return UsersAnswer(users=[_object(admin, admin.store.users.get(caller.user_uid))])


def get(admin: Admin, caller: Caller, body: None, *, user_uid: str) -> UserAnswer:
    """One user."""
    caller.check_sees(user_uid, "user")
    return UserAnswer(user=_object(admin, admin.store.users.get(user_uid)))


def create(admin: Admin, caller: Caller, body: UserRequest) -> UserAnswer:
    """Make a user."""
    uid = body.user_uid if body.user_uid != ZERO_UID else None
    user = admin.perform(caller, CreateUser(uid=uid, **properties_of(body)))
    admin.control.changed()
    return UserAnswer(user=_object(admin, user))


def import_one(admin: Admin, caller: Caller, body: UserRequest) -> UserAnswer:
    """As create, with an id of the caller's own."""
    check_person(body.user_uid)
    return create(admin, caller, body)


def edit(admin: Admin, caller: Caller, body: UserRequest) -> Answer:
    """Change what is named of a user."""
    check_person(body.user_uid)
    admin.perform(caller, EditUser(body.user_uid, **properties_of(body)))
    admin.control.changed()
    return Answer(message="user changed")


def activate(admin: Admin, caller: Caller, body: ActivateUserRequest) -> TunnelsAnswer:
    """Switching off ends the user's sessions and refuses new ones; nothing else of the user changes."""
    check_person(body.user_uid)
    admin.perform(caller, EditUser(body.user_uid, active=body.active))
    admin.control.changed()
    return TunnelsAnswer(
        message="user activated" if body.active else "user deactivated",
        tunnels=tunnel_objects(admin, admin.store.tunnels.of_user(body.user_uid)),
    )


def delete(admin: Admin, caller: Caller, body: None, *, user_uid: str) -> Answer:
    """Delete a user and everything that is theirs."""
    check_person(user_uid)
    tunnel_uids = admin.perform(caller, DeleteUser(user_uid))
    admin.control.changed()
    return Answer(message=f"user deleted, with {counted(len(tunnel_uids), 'tunnel')}")


def cap_bandwidth(admin: Admin, caller: Caller, body: BandwidthCapRequest) -> Answer:
    """Limit a user's traffic of a month."""
    check_person(body.user_uid)
    admin.perform(caller, EditUser(body.user_uid, bandwidth_mb=body.max_mb))
    admin.control.changed()
    return Answer(message="limit set" if body.max_mb else "limit removed")


# --- domains -------------------------------------------------------------------------------------------------------


def allow_domains(admin: Admin, caller: Caller, body: DomainsRequest) -> Answer:
    """Allow a user these domains too."""
    admin.perform(caller, AllowDomains(body.user_uid, body.domains))
    admin.control.changed()
    return Answer()


def remove_domains(admin: Admin, caller: Caller, body: DomainsRequest) -> Answer:
    """Allow a user these domains no more."""
    admin.perform(caller, RemoveDomains(body.user_uid, body.domains))
    admin.control.changed()
    return Answer()


def list_domains(admin: Admin, caller: Caller, body: None, *, user_uid: str) -> DomainsAnswer:
    """The domains that are allowed to a user."""
    caller.check_sees(user_uid, "user")
    return DomainsAnswer(domains=list(admin.store.users.get(user_uid).domains))


def reset_domains(admin: Admin, caller: Caller, body: None, *, user_uid: str) -> Answer:
    """Empty the list of allowed domains."""
    admin.perform(caller, ResetDomains(user_uid))
    admin.control.changed()
    return Answer()


def list_verifications(admin: Admin, caller: Caller, body: None, *, user_uid: str) -> DomainVerificationsAnswer:
    """The record that verifies each of the domains allowed to a user, and whether it was seen."""
    caller.check_sees(user_uid, "user")
    names = dict.fromkeys(verification_domain(domain) for domain in admin.store.users.get(user_uid).domains)
    found = {one.domain: one for one in admin.store.domain_verifications.select(user_uid)}
    return DomainVerificationsAnswer(
        needed=admin.store.settings.verified_domains_only,
        verifications=[_verification(admin, user_uid, name, found.get(name)) for name in names],
    )


def verify_domain(admin: Admin, caller: Caller, body: VerifyDomainRequest) -> DomainVerificationAnswer:
    """Look for the record that verifies a domain. The answer's `proved` says whether it is there."""
    caller.check_sees(body.user_uid, "user")
    name = verification_domain(canonical_domain(body.domain))
    check_allowed(admin.store.users.get(body.user_uid), name)
    with admin.lookups.slot(body.user_uid):
        seen = has_record(name, admin.store.domain_verifications.challenge(body.user_uid, name), admin.resolvers)
    verification = admin.perform(caller, NoteDomainCheck(body.user_uid, name, seen=seen))
    return DomainVerificationAnswer(
        message="proved" if seen else "the record is not there",
        verification=_verification(admin, body.user_uid, name, verification),
    )


# --- below ---------------------------------------------------------------------------------------------------------


def properties_of(body: UserRequest) -> dict[str, Any]:
    """As the operations take them; UNSET where the request says nothing."""
    return {name: getattr(body, name) for name in _PROPERTIES}


def check_person(uid: str) -> None:
    if uid == ZERO_UID:
        raise ForbiddenError("the system is no user and cannot be changed")


def _verification(admin: Admin, user_uid: str, name: str, found: StoredVerification | None) -> DomainVerification:
    return DomainVerification(
        domain=name, record=verification_record(name), value=admin.store.domain_verifications.challenge(user_uid, name),
        verified=time_text(found.proved if found else 0.0), checked=time_text(found.checked if found else 0.0),
    )


def _object(admin: Admin, user: StoredUser) -> User:
    return user_object(user, admin.store.traffic.usage_of_user(user.uid, clock.wall_s()).monthly)
