"""HTTP services: put and removed by who owns the tunnel, under names that nobody else has."""

import pytest

from spokes.errors import (
    DomainUnverifiedError,
    ForbiddenError,
    NameRefusedError,
    NotFoundError,
    PolicyError,
    TakenError,
    ValueRefusedError,
)
from spokes.model.domains import NoteDomainCheck
from spokes.model.operation import SYSTEM
from spokes.model.sites import PutSites, RemoveSites
from spokes.model.users import EditUser
from tests.model.tenants import DOMAIN, UNKNOWN


def put(tunnel, *domains, **members):
    return PutSites(tunnel.uid, [{"domain": domain, "port": 80, **members} for domain in domains], domain=DOMAIN)


def test_owner_puts_and_removes(world):
    tunnel = world.mara.tunnel
    for principal in (world.mara.principal, world.admin):
        (site,) = world.do(principal, put(tunnel, "Shop.Example.org"))
        assert site.domain == "shop.example.org"
        world.do(principal, RemoveSites(tunnel.uid, ["shop.example.org"]))
    assert [one.domain for one in world.store.sites.select(tunnel.uid)] == ["mara.example.org"]


@pytest.mark.parametrize("operation", [
    lambda tunnel: put(tunnel, "shop.example.org"), lambda tunnel: RemoveSites(tunnel.uid, ["lind.example.org"]),
])
def test_tunnel_of_another_is_not_there(world, operation):
    world.refuses(NotFoundError, world.mara.principal, operation(world.lind.tunnel))
    world.refuses(ForbiddenError, world.lind.client, operation(world.lind.tunnel))


def test_unknown_tunnel_and_unknown_domain_are_refused(world):
    world.refuses(NotFoundError, world.admin, PutSites(UNKNOWN, [{"domain": "shop.example.org"}]))
    world.refuses(NotFoundError, world.mara.principal, RemoveSites(world.mara.tunnel.uid, ["lind.example.org"]))


def test_name_of_another_is_taken_and_nothing_is_put(world):
    tunnel = world.mara.tunnel
    world.refuses(TakenError, world.mara.principal, put(tunnel, "shop.example.org", "lind.example.org"))
    world.refuses(TakenError, world.mara.principal, put(tunnel, world.lind.tunnel.hostname))
    world.refuses(TakenError, world.mara.principal, put(tunnel, f"www.{world.lind.tunnel.hostname}"))


@pytest.mark.parametrize(("rule", "error"), [
    ({}, ValueRefusedError), ({"domain": ""}, ValueRefusedError), ({"domain": 1}, ValueRefusedError),
    ({"domain": "no name"}, NameRefusedError), ({"domain": f"admin.{DOMAIN}"}, NameRefusedError),
])
def test_rule_with_a_bad_domain_is_refused(world, rule, error):
    world.refuses(error, world.admin, PutSites(world.mara.tunnel.uid, [rule], domain=DOMAIN))


def test_owner_whose_domains_are_checked_puts_what_is_allowed_and_verified(world):
    mara = world.mara
    world.do(SYSTEM, EditUser(mara.user.uid, check_domains=True))
    world.refuses(PolicyError, mara.principal, put(mara.tunnel, "shop.example.org"))
    world.do(mara.principal, put(mara.tunnel, "mara.example.org", tls=443))
    world.store.settings.verified_domains_only = True
    world.refuses(DomainUnverifiedError, mara.principal, put(mara.tunnel, "mara.example.org"))
    world.do(mara.principal, NoteDomainCheck(mara.user.uid, "mara.example.org", seen=True))
    world.do(mara.principal, put(mara.tunnel, "mara.example.org"))
