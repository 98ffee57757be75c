"""HTTP rules of a tunnel."""

from __future__ import annotations

import functools

import msgspec

from spokes.admin.context import Admin, Caller
from spokes.admin.passwords import hash_text
from spokes.admin.schema.envelope import Answer
from spokes.admin.schema.rules import RemoveSitesRequest, RulesAnswer, UpdateSitesRequest
from spokes.admin.scope import own_tunnel
from spokes.model.rule_state import check_managed
from spokes.model.rules import check_hash_count, sealed_site, warning_of
from spokes.model.sites import PutSites, RemoveSites
from spokes.plural import counted


def update(admin: Admin, caller: Caller, body: UpdateSitesRequest, *, tunnel_uid: str) -> RulesAnswer:
    """Add or replace the rules of the domains named, each complete; the others stay. All or none."""
    own_tunnel(admin, caller, tunnel_uid)
    check_managed(admin.store, tunnel_uid)          # before passwords are hashed
    check_hash_count(body.sites)
    seal = functools.partial(hash_text, owner=caller.user_uid)
    rules = [msgspec.to_builtins(sealed_site(site, seal)) for site in body.sites]
    count = 0
    if rules:
        count = len(admin.perform(caller, PutSites(tunnel_uid, rules, domain=admin.domain)))
        admin.control.changed()
    return RulesAnswer(message=f"{counted(count, 'site')} updated", warning=warning_of(rules))


def remove(admin: Admin, caller: Caller, body: RemoveSitesRequest, *, tunnel_uid: str) -> Answer:
    """All or none: a domain that the tunnel does not serve is an error."""
    own_tunnel(admin, caller, tunnel_uid)
    if body.domains:
        admin.perform(caller, RemoveSites(tunnel_uid, body.domains))
        admin.control.changed()
    return Answer()
