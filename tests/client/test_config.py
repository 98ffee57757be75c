import json
import os
import pwd
import stat

import pytest

from spokes.client.config import ClientConfig, find_path, give_to_unit, join_host_port, split_host_port
from spokes.client.config_edit import edit_config
from spokes.errors import ConfigError
from spokes.wire.rules import Port, Site


def test_save_new_file_only_owner_reads(tmp_path):
    path = tmp_path / "made" / "config.json"
    ClientConfig(path, {"serverHost": "tun.example", "key": "secret"}).save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]


def test_save_over_readable_file_closes_it(config_path):
    config_path.chmod(0o644)
    ClientConfig.load(config_path).save()
    assert stat.S_IMODE(config_path.stat().st_mode) == 0o600


def test_rewrite_unknown_keys_are_kept(config_path):
    document = json.loads(config_path.read_text())
    document["fromTheFuture"] = {"a": [1, None]}
    document["https"] = [{"domain": "a.example", "port": 80, "newMember": 7}, {"domain": "b.example", "port": 81}]
    document["portmaps"] = [{"listenPort": 1, "x": 2}]
    config_path.write_text(json.dumps(document))
    with edit_config(config_path) as config:
        config.set_sites([Site(domain="A.example", port=8080), Site(domain="c.example", port=1)])
    rewritten = json.loads(config_path.read_text())
    assert rewritten["fromTheFuture"] == {"a": [1, None]}
    assert rewritten["portmaps"] == [{"listenPort": 1, "x": 2}]
    assert rewritten["https"] == [
        {"domain": "A.example", "port": 8080, "newMember": 7},
        {"domain": "c.example", "port": 1},
    ]


def test_edit_error_inside_leaves_the_file(config_path):
    before = config_path.read_bytes()
    with pytest.raises(RuntimeError), edit_config(config_path) as config:
        config.set_ports([Port(port=22000)])
        raise RuntimeError
    assert config_path.read_bytes() == before


def test_load_null_lists_and_elements_read_as_nothing(config_path):
    config_path.write_text(json.dumps({"https": None, "ports": [None, {"port": 22000, "destination": None}]}))
    config = ClientConfig.load(config_path)
    assert config.sites() == []
    assert config.ports() == [Port(port=22000)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "one JSON object"),
        ('{"key": 5}', "key must be a string"),
        ('{"unmanaged": "yes"}', "unmanaged must be true or false"),
        ('{"remoteTargets": "/srv"}', "remoteTargets must be a list"),
        ('{"remoteTargets": ["srv"]}', "remoteTargets: 'srv' names no service or directory"),
        ('{"https": {}}', "https must be a list of objects"),
        ('{"ports": [5]}', "ports must be a list of objects"),
        ('{"https": [{"port": 80}]}', "domain"),
        ('{"https": [{"domain": "a", "port": "80"}]}', "Expected `int`"),
        ('{"ports": [{"port": 70000}]}', "ports 70000"),
        ('{"https": [{"domain": "a", "upstreamURL": "ftp://x"}]}', "upstreamURL"),
    ],
)
def test_load_half_understood_file_names_file_and_fault(config_path, text, words):
    config_path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        ClientConfig.load(config_path)
    assert str(config_path) in str(caught.value)
    assert words in str(caught.value)


def test_load_missing_file_says_what_to_type(tmp_path):
    with pytest.raises(ConfigError) as caught:
        ClientConfig.load(tmp_path / "none.json")
    assert "spoke configure" in caught.value.hint


def test_require_identity_missing_key_is_named(config_path):
    config = ClientConfig(config_path, {"serverHost": "tun.example"})
    with pytest.raises(ConfigError, match="key is missing"):
        config.require_identity()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tun.example", "tun.example", 443),
        ("tun.example:8443", "tun.example", 8443),
        ("[2001:db8::1]:8443", "2001:db8::1", 8443),
        ("[::1]", "::1", 443),
        ("2001:db8::1", "2001:db8::1", 443),
    ],
)
def test_split_host_port_forms_come_back(text, host, port):
    assert split_host_port(text) == (host, port)
    assert split_host_port(join_host_port(host, port)) == (host, port)


