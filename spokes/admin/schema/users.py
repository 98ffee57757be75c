"""Users, their limits and their domains."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from spokes.admin.schema.envelope import Answer, Part, Request
from spokes.ids import ZERO_UID
from spokes.model.domains import DOMAIN_COUNT_MAX
from spokes.model.users import MEGABYTES_MAX
from spokes.store import User as StoredUser
from spokes.wire.api_types import ZERO_TIME, Count, Domain, Email, Name, Time, Uid, time_text

BYTES_PER_MEGABYTE = 1_000_000           # decimal, as everywhere in this API
Megabytes = Annotated[int, Meta(ge=0, le=MEGABYTES_MAX)]
Domains = Annotated[tuple[Domain, ...], Meta(max_length=DOMAIN_COUNT_MAX)]


class User(Part):
    id: Uid
    created: Time
    modified: Time
    active: bool
    fullname: str
    email: str
    phone: str
    bandwidth_mb: Megabytes = msgspec.field(name="bandwidth")
    bandwidth_used_up: bool = msgspec.field(name="maxBandwidth")
    check_domains: bool = msgspec.field(name="checkDomains")
    max_ports: Count = msgspec.field(name="maxPorts")
    check_ports: bool = msgspec.field(name="checkPorts")


class UserRequest(Request):
    """What is left out stays as it is. `maxBandwidth` is the server's own flag, and ignored."""

    user_uid: Uid = msgspec.field(name="userID", default=ZERO_UID)
    active: bool | UnsetType = msgspec.field(name="Active", default=UNSET)
    email: Email | UnsetType = UNSET
    fullname: Name | UnsetType = UNSET
    phone: Name | UnsetType = UNSET
    bandwidth_mb: Megabytes | UnsetType = msgspec.field(name="bandwidth", default=UNSET)
    check_domains: bool | UnsetType = msgspec.field(name="checkDomains", default=UNSET)
    max_ports: Count | UnsetType = msgspec.field(name="maxPorts", default=UNSET)
    check_ports: bool | UnsetType = msgspec.field(name="checkPorts", default=UNSET)
    # Not in the contract of v1.0, whose answers do not show it; 0: the server's own maximum.
    max_tunnels: Count | UnsetType = msgspec.field(name="maxTunnels", default=UNSET)


class ActivateUserRequest(Request):
    """Of a user request only these two count."""

    user_uid: Uid = msgspec.field(name="userID")
    active: bool = msgspec.field(name="Active")


class BandwidthCapRequest(Request):
    user_uid: Uid = msgspec.field(name="userID")
    max_mb: Megabytes = msgspec.field(name="max")


class DomainsRequest(Request):
    user_uid: Uid = msgspec.field(name="userID")
    domains: Domains = ()


class VerifyDomainRequest(Request):
    user_uid: Uid = msgspec.field(name="userID")
    domain: Domain


class DomainVerification(Part):
    """The record that verifies an allowed domain, and `*.` before it, to be the user's, and whether it was seen."""

    domain: str
    record: str                          # name of the TXT record
    value: str                           # that it must hold
    verified: Time = msgspec.field(name="proved", default=ZERO_TIME)     # zero: not, or no longer
    checked: Time = ZERO_TIME            # zero: never


class DomainVerificationAnswer(Answer):
    verification: DomainVerification = msgspec.field(name="proof")


class DomainVerificationsAnswer(Answer):
    needed: bool                         # domains of users whose domains are checked have to be verified here
    verifications: list[DomainVerification] = msgspec.field(name="proofs")


class UserAnswer(Answer):
    user: User


class UsersAnswer(Answer):
    users: list[User]


class DomainsAnswer(Answer):
    domains: list[str]


def user_object(user: StoredUser, monthly_bytes: int) -> User:
    return User(
        id=user.uid, created=time_text(user.created), modified=time_text(user.modified), active=user.active,
        fullname=user.fullname, email=user.email, phone=user.phone, bandwidth_mb=user.bandwidth_mb,
        bandwidth_used_up=is_used_up(user.bandwidth_mb, monthly_bytes), check_domains=user.check_domains,
        max_ports=user.max_ports, check_ports=user.check_ports,
    )


def is_used_up(bandwidth_mb: int, monthly_bytes: int) -> bool:
    return 0 < bandwidth_mb * BYTES_PER_MEGABYTE <= monthly_bytes
