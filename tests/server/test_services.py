from __future__ import annotations

import pytest

from spokes.errors import InactiveError
from spokes.server.services import apply_services
from spokes.store import Store, TunnelState
from spokes.store.authority import client_stands
from spokes.wire.messages import Services
from spokes.wire.rules import Site

DOMAIN = "tun.example.net"
BARS = {
    "shut down": lambda store, tunnel: store.set_tunnel_state(tunnel.uid, TunnelState.SHUTDOWN),
    "owner deactivated": lambda store, tunnel: store.edit_user(tunnel.user_uid, active=False),
}


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "spokes.db")) as opened:
        yield opened


@pytest.fixture
def tunnel(store):
    return store.create_tunnel("shop", domain=DOMAIN, user_uid=store.create_user().uid)[0]


@pytest.mark.parametrize("bar", BARS)
def test_list_of_a_tunnel_that_may_not_log_in_any_longer_writes_nothing(store, tunnel, bar):
    """It may be on its way to the store when the operator decides."""
    services = Services(https=(Site(domain="shop.example.org", port=80),))
    BARS[bar](store, tunnel)
    with pytest.raises(InactiveError):
        apply_services(store, tunnel.uid, services, DOMAIN)
    assert store.list_sites() == []


@pytest.mark.parametrize("bar", BARS)
def test_change_that_such_a_client_asked_for_is_refused(store, tunnel, bar):
    with store.checking(client_stands(tunnel.uid)):
        store.edit_tunnel(tunnel.uid, name="before")
    BARS[bar](store, tunnel)
    with store.checking(client_stands(tunnel.uid)), pytest.raises(InactiveError):
        store.edit_tunnel(tunnel.uid, name="after")
    assert store.get_tunnel(tunnel.uid).name == "before"
