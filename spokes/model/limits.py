"""What a user's tunnels may have: looked up and held inside the transaction that would exceed it.

Fails: PolicyError (the operator's limit), NotFoundError (no such user).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from spokes.errors import DomainProofError, LimitError, NotFoundError, PolicyError
from spokes.ids import ZERO_UID, proof_domain, proof_record
from spokes.plural import counted
from spokes.store import Store, User
from spokes.store.base import View
from spokes.store.changes import Writer
from spokes.store.rows import ADMIN_ROLE


def owner_of(store: Store, view: View, user_uid: str) -> User | None:
    """The user who owns what is about to be written; None: the system, which has no limits."""
    return None if user_uid == ZERO_UID else store.users.get(user_uid, view)


def check_allowed(user: User, name: str) -> None:
    """`name` is what proves a domain that `user` may serve."""
    if name not in map(proof_domain, user.domains):
        raise NotFoundError("this domain is not allowed to the user", hint="allow it first")


def check_tunnel_count(store: Store, tx: Writer, user: User) -> None:
    """One more tunnel for `user`; the operator's default holds for a basic user without a maximum."""
    count_max = user.max_tunnels or (store.settings.tunnels_per_user_max if user.role != ADMIN_ROLE else 0)
    if count_max and store.tunnels.count_of_user(tx, user.uid) >= count_max:
        raise PolicyError(
            f"the owner may have {counted(count_max, 'tunnel')}",
            hint="delete one, or ask the operator for more",
        )


def check_port_count(store: Store, tx: Writer, user: User) -> None:
    """One more port for one of `user`'s tunnels."""
    if user.check_ports and store.ports.count_of_user(tx, user.uid) >= user.max_ports:
        raise PolicyError(
            f"the owner may have {counted(user.max_ports, 'port')}", hint="release one, or ask the operator for more"
        )


def check_room(count: int, count_max: int, noun: str) -> None:
    """One more of what nobody's limits name, so that none of it grows without end: LimitError."""
    if count >= count_max:
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

    `proved`: domains that were proved to be the user's; None: no proof is asked for. `challenge`: what has to be shown.
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
