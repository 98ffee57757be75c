"""What rules of the server may name."""

import pytest

from spokes.client.remote_targets import RemoteTargets, targets_of
from spokes.errors import ConfigError
from spokes.wire.rules import Port, Site

TARGETS = RemoteTargets(["127.0.0.1:8080", "LocalHost:*", "unix:/run/app.sock", "/srv/www/", "[::1]:80", "nas:443"])


@pytest.mark.parametrize(
    "rule",
    [
        Site(domain="a.example", destination="127.0.0.1", port=8080),
        Site(domain="a.example", port=9),
        Site(domain="a.example", destination="LOCALHOST", tls=443),
        Site(domain="a.example", destination="unix:/run/app.sock"),
        Site(domain="a.example", destination="::1", port=80),
        Site(domain="a.example", destination="[::1]", port=80),
        Site(domain="a.example", web_root="/srv/www"),
        Site(domain="a.example", upstream_url="http://127.0.0.1:8080"),
        Site(domain="a.example", upstream_url="https://nas/"),
        Site(domain="a.example", redirect_url="https://elsewhere.example/"),
        Port(port=22000),
        Port(port=22000, destination="127.0.0.1", dst_port=8080),
        Port(port=22000, dst_port=22),
    ],
)
def test_rule_that_names_what_is_allowed_is_not_refused(rule):
    assert TARGETS.refused(rule) == ""


@pytest.mark.parametrize(
    ("rule", "target"),
    [
        (Site(domain="a.example", destination="127.0.0.1", port=22), "127.0.0.1:22"),
        (Site(domain="a.example", destination="127.0.0.1", port=8080, tls=22), "127.0.0.1:22"),
        (Site(domain="a.example", destination="127.1", port=8080), "127.1:8080"),
        (Site(domain="a.example", destination="unix:/run/docker.sock"), "unix:/run/docker.sock"),
        (Site(domain="a.example", web_root="/"), "/"),
        (Site(domain="a.example", web_root="/srv"), "/srv"),
        (Site(domain="a.example", web_root="/srv/www/.."), "/srv/www/.."),
        (Site(domain="a.example", web_root="/srv/www/link"), "/srv/www/link"),
        (Site(domain="a.example", web_root="//srv/www"), "//srv/www"),
        (Site(domain="a.example", web_root="/srv/www", destination="10.0.0.1", port=80), "10.0.0.1:80"),
        (Site(domain="a.example", web_root="localhost:1"), "./localhost:1"),
        (Site(domain="a.example", upstream_url="http://169.254.169.254"), "169.254.169.254:80"),
        (Site(domain="a.example", destination="127.0.0.1", port=8080, upstream_url="http://10.0.0.1"), "10.0.0.1:80"),
        (Port(port=22000, destination="unix:/run/docker.sock"), "unix:/run/docker.sock"),
        (Port(port=22000, destination="10.0.0.1", dst_port=22), "10.0.0.1:22"),
    ],
)
def test_rule_that_names_anything_else_is_refused_with_it(rule, target):
    assert TARGETS.refused(rule) == target


def test_rule_may_name_what_the_own_rule_of_that_name_does():
    own = Site(domain="a.example", destination="10.0.0.1", port=80)
    assert TARGETS.refused(Site(domain="a.example", destination="10.0.0.1", port=80, secure=True), own) == ""
    assert TARGETS.refused(Site(domain="a.example", destination="10.0.0.1", port=81), own) == "10.0.0.1:81"


def test_no_entries_allow_what_names_nothing():
    assert RemoteTargets([]).refused(Port(port=22000)) == ""
    assert RemoteTargets([]).refused(Site(domain="a.example", port=80)) == "localhost:80"


def test_targets_of_a_site_are_all_it_names_used_or_not():
    site = Site(domain="a.example", destination="h", port=1, tls=2, upstream_url="http://u:3", web_root="/w/")
    assert targets_of(site) == ["h:2", "h:1", "u:3", "/w"]


@pytest.mark.parametrize(
    "entry",
    ["", "localhost", "host:", ":80", "host:0", "host:65536", "host:" + "9" * 5000, "host:x", "www", "unix:x", 5, None],
)
def test_entry_that_names_nothing_is_refused(entry):
    with pytest.raises(ConfigError, match="remoteTargets"):
        RemoteTargets([entry])
