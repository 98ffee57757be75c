import json

import pytest

from spokes.client.configured_rules import ConfiguredRules
from spokes.wire.messages import Accepted, Fault, PortResult, SiteResult
from spokes.wire.rules import Port, PortMap, Site, TunConfig

FORWARDED = Port(port=22000, destination="localhost", dst_port=22)


def write(path, **members):
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("local", "remote", "kept"),
    [
        ((FORWARDED,), (Port(port=22000),), (FORWARDED,)),  # typed while no client ran
        ((), (Port(port=22000),), (Port(port=22000),)),  # allocated by the operator meanwhile
        ((Port(port=22000),), (FORWARDED,), (FORWARDED,)),  # forwarded by the operator meanwhile
        ((FORWARDED,), (), (FORWARDED,)),
    ],
)
def test_take_remote_ports_never_agreed_on(config_path, local, remote, kept):
    rules = ConfiguredRules(config_path)
    write(config_path, ports=[{"port": p.port, "destination": p.destination, "dstPort": p.dst_port} for p in local])
    rules.take_remote(TunConfig(ports=remote))
    assert rules.services().ports == kept


def test_take_remote_port_reset_by_the_operator_is_reset_here(config_path):
    rule = {"port": 22000, "destination": "localhost", "dstPort": 22}
    write(config_path, ports=[rule], synced={"ports": [rule]})
    rules = ConfiguredRules(config_path)
    rules.take_remote(TunConfig(ports=(Port(port=22000),)))
    assert rules.services().ports == (Port(port=22000),)


def test_take_remote_unknown_members_of_the_file_stay(config_path):
    write(config_path, https=[{"domain": "a.example", "port": 1, "newMember": True}], extra=5)
    rules = ConfiguredRules(config_path)
    rules.take_remote(TunConfig(https=(Site(domain="a.example", port=2),)))
    assert read(config_path)["https"] == [{"domain": "a.example", "port": 2, "newMember": True}]
    assert read(config_path)["extra"] == 5


def test_take_accepted_refused_rules_are_not_agreed_on(config_path):
    write(config_path, https=[{"domain": "a.example", "port": 1}, {"domain": "b.example", "port": 2}],
          ports=[{"port": 22000}])  # fmt: skip
    fault = Fault(code="SPK-TAKEN")
    rules = ConfiguredRules(config_path)
    rules.take_accepted(
        rules.services(),
        Accepted(
            https=(SiteResult(domain="a.example"), SiteResult(domain="B.example", error=fault)),
            ports=(PortResult(port=22000, error=fault),),
        ),
    )
    assert read(config_path)["synced"] == {"https": [{"domain": "a.example", "port": 1}], "ports": []}


def test_services_file_damaged_meanwhile_last_good_rules_go_on(config_path):
    write(config_path, https=[{"domain": "a.example", "port": 1}])
    rules = ConfiguredRules(config_path)
    config_path.write_text("{")
    assert [site.domain for site in rules.services().https] == ["a.example"]


def announce(rules):
    """The server puts everything in force."""
    services = rules.services()
    rules.take_accepted(services, Accepted(https=tuple(SiteResult(domain=site.domain) for site in services.https)))
    return services


def test_temporary_rule_typed_now_wins_at_the_start_and_yields_to_later_changes(config_path):
    temporary = Site(domain="a.example", port=2)
    rules = ConfiguredRules(config_path, temporary_sites=(temporary,))
    rules.take_remote(TunConfig(https=(Site(domain="a.example", port=1),)))  # of an earlier run
    assert announce(rules).https == (temporary,)
    changed = Site(domain="a.example", port=3)
    rules.take_remote(TunConfig(https=(changed,)))
    assert announce(rules).https == (changed,)
    assert read(config_path).get("https", []) == []  # for this run only
    rules.take_remote(TunConfig())
    assert announce(rules).https == ()


def test_temporary_rule_hides_the_files_own_which_stays_as_it_was(config_path):
    write(config_path, https=[{"domain": "a.example", "port": 1, "newMember": True}])
    rules = ConfiguredRules(config_path, temporary_sites=(Site(domain="A.example", port=2),))
    for _ in range(2):
        rules.take_remote(TunConfig(https=announce(rules).https))
        assert [site.port for site in rules.services().https] == [2]
    assert read(config_path)["https"] == [{"domain": "a.example", "port": 1, "newMember": True}]


def test_take_remote_rule_that_cannot_be_served_is_left_out_and_the_file_stays_readable(config_path):
    rules = ConfiguredRules(config_path)
    bad = Site(domain="b.example", upstream_url="gopher://b")
    rules.take_remote(TunConfig(https=(Site(domain="a.example", port=1), bad)))
    assert [site.domain for site in ConfiguredRules(config_path).services().https] == ["a.example"]


