from __future__ import annotations

import base64

import pytest

from spokes.errors import InactiveError
from spokes.model.authority import client_stands
from spokes.model.ports import AllocatePort
from spokes.model.tunnels import CreateTunnel, EditTunnel, SetTunnelState
from spokes.model.users import CreateUser, EditUser
from spokes.password_hash import hash_of
from spokes.server.sessions.services import apply_services
from spokes.store import Store, TunnelState
from spokes.wire.messages import Services
from spokes.wire.rules import Port, Site
from tests.support.operations import do

DOMAIN = "tun.example.net"
BARS = {
    "shut down": lambda store, tunnel: do(store, SetTunnelState(tunnel.uid, TunnelState.SHUTDOWN)),
    "owner deactivated": lambda store, tunnel: do(store, EditUser(tunnel.user_uid, active=False)),
}


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "spokes.db")) as opened:
        yield opened


@pytest.fixture
def tunnel(store):
    return do(store, CreateTunnel(name="shop", domain=DOMAIN, user_uid=do(store, CreateUser()).uid))[0]


@pytest.mark.parametrize("bar", BARS)
def test_list_of_a_tunnel_that_may_not_log_in_any_longer_writes_nothing(store, tunnel, bar):
    """It may be on its way to the store when the operator decides."""
    services = Services(https=(Site(domain="shop.example.org", port=80),))
    BARS[bar](store, tunnel)
    with pytest.raises(InactiveError):
        apply_services(store, tunnel.uid, services, DOMAIN)
    assert store.sites.select() == []


@pytest.mark.parametrize("bar", BARS)
def test_change_that_such_a_client_asked_for_is_refused(store, tunnel, bar):
    with store.audit.checking(client_stands(tunnel.uid)):
        do(store, EditTunnel(tunnel.uid, name="before"))
    BARS[bar](store, tunnel)
    with store.audit.checking(client_stands(tunnel.uid)), pytest.raises(InactiveError):
        do(store, EditTunnel(tunnel.uid, name="after"))
    assert store.tunnels.get(tunnel.uid).name == "before"


def test_list_of_a_client_at_a_replica_goes_to_the_master_as_one_operation(store, tunnel, tmp_path):
    with Store.open(str(tmp_path / "replica.db")) as replica:
        replica.forward = lambda principal, operation: do(store, operation, principal)
        services = Services(https=(Site(domain="shop.example.org", port=80), Site(domain="no name")))
        applied = apply_services(replica, tunnel.uid, services, DOMAIN)
    assert [site.domain for site in store.sites.select(tunnel.uid)] == ["shop.example.org"]
    assert [result.error is None for result in applied.accepted.https] == [True, False]
    assert applied.revision == store.rules.read(tunnel.uid).rev


def test_list_is_held_to_what_the_administration_is_held_to(store, tunnel):
    """Certificates that are none, names of users that are missing, destinations that cannot be: each refused alone."""
    junk = base64.b64encode(b"no certificate").decode()
    sites = (
        Site(domain="good.example.org", port=80), Site(domain="junk.example.org", ca=junk, private_key=junk),
        Site(domain="half.example.org", ca="/etc/ssl/a.pem"),
        Site(domain="nobody.example.org", basic_http_auth="no user name"),
        Site(domain="spaces.example.org", destination="not a host"),
        Site(domain="nowhere.example.org", upstream_url="http://a b/"),
        Site(domain="nul.example.org", web_root="/srv/\0"), Site(domain="relative.example.org", web_root="www"),
        Site(domain="files.example.org", ca="/etc/ssl/a.pem", private_key="/etc/ssl/a.key"),
    )
    applied = apply_services(store, tunnel.uid, Services(https=sites), DOMAIN)
    codes = {one.domain: one.error.code if one.error else None for one in applied.accepted.https}
    assert codes == {
        "good.example.org": None, "junk.example.org": "SPK-RULE", "half.example.org": "SPK-RULE",
        "nobody.example.org": "SPK-RULE", "spaces.example.org": "SPK-RULE", "files.example.org": None,
        "nowhere.example.org": "SPK-RULE", "nul.example.org": "SPK-RULE", "relative.example.org": "SPK-RULE",
    }
    assert [site.domain for site in store.sites.select()] == ["files.example.org", "good.example.org"]


def test_list_password_without_a_hash_is_refused_and_not_stored(store, tunnel):
    """One that nobody hashed, as those beyond the bound of a list."""
    sites = (Site(domain="a.example.org", password="sesame"), Site(domain="b.example.org", password="sesame"))
    sealed = hash_of("sesame")
    applied = apply_services(
        store, tunnel.uid, Services(https=sites), DOMAIN, {("a.example.org", "sesame"): sealed}
    )
    assert [one.error.code if one.error else None for one in applied.accepted.https] == [None, "SPK-LIMIT"]
    assert [site.rule["password"] for site in store.sites.select()] == [sealed]


def test_list_with_a_limit_out_of_bounds_loses_that_rule_alone(store, tunnel):
    number = do(store, AllocatePort(tunnel.uid, 22000, 22999))
    services = Services(
        https=(
            Site(domain="good.example.org", port=80, max_body=1000),
            Site(domain="bad.example.org", port=80, response_timeout=-1),
        ),
        ports=(Port(port=number, destination="localhost", dst_port=1, udp_timeout=86401),),
    )
    accepted = apply_services(store, tunnel.uid, services, DOMAIN).accepted
    assert [result.error and result.error.code for result in accepted.https] == [None, "SPK-RULE"]
    assert "udpTimeout 86401 is not between 1 and 86400 seconds" in accepted.ports[0].error.message
    assert [site.rule for site in store.sites.select()] == [{"domain": "good.example.org", "port": 80, "maxBody": 1000}]
