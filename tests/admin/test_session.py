from __future__ import annotations

import dataclasses

from spokes.admin.context import Role
from spokes.model.tunnels import CreateTunnel, SetTunnelState
from spokes.model.users import CreateUser
from spokes.store import PresenceUpdate, TunnelState
from tests.support.admin import ADMINISTRATOR
from tests.support.operations import do


def test_info_counts_tunnels_and_alerts(api, store, admin, control):
    control.answers["status"] = {"uptime_s": 77}
    tunnels = [do(store, CreateTunnel(name=f"t{number}", domain="tun.example.net"))[0] for number in range(3)]
    store.presence.write([PresenceUpdate(tunnel_uid=tunnels[0].uid, state=TunnelState.ONLINE, last_active=1.0)])
    do(store, SetTunnelState(tunnels[1].uid, TunnelState.SHUTDOWN))
    store.alerts.open("disk", "/", "warning", "nearly full")
    answer = api.get("info").json
    assert answer.pop("uptime") == 77
    assert answer == {
        "status": True, "error": "", "message": "", "version": admin.version, "alerts": 1, "activeTuns": 2,
        "onlineTuns": 1, "maxTuns": 1_000_000, "licenseExpires": "9999-12-31T23:59:59Z",
    }


def test_info_basic_caller_gets_their_own_figures(api, store, caller):
    user = do(store, CreateUser())
    do(store, CreateTunnel(name="theirs", domain="tun.example.net", user_uid=user.uid))
    do(store, CreateTunnel(name="another's", domain="tun.example.net"))
    store.alerts.open("disk", "/", "warning", "nearly full")
    caller.caller = dataclasses.replace(ADMINISTRATOR, role=Role.BASIC, user_uid=user.uid)
    answer = api.get("info").json
    assert (answer["activeTuns"], answer["onlineTuns"], answer["alerts"]) == (1, 0, 0)


def test_info_server_gone_still_answers(api, control):
    control.gone = True
    assert api.get("info").json["uptime"] >= 0


def test_license_is_none_that_a_program_could_run_into(api):
    answer = api.get("license/info").json
    assert (answer["maxTunnels"], answer["expires"]) == (1_000_000, "9999-12-31T23:59:59Z")


def test_healthz_and_welcome_need_no_session(api, store):
    assert api.client.simulate_get("/healthz").json == {"status": True, "error": ""}
    assert "It works" in api.client.simulate_get("/").text
    store.close()
    assert api.client.simulate_get("/healthz").status_code == 503