@pytest.mark.parametrize("text", ["", ":443", "host:", "host:x", "host:0", "host:70000", "[::1", "[::1]x", "host:٤"])
def test_split_host_port_nonsense_is_refused(text):
    with pytest.raises(ConfigError):
        split_host_port(text)


@pytest.mark.parametrize("readable", [False, True])
def test_find_path_file_of_the_system_counts_where_it_can_be_read(tmp_path, monkeypatch, readable):
    own, system = tmp_path / "own.json", tmp_path / "system.json"
    system.touch()
    monkeypatch.setattr("spokes.client.config.SYSTEM_PATH", system)
    monkeypatch.setattr("spokes.client.config.user_path", lambda: own)
    monkeypatch.setattr("os.access", lambda asked, mode: readable)
    assert find_path(None) == (system if readable else own)
    own.touch()
    assert find_path(None) == own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for a unit's user")
def test_give_to_unit_file_and_folder_belong_to_its_user(tmp_path, monkeypatch):
    path = tmp_path / "spoke" / "config.json"
    path.parent.mkdir()
    path.touch()
    unit = pwd.getpwnam("nobody")
    monkeypatch.setattr("spokes.client.config.UNIT_USER", "nobody")
    give_to_unit(path)
    assert path.stat().st_uid == 0  # any other place is root's own affair
    monkeypatch.setattr("spokes.client.config.SYSTEM_PATH", path)
    give_to_unit(path)
    assert {(owned.stat().st_uid, owned.stat().st_gid) for owned in (path, path.parent)} == {
        (unit.pw_uid, unit.pw_gid)
    }


def test_find_path_given_wins(tmp_path):
    assert find_path(tmp_path / "x.json") == tmp_path / "x.json"


@pytest.mark.parametrize(
    ("member", "servers"),
    [
        (None, []),
        ([], []),
        ("", []),
        ("192.0.2.53", [("192.0.2.53", 53)]),
        (["192.0.2.53:5353", "[::1]:54", "::1", "::1"], [("192.0.2.53", 5353), ("::1", 54), ("::1", 53)]),
    ],
)
def test_name_servers_of_the_file(config_path, member, servers):
    config_path.write_text(json.dumps(json.loads(config_path.read_text()) | {"resolver": member}))
    assert [(one.host, one.port) for one in ClientConfig.load(config_path).name_servers()] == servers


@pytest.mark.parametrize(
    ("members", "keys"),
    [
        ({"serverKey": None}, []),
        ({"serverKey": "aa" * 32}, ["aa" * 32]),
        ({"serverKey": "aa" * 32, "serverKeys": ["bb" * 32, "aa" * 32, ""]}, ["aa" * 32, "bb" * 32]),
        ({"serverKey": "", "serverKeys": ["bb" * 32]}, ["bb" * 32]),
    ],
)
def test_server_keys_of_the_file(config_path, members, keys):
    config_path.write_text(json.dumps(json.loads(config_path.read_text()) | members))
    assert ClientConfig.load(config_path).server_keys() == keys


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"serverKeys": "aa" * 32}, "serverKeys must be a list"),
        ({"serverKeys": ["aa" * 32] * 17}, "more than 16"),
        ({"ha": "all"}, "ha must be active-active or master-only"),
        ({"ha": True}, "ha must be a string"),
    ],
)
def test_member_about_nodes_that_cannot_be_is_refused(config_path, members, words):
    config_path.write_text(json.dumps(json.loads(config_path.read_text()) | members))
    with pytest.raises(ConfigError, match=words):
        ClientConfig.load(config_path)


@pytest.mark.parametrize("member", ["ns.example", ":53", [53], {"a": 1}, 53, "192.0.2.53:x"])
def test_name_server_that_is_none_is_refused(config_path, member):
    config_path.write_text(json.dumps(json.loads(config_path.read_text()) | {"resolver": member}))
    with pytest.raises(ConfigError, match="resolver: "):
        ClientConfig.load(config_path)
