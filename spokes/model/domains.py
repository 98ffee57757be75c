"""Domains: which a user may serve, and whether they were shown to be the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from spokes.errors import LimitError
from spokes.ids import canonical_host
from spokes.model.limits import check_allowed
from spokes.model.operation import Operation, Work
from spokes.store import DomainProof, PrincipalKind, User

DOMAIN_COUNT_MAX = 10_000                # of one user: bounds one row of the change log
LOST_AFTER_COUNT = 3                     # checks in a row that found no record


class AllowDomains(Operation[User], frozen=True, tag="domain.allow"):
    """Add to the domains that the user may serve; whether they are checked is `check_domains`."""

    admin_only = True

    user_uid: str
    domains: Sequence[str]

    def apply(self, work: Work) -> User:
        added = {canonical_domain(domain) for domain in self.domains}
        return _set_domains(work, self.user_uid, lambda present: present | added)


class RemoveDomains(Operation[User], frozen=True, tag="domain.remove"):
    """Domains that are not there are passed over. Services that stand go on."""

    admin_only = True

    user_uid: str
    domains: Sequence[str]

    def apply(self, work: Work) -> User:
        removed = {canonical_domain(domain) for domain in self.domains}
        return _set_domains(work, self.user_uid, lambda present: present - removed)


class ResetDomains(Operation[User], frozen=True, tag="domain.reset"):
    admin_only = True

    user_uid: str

    def apply(self, work: Work) -> User:
        return _set_domains(work, self.user_uid, lambda _: set())


class NoteDomainCheck(Operation[DomainProof], frozen=True, tag="domain.note_check"):
    """What a check of a record in the DNS found. A verification is lost when LOST_AFTER_COUNT checks in a row found
    none."""

    user_uid: str
    domain: str
    seen: bool

    def apply(self, work: Work) -> DomainProof:
        work.check_sees(self.user_uid, "user")
        facet = work.store.domain_verifications
        with work.transaction() as tx:
            if work.principal.kind != PrincipalKind.SERVER:      # which looks again at what was allowed once
                check_allowed(work.store.users.get(self.user_uid, tx), self.domain)
            known = facet.find(tx, self.user_uid, self.domain)
            proved = known.proved if known else 0.0
            failures = 0 if self.seen else (known.failures if known else 0) + 1
            if self.seen:
                proved = proved or tx.now
            elif failures >= LOST_AFTER_COUNT:
                proved = 0.0
            proof = DomainProof(
                user_uid=self.user_uid, domain=self.domain, proved=proved, checked=tx.now, failures=failures
            )
            facet.put(tx, proof)
            if work.principal.is_audited:
                tx.note("domain.prove", "user", self.user_uid, {"domain": self.domain, "seen": self.seen})
            return proof


def canonical_domain(text: str) -> str:
    """A host name in its one form, or `*.` and one: every name below it."""
    return "*." + canonical_host(text[2:]) if text.startswith("*.") else canonical_host(text)


def _set_domains(work: Work, uid: str, change: Callable[[set[str]], set[str]]) -> User:
    with work.transaction() as tx:
        user = work.store.users.get(uid, tx)
        domains = tuple(sorted(change(set(user.domains))))
        if domains == user.domains:
            return user
        if len(domains) > DOMAIN_COUNT_MAX:
            raise LimitError(f"a user may have {DOMAIN_COUNT_MAX} allowed domains", hint="allow `*.name` instead")
        return tx.update(replace(user, domains=domains, modified=tx.now))
