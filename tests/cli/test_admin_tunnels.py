"""`spokes tunnel`, `port`, `apikey`, `webhook`, `alerts`, `events` with the server down."""

import json

import pytest

from spokes.errors import InactiveError, TokenError
from spokes.ids import ZERO_UID
from spokes.model.sites import PutSites
from tests.admin.test_sites import pem_pair
from tests.support.operations import do, password_hash

DOMAIN = "tun.test"


@pytest.fixture
def tunnel(spokes):
    made = spokes.json("tunnel", "create", "--name", "branch 7", "--hostname", f"shop.{DOMAIN}", "--domain", DOMAIN)
    return made["tunnel"] | {"key": made["token"]["value"]}


def test_tunnel_found_by_id_host_name_and_search(spokes, tunnel):
    for name in (tunnel["id"], tunnel["id"].upper(), "SHOP.tun.test."):
        assert spokes.json("tunnel", "show", name)["id"] == tunnel["id"]
    assert spokes.json("tunnel", "search", "BRANCH")["total"] == 1
    assert spokes.json("tunnel", "search", "%")["total"] == 0
    assert spokes.json("tunnel", "list", "--user", "system")["total"] == 1
    assert spokes.json("tunnel", "list", "--state", "online")["total"] == 0
    assert "never seen" in spokes("tunnel", "list").out
    assert "[SPK-TAKEN]" in spokes(
        "tunnel", "create", "--hostname", tunnel["hostname"], "--domain", DOMAIN, code=1
    ).err


def test_tunnel_shut_down_refuses_its_key_until_started(spokes, tunnel):
    spokes("tunnel", "shutdown", tunnel["id"])
    with spokes.store() as store, pytest.raises(InactiveError):
        store.tunnels.find_by_key(tunnel["key"])
    assert spokes.json("tunnel", "list", "--state", "shutdown")["total"] == 1
    spokes("tunnel", "start", tunnel["id"])
    with spokes.store() as store:
        assert store.tunnels.find_by_key(tunnel["key"]).uid == tunnel["id"]
    assert "not on-line" in spokes("tunnel", "stop", tunnel["id"]).out


def test_tunnel_assigned_to_a_user_and_back_to_the_system(spokes, tunnel):
    user = spokes.json("user", "create", "--email", "mara@example.org")["id"]
    moved = spokes.json("tunnel", "assign", tunnel["id"], "mara@example.org", "--domain", DOMAIN)
    assert (moved["userID"], moved["name"]) == (user, "branch 7")
    assert "mara@example.org" in spokes("tunnel", "list").out
    assert spokes.json("tunnel", "assign", tunnel["id"], "system", "--domain", DOMAIN)["userID"] == ZERO_UID


def test_tunnel_config_hides_secrets_unless_asked(spokes, tunnel):
    ca, key = pem_pair()
    rule = {"domain": "a.example.org", "port": 80, "password": password_hash("x"), "ca": ca, "privateKey": key}
    with spokes.store() as store:
        do(store, PutSites(tunnel["id"], [rule]))
    (hidden,) = (config := spokes.json("tunnel", "config", tunnel["id"]))["https"]
    assert (hidden["password"], hidden["privateKey"], hidden["port"]) == ("…", "…", 80)
    assert "key" not in config
    whole = spokes.json("tunnel", "config", tunnel["id"], "--secrets")
    assert (whole["key"], whole["https"][0]["password"]) == (tunnel["key"], password_hash("x"))


def test_port_allocated_from_the_range_given_and_released(spokes, tunnel):
    made = spokes.json("port", "allocate", tunnel["hostname"], "--tcp-ports", "30000-30000")
    assert made == {"port": 30000, "tunID": tunnel["id"]}
    assert "[SPK-LIMIT]" in spokes("port", "allocate", tunnel["id"], "--tcp-ports", "30000-30000", code=1).err
    assert spokes.json("port", "range", "--tcp-ports", "30000-30009") == {"begin": 30000, "end": 30009, "used": 1}
    assert spokes.json("port", "list", "--tunnel", tunnel["id"]) == {"ports": [made]}
    spokes("port", "release", 30000)
    assert spokes.json("port", "list") == {"ports": []}


