"""Host names: which tunnel may have which one.

A name that its tunnel was deleted with, or renamed away from, is known to visitors: nobody but its owner gets it for
HOSTNAME_HELD_S. Bound: FORMER_NAMES_MAX such names of one tunnel that goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from spokes.errors import HeldNameError, NameRefusedError, PeerError, TakenError
from spokes.ids import ZERO_UID, automatic_hostname, canonical_host, is_reserved
from spokes.store import Store, Tunnel
from spokes.store.base import View
from spokes.store.changes import Writer
from spokes.store.former_hostnames import HOSTNAME_HELD_S
from spokes.store.hostnames import Holder

HOSTNAME_LABELS_MAX = 4                  # under the server's domain; automatic ones have one


class Claimant(NamedTuple):
    """Who wants a name: a tunnel ("" for one that is about to be made), its user, the token it registered with."""

    tunnel_uid: str
    user_uid: str
    token_uid: str

    @classmethod
    def of(cls, tunnel: Tunnel) -> Claimant:
        return cls(tunnel.uid, tunnel.user_uid, tunnel.token_uid)

    def is_barred_by(self, holder: Holder) -> bool:
        """Whether the claimant may not have the name: it is another tunnel's, or was another owner's."""
        if holder.left_at is None:
            return holder.tunnel_uid != self.tunnel_uid
        if holder.user_uid != self.user_uid:
            return True
        if holder.user_uid != ZERO_UID or holder.tunnel_uid == self.tunnel_uid:
            return False
        # The system's own: made by an administrator. Those who registered with one token are many people.
        return holder.token_uid != ZERO_UID or self.token_uid != ZERO_UID


NOBODY = Claimant("", "", "")


def chosen_hostname(store: Store, tx: Writer, hostname: str, domain: str, claimant: Claimant) -> str:
    """Returns `hostname` in canonical form; refuses one outside `domain`, reserved, or held by somebody else."""
    hostname = canonical_host(hostname)
    if not hostname.endswith("." + domain):
        hint = "other domains are HTTP services" if "." in hostname else f"use {hostname}.{domain}"
        raise NameRefusedError(f"{hostname} is not under {domain}", hint=hint)
    if is_reserved(hostname, domain):
        raise NameRefusedError(f"{hostname} is reserved", hint="choose another name")
    if hostname.removesuffix("." + domain).count(".") >= HOSTNAME_LABELS_MAX:
        raise NameRefusedError(f"a hostname has {HOSTNAME_LABELS_MAX} labels under {domain} at most")
    for holder in holders(store, tx, [hostname], claimant).values():
        raise _taken(hostname, holder, hint="choose another name")
    for error in under_others(store, tx, [hostname], domain, claimant).values():
        raise error
    if store.hostnames.has_others_below(hostname, claimant.tunnel_uid):
        raise TakenError(f"names under {hostname} belong to another tunnel", hint="choose another name")
    return hostname


def drawn_hostname(store: Store, tx: Writer, domain: str) -> str:
    """Returns an automatic host name that is free."""
    return automatic_hostname(domain, lambda host: (
        host in holders(store, tx, [host], NOBODY) or store.hostnames.has_others_below(host, "")
    ))


def under_others(
    store: Store, view: View, hosts: Sequence[str], domain: str, claimant: Claimant
) -> dict[str, PeerError]:
    """Returns those of `hosts` that lie under a hostname that is not the claimant's, because visitors would take
    www.HOSTNAME for that tunnel's too.
    """
    above = {host: _names_above(host, domain) for host in hosts}
    found = store.hostnames.holders_of_hostnames(view, sorted({name for names in above.values() for name in names}))
    return {
        host: TakenError(f"{host} lies under {name}, which belongs to another tunnel", hint="choose another name")
        for host, names in above.items() for name in names if name in found and claimant.is_barred_by(found[name])
    }


def holders(store: Store, view: View, hosts: Sequence[str], claimant: Claimant) -> dict[str, Holder]:
    """Returns the holders that keep the claimant from having a name, as a site or as a hostname, by name."""
    named = store.hostnames.holders_of_hostnames(view, hosts)
    in_use = {host: holder for host, holder in named.items() if holder.left_at is None}
    sites = store.hostnames.holders_of_sites(view, hosts)
    return {host: holder for host, holder in (named | sites | in_use).items() if claimant.is_barred_by(holder)}


def taken_names(found: Mapping[str, Holder], *, hint: str) -> dict[str, PeerError]:
    return {host: _taken(host, holder, hint=hint) for host, holder in found.items()}


def _taken(host: str, holder: Holder, *, hint: str) -> TakenError:
    """Returns the error for a name that is in use, or was a short while ago."""
    if holder.left_at is None:
        return TakenError(f"{host} belongs to another tunnel", hint=hint)
    what = "has another name now" if holder.renamed else "was deleted"
    return HeldNameError(
        f"{host} belonged to a tunnel that {what}, and is held for {HOSTNAME_HELD_S // 86_400} days",
        hint="choose another name, or wait",
    )


def _names_above(host: str, domain: str) -> list[str]:
    """The names between `host` and `domain` that could be hostnames of tunnels, nearest to the domain first."""
    head = host.removesuffix("." + domain)
    if head == host:
        return []
    labels = head.split(".")[-HOSTNAME_LABELS_MAX - 1:]
    return [".".join((*labels[-count:], domain)) for count in range(1, len(labels))]
