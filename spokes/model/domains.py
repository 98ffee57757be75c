"""Domains: operations that set which ones a user may serve, and record whether they were verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from spokes.errors import LimitError
from spokes.ids import canonical_host
from spokes.model.limits import check_allowed
from spokes.model.operation import Operation, Work
from spokes.store import DomainVerification, PrincipalKind, User

DOMAIN_COUNT_MAX = 10_000                # of one user: bounds one row of the change log
LOST_AFTER_COUNT = 3                     # checks in a row that found no record


class AllowDomains(Operation[User], frozen=True, tag="domain.allow"):
    """Adds to the domains that the user may serve. They count where the user's `check_domains` is set."""

    admin_only = True

    user_uid: str
    domains: Sequence[str]

    def apply(self, work: Work) -> User:
        added = {canonical_domain(domain) for domain in self.domains}
        return _set_domains(work, self.user_uid, lambda present: present | added)


class RemoveDomains(Operation[User], frozen=True, tag="domain.remove"):
    """Removes domains from those the user may serve, and ignores others. Existing services go on."""

    admin_only = True

    user_uid: str
    domains: Sequence[str]

    def apply(self, work: Work) -> User:
        removed = {canonical_domain(domain) for domain in self.domains}
        return _set_domains(work, self.user_uid, lambda present: present - removed)


class ResetDomains(Operation[User], frozen=True, tag="domain.reset"):
    """Empties the list of domains that the user may serve."""

    admin_only = True

    user_uid: str

    def apply(self, work: Work) -> User:
        return _set_domains(work, self.user_uid, lambda _: set())


class NoteDomainCheck(Operation[DomainVerification], frozen=True, tag="domain.note_check"):
    """Records what a look-up of the TXT record found. LOST_AFTER_COUNT look-ups in a row without one undo a
    verification."""

    user_uid: str
    domain: str
    seen: bool

    def apply(self, work: Work) -> DomainVerification:
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
            verification = DomainVerification(
                user_uid=self.user_uid, domain=self.domain, proved=proved, checked=tx.now, failures=failures
            )
            facet.put(tx, verification)
            if work.principal.is_audited:
                tx.note("domain.prove", "user", self.user_uid, {"domain": self.domain, "seen": self.seen})
            return verification


def canonical_domain(text: str) -> str:
    """Returns a host name in canonical form, or `*.` and one, which stands for every name below it."""
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
