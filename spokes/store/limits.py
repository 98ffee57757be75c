"""What a user's tunnels may have: looked up and held inside the transaction that would exceed it.

Fails: PolicyError (the operator's limit), NotFoundError (no such user).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

import peewee

from spokes.errors import DomainProofError, LimitError, NotFoundError, PolicyError
from spokes.ids import ZERO_UID, is_uid, proof_domain, proof_record
from spokes.phrases import counted
from spokes.store.actors import Check
from spokes.store.base import Read
from spokes.store.changes import Writer
from spokes.store.db import Query
from spokes.store.logged import USERS
from spokes.store.models import PortModel, TunnelModel
from spokes.store.rows import ADMIN_ROLE, User


def find_user(read: Read, uid: str) -> User:
    if is_uid(uid) and uid != ZERO_UID:
        for row in read(USERS.find(uid)):
            return USERS.read(row)
    raise NotFoundError("unknown user")


def owner_of(tx: Writer, user_uid: str) -> User | None:
    """The user who owns what is about to be written; None: the system, which has no limits."""
    return None if user_uid == ZERO_UID else find_user(tx.read, user_uid)


def check_allowed(user: User, name: str) -> None:
    """`name` is what proves a domain that `user` may serve."""
    if name not in map(proof_domain, user.domains):
        raise NotFoundError("this domain is not allowed to the user", hint="allow it first")


def allows(user_uid: str, name: str) -> Check:
    """As check_allowed(), inside the transaction."""
    return lambda tx: check_allowed(find_user(tx.read, user_uid), name)


def check_tunnel_count(tx: Writer, user: User, default_max: int) -> None:
    """One more tunnel for `user`. `default_max` holds for a basic user without a maximum; 0: none."""
    count_max = user.max_tunnels or (default_max if user.role != ADMIN_ROLE else 0)
    if not count_max:
        return
    query = TunnelModel.select(peewee.fn.COUNT(TunnelModel.uid)).where(
        TunnelModel.user_uid == user.uid, TunnelModel.deleted_at.is_null()
    )
    if tx.rows(query)[0][0] >= count_max:
        raise PolicyError(
            f"the owner may have {counted(count_max, 'tunnel')}",
            hint="delete one, or ask the operator for more",
        )


def check_port_count(tx: Writer, user: User) -> None:
    """One more port for one of `user`'s tunnels."""
    if not user.check_ports:
        return
    query = (
        PortModel.select(peewee.fn.COUNT(PortModel.uid))
        .join(TunnelModel, on=(TunnelModel.uid == PortModel.tunnel_uid)).where(TunnelModel.user_uid == user.uid)
    )
    if tx.rows(query)[0][0] >= user.max_ports:
        raise PolicyError(
            f"the owner may have {counted(user.max_ports, 'port')}", hint="release one, or ask the operator for more"
        )


def check_room(tx: Writer, rows_of_owner: Query, count_max: int, noun: str) -> None:
    """One more of what nobody's limits name, so that none of it grows without end: LimitError."""
    if len(tx.rows(rows_of_owner)) >= count_max:
        raise LimitError(f"there may be {counted(count_max, noun)} of one owner", hint="delete one that is not used")


def refused_domains(
    user: User,
    given: Container[str],
    hosts: Iterable[str],
    *,
    challenge: Callable[[str], str],
    proved: Container[str] | None,
) -> dict[str, PolicyError]:
    """Those of `hosts` that `user` may not serve. `given`: the tunnel's own hostnames, which are always allowed.

    `proved`: domains that were proved to be the user's; None: no proof is asked for. `challenge`: see Proofs.
    """
    refused: dict[str, PolicyError] = {}
    if not user.check_domains:
        return refused
    for host in hosts:
        allowing = [proof_domain(domain) for domain in user.domains if _covers(domain, host)]
        if host in given or (allowing and (proved is None or any(one in proved for one in allowing))):
            continue
        if allowing:
            name = allowing[0]
            refused[host] = DomainProofError(
                f"{host} is allowed, but {name} is not yet proved to be the owner's",
                hint=f'put a TXT record {proof_record(name)} with "{challenge(name)}", then have it checked',
            )
        else:
            words = f"{host} is not among the domains allowed to the owner"
            refused[host] = PolicyError(words, hint="ask the operator to allow it")
    return refused


def _covers(domain: str, host: str) -> bool:
    return host.endswith(domain[1:]) if domain.startswith("*.") else host == domain