def test_take_remote_port_maps_are_kept_and_ones_of_the_file_stay(config_path):
    own = {"listenPort": 1, "dstPort": 2, "destination": "", "transport": "tcp", "x": 1}
    write(config_path, portmaps=[own])
    rules = ConfiguredRules(config_path)
    theirs = PortMap(listen_port=5432, dst_port=22001, destination="", transport="tcp")
    rules.take_remote(TunConfig(portmaps=(theirs,)))
    assert [rule["listenPort"] for rule in read(config_path)["portmaps"]] == [1, 5432]
    rules.take_remote(TunConfig(portmaps=()))
    assert read(config_path)["portmaps"] == [own]


def test_take_accepted_what_was_announced_is_agreed_on_not_what_the_file_says_by_then(config_path):
    write(config_path, https=[{"domain": "a.example", "port": 1}])
    rules = ConfiguredRules(config_path)
    services = rules.services()
    write(config_path, https=[{"domain": "a.example", "port": 2}])  # typed while the answer was on its way
    rules.take_accepted(services, Accepted(https=(SiteResult(domain="a.example"),)))
    rules.take_remote(TunConfig(https=services.https))
    assert [site.port for site in rules.services().https] == [2]


def test_take_remote_names_what_it_may_not_and_nothing_changes(config_path, caplog):
    kept = {"domain": "kept.example", "destination": "127.0.0.1", "port": 8080}
    port = {"port": 22000, "destination": "127.0.0.1", "dstPort": 22}
    rules_now = {"https": [kept], "ports": [port]}
    write(config_path, **rules_now, synced=rules_now, remoteTargets=["/srv/www"])
    rules = ConfiguredRules(config_path)
    rules.take_remote(
        TunConfig(
            https=(
                Site(domain="kept.example", web_root="/"),
                Site(domain="secrets.example", web_root="/home"),
                Site(domain="www.example", web_root="/srv/www"),
            ),
            ports=(
                Port(port=22000, destination="10.0.0.1", dst_port=22),
                Port(port=22001, destination="h", dst_port=1),
            ),
        )
    )
    services = rules.services()
    served = [(site.domain, site.web_root) for site in services.https]
    assert served == [("kept.example", ""), ("www.example", "/srv/www")]
    assert services.ports == (Port(port=22000, destination="127.0.0.1", dst_port=22),)
    reasons = {record.reason for record in caplog.records}
    assert reasons == {f"remoteTargets does not name {what}" for what in ("/", "/home", "10.0.0.1:22", "h:1")}


def test_take_remote_may_remove_whatever_targets_are_named(config_path):
    rule = {"domain": "a.example", "port": 1}
    write(config_path, https=[rule], synced={"https": [rule]}, remoteTargets=[])
    rules = ConfiguredRules(config_path)
    rules.take_remote(TunConfig())
    assert rules.services().https == ()


@pytest.mark.parametrize("first", [(), ({"domain": "a.example", "port": 1},)])
def test_take_remote_rule_changed_and_removed_again_before_any_announcement_is_gone(config_path, first):
    write(config_path, https=list(first), synced={"https": list(first)})
    rules = ConfiguredRules(config_path)
    rules.take_remote(TunConfig(https=(Site(domain="a.example", port=2),), ports=(Port(port=22000),)))
    rules.take_remote(TunConfig())
    assert rules.services().https == ()
    assert rules.services().ports == ()
    assert read(config_path)["synced"] == {"https": [], "ports": []}


def test_take_remote_rule_typed_here_meanwhile_outlives_what_the_server_changes(config_path):
    rules = ConfiguredRules(config_path)
    rules.take_remote(TunConfig(https=(Site(domain="a.example", port=1),)))
    write(config_path, https=[{"domain": "a.example", "port": 2}, {"domain": "b.example", "port": 1}])
    rules.take_remote(TunConfig(https=(Site(domain="a.example", port=1), Site(domain="c.example", port=1))))
    served = [(site.domain, site.port) for site in rules.services().https]
    assert served == [("a.example", 2), ("b.example", 1), ("c.example", 1)]


def test_take_remote_refused_target_is_not_what_both_agree_on(config_path):
    write(config_path, remoteTargets=[])
    rules = ConfiguredRules(config_path)
    for _ in range(2):
        rules.take_remote(TunConfig(https=(Site(domain="a.example", port=1),)))
        assert rules.services().https == ()
    assert read(config_path)["synced"]["https"] == []


def test_take_remote_unmanaged_agrees_on_nothing(config_path):
    write(config_path, unmanaged=True)
    ConfiguredRules(config_path).take_remote(TunConfig(https=(Site(domain="a.example", port=1),)))
    assert "synced" not in read(config_path)
