"""Limits of a user's tunnels, checked inside the transaction that would exceed them.

Fails: PolicyError (the operator's limit), NotFoundError (no such user).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from spokes.errors import DomainUnverifiedError, LimitError, NotFoundError, PolicyError
from spokes.ids import ZERO_UID, verification_domain, verification_record
from spokes.plural import counted
from spokes.store import Store, User
from spokes.store.base import View
from spokes.store.changes import Writer
from spokes.store.rows import ADMIN_ROLE


def owner_of(store: Store, view: View, user_uid: str) -> User | None:
    """Returns the user who owns what is about to be written; None is the system, which has no limits."""
    return None if user_uid == ZERO_UID else store.users.get(user_uid, view)


def check_allowed(user: User, name: str) -> None:
    """Refuses a `name` that verifies none of the domains that `user` may serve."""
    if name not in map(verification_domain, user.domains):
        raise NotFoundError("this domain is not allowed to the user", hint="allow it first")


def check_tunnel_count(store: Store, tx: Writer, user: User) -> None:
    """Refuses one more tunnel beyond the user's maximum; a basic user without one has the operator's default."""
    count_max = user.max_tunnels or (store.settings.tunnels_per_user_max if user.role != ADMIN_ROLE else 0)
    if count_max and store.tunnels.count_of_user(tx, user.uid) >= count_max:
        raise PolicyError(
            f"the owner may have {counted(count_max, 'tunnel')}",
            hint="delete one, or ask the operator for more",
        )


def check_port_count(store: Store, tx: Writer, user: User) -> None:
    """Refuses one more port beyond the user's maximum."""
    if user.check_ports and store.ports.count_of_user(tx, user.uid) >= user.max_ports:
        raise PolicyError(
            f"the owner may have {counted(user.max_ports, 'port')}", hint="release one, or ask the operator for more"
        )


def check_room(count: int, count_max: int, noun: str) -> None:
    """Refuses one more of a noun that has no limit of its own, with LimitError, so that none grows without end."""
    if count >= count_max:
        raise LimitError(f"there may be {counted(count_max, noun)} of one owner", hint="delete one that is not used")


def refused_domains(
    user: User,
    given: Container[str],
    hosts: Iterable[str],
    *,
    challenge: Callable[[str], str],
    verified: Container[str] | None,
) -> dict[str, PolicyError]:
    """Returns those of `hosts` that `user` may not serve. `given`: the tunnel's hostnames, which are always allowed.

    `verified`: domains that were shown to be the user's; None: verification is not asked for. `challenge`: the value
    that has to be shown.
    """
    refused: dict[str, PolicyError] = {}
    if not user.check_domains:
        return refused
    for host in hosts:
        allowing = [verification_domain(domain) for domain in user.domains if _covers(domain, host)]
        if host in given or (allowing and (verified is None or any(one in verified for one in allowing))):
            continue
        if allowing:
            name = allowing[0]
            refused[host] = DomainUnverifiedError(
                f"{host} is allowed, but {name} is not yet verified to be the owner's",
                hint=f'put a TXT record {verification_record(name)} with "{challenge(name)}", then have it checked',
            )
        else:
            words = f"{host} is not among the domains allowed to the owner"
            refused[host] = PolicyError(words, hint="ask the operator to allow it")
    return refused


def _covers(domain: str, host: str) -> bool:
    return host.endswith(domain[1:]) if domain.startswith("*.") else host == domain
