"""Rule lists: a client's whole list, and nobody else's tunnel."""

from spokes.errors import NotFoundError, RulesChangedError, TakenError
from spokes.model.rule_lists import ReplaceRules
from tests.model.tenants import DOMAIN, UNKNOWN


def test_client_and_owner_replace_the_list(world):
    mara = world.mara
    for principal, domain in ((mara.client, "a.example.org"), (mara.principal, "b.example.org")):
        replaced = world.do(
            principal, ReplaceRules(mara.tunnel.uid, [{"domain": domain}], {mara.port: {"dstPort": 22}}, domain=DOMAIN)
        )
        assert (replaced.own_ports, dict(replaced.port_errors)) == ((mara.port,), {})
        assert [one.domain for one in world.store.sites.select(mara.tunnel.uid)] == [domain]


def test_list_of_another_is_refused_even_where_it_would_change_nothing(world):
    """Or its answer would tell which ports the other tunnel has."""
    lind = world.lind
    same = ReplaceRules(lind.tunnel.uid, [{"domain": "lind.example.org", "port": 80}], {})
    world.do(lind.client, same)
    for principal in (world.mara.client, world.mara.principal):
        world.refuses(NotFoundError, principal, same)
    world.refuses(NotFoundError, world.admin, ReplaceRules(UNKNOWN, [], {}))


def test_what_is_not_the_tunnels_is_refused_alone(world):
    mara, lind = world.mara, world.lind
    replaced = world.do(mara.client, ReplaceRules(
        mara.tunnel.uid, [{"domain": "lind.example.org"}, {"domain": "a.example.org"}], {lind.port: {"dstPort": 22}}
    ))
    assert [type(one.error) for one in replaced.sites] == [TakenError, type(None)]
    assert [type(error) for error in replaced.port_errors.values()] == [NotFoundError]


def test_list_made_from_older_rules_is_refused(world):
    mara = world.mara
    rev = world.store.rules.read(mara.tunnel.uid).rev
    older = ReplaceRules(mara.tunnel.uid, [{"domain": "x.example.org"}], {}, base_rev=rev - 1)
    world.refuses(RulesChangedError, mara.client, older)