def test_apikey_value_is_shown_once_and_opens_until_revoked(spokes):
    made = spokes.json("apikey", "create", "--description", "billing", "--scope", "read")
    assert made["scopes"] == ["read"]
    assert made["value"] not in spokes("apikey", "list").out + spokes("apikey", "list", "--json").out
    with spokes.store() as store:
        assert store.api_keys.find(made["value"]).uid == made["id"]
        spokes("apikey", "edit", made["id"], "--inactive")
        with pytest.raises(InactiveError):
            store.api_keys.find(made["value"])
        spokes("apikey", "revoke", made["id"])
        with pytest.raises(TokenError):
            store.api_keys.find(made["value"])


def test_webhook_secret_from_a_file_and_kinds_checked(spokes, tmp_path):
    file = tmp_path / "secret"
    file.write_text("0123456789abcdef\n")
    made = spokes.json(
        "webhook", "create", "https://hooks.example.org/", "--kind", "service.up", "--kind", "alert",
        "--secret-file", file,
    )  # fmt: skip
    assert (made["secret"], made["kinds"]) == ("0123456789abcdef", ["alert", "service.up"])
    assert made["secret"] not in spokes("webhook", "list", "--json").out
    edited = spokes.json("webhook", "edit", made["id"], "--kind", "*", "--inactive")
    assert (edited["kinds"], edited["active"], edited["url"]) == (["*"], False, made["url"])
    file.write_text("short")
    assert "[SPK-VALUE]" in spokes("webhook", "edit", made["id"], "--secret-file", file, code=1).err
    assert "[SPK-NO-SERVER]" in spokes("webhook", "test", made["id"], code=1).err


def test_alert_acknowledged_is_seen_and_noted(spokes):
    with spokes.store() as store:
        alert = store.alerts.open("disk", "/var", "critical", "nearly full")
    assert spokes.json("alerts", "list", "--open")["alerts"][0]["text"] == "nearly full"
    seen = spokes.json("alerts", "acknowledge", alert.uid)
    assert not seen["acknowledged"].startswith("0001")
    assert spokes.json("events", "list", "--object", alert.uid)["events"][0]["action"] == "alert.acknowledge"


def test_events_chosen_paged_and_exported(spokes, tunnel):
    for name in ("a", "b", "c"):
        spokes("tunnel", "assign", tunnel["id"], "system", "--name", name, "--domain", DOMAIN)
    newest = spokes.json("events", "list", "--action", "tunnel", "--limit", 2)["events"]
    assert [one["after"]["name"] for one in newest] == ["c", "b"]
    older = spokes.json("events", "list", "--action", "tunnel", "--before", newest[-1]["seq"])["events"]
    assert [one["action"] for one in older] == ["tunnel.edit", "tunnel.create"]
    lines = [json.loads(line) for line in spokes("events", "export").out.splitlines()]
    assert [one["hash"] for one in lines[:-1]] == [one["previous_hash"] for one in lines[1:]]
    table = spokes("events", "export", "--format", "csv").out.splitlines()
    assert len(table) == len(lines) + 1


def test_events_changed_in_the_database_are_found_out(spokes, tunnel):
    with spokes.store() as store:
        store._db.query("UPDATE admin_event SET actor_name = 'somebody else' WHERE seq = 1")
    assert "event 1 " in spokes("events", "verify", code=1).err
    assert spokes("events", "verify", "--json", code=1).json == {"whole": False, "brokenAt": 1}


def test_tunnel_key_switched_off_on_and_renewed(spokes):
    made = spokes.json("tunnel", "create", "--domain", "tun.test")
    uid, key = made["tunnel"]["id"], made["token"]["value"]
    assert spokes.json("tunnel", "key", "deactivate", uid) == {"id": uid, "active": False}
    renewed = spokes.json("tunnel", "key", "renew", uid)
    assert renewed["value"] != key and not renewed["active"]
    assert spokes.json("tunnel", "key", "activate", made["tunnel"]["hostname"]) == {"id": uid, "active": True}
    assert "Key: " in spokes("tunnel", "key", "renew", uid).out
