"""Rules: JSON names of the configuration, zero values left out, bad rules refused."""

import json

import msgspec
import pytest

from spokes.errors import RuleError
from spokes.wire.rules import (
    LIMITS,
    FwRule,
    Port,
    PortMap,
    Site,
    TunConfig,
    check_destination,
    check_port,
    check_site,
    check_upstream,
    limit_in,
    serves_plain_http,
)

SITE_KEYS = {
    "domain", "secure", "destination", "port", "tls", "upstreamURL", "webRoot", "useLetsEnc", "ca", "privateKey",
    "firewall", "redirect", "password", "requires2FA", "basicHttpAuth", "redirectURL", "rewriteHost",
    "insecureUpstream", "authPageOpts", "responseTimeout", "maxBody", "maxHeaderLine",
}  # fmt: skip
CONFIG_KEYS = {
    "hostname",
    "serverKey",
    "serverHost",
    "key",
    "unmanaged",
    "version",
    "os",
    "arch",
    "https",
    "ports",
    "portmaps",
}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (Site, SITE_KEYS),
        (TunConfig, CONFIG_KEYS),
        (Port, {"port", "destination", "dstPort", "firewall", "udpTimeout"}),
        (PortMap, {"listenPort", "dstPort", "destination", "transport", "label", "http"}),
        (FwRule, {"sequence", "action", "network"}),
    ],
)
def test_rules_json_names_are_the_known_ones(kind, keys):
    assert {field.encode_name for field in msgspec.structs.fields(kind)} == keys


def test_port_without_forwarding_is_just_its_number():
    assert json.loads(msgspec.json.encode(Port(port=22001))) == {"port": 22001}


def test_config_empty_is_an_empty_object_and_unknown_keys_are_ignored():
    assert msgspec.json.encode(TunConfig()) == b"{}"
    assert msgspec.json.decode(b'{"hostname": "h", "colour": 1, "https": []}', type=TunConfig) == TunConfig(
        hostname="h"
    )


def test_check_site_bad_rules_are_refused():
    check_site(Site(domain="a", firewall=(FwRule(sequence=0, action="drop", network="10.0.0.1"),)))
    for site in (
        Site(),
        Site(domain="a", firewall=(FwRule(sequence=0, action="reject", network="10.0.0.0/8"),)),
        Site(domain="a", firewall=(FwRule(sequence=0, action="allow", network="10.0.0.0/33"),)),
    ):
        with pytest.raises(RuleError):
            check_site(site)


def test_check_port_bad_rules_are_refused():
    check_port(Port(port=22001))
    for port in (Port(), Port(port=22001, destination="10.0.0.5")):
        with pytest.raises(RuleError):
            check_port(port)


LIMIT_FIELDS = {
    "responseTimeout": "response_timeout", "maxBody": "max_body", "maxHeaderLine": "max_header_line"
}  # fmt: skip


@pytest.mark.parametrize("member", LIMITS)
def test_limit_out_of_bounds_is_refused_in_its_own_words(member):
    low, high, unit = LIMITS[member]

    def check(value):
        if member in LIMIT_FIELDS:
            check_site(Site(domain="a", **{LIMIT_FIELDS[member]: value}))
        else:
            check_port(Port(port=22001, udp_timeout=value))

    for good in (0, low, high):
        check(good)
        assert limit_in({member: good}, member) == good
    for bad in (-1, high + 1, *({low - 1} - {0})):
        with pytest.raises(RuleError, match=f"{member} {bad} is not between {low} and {high} {unit}"):
            check(bad)
        assert limit_in({member: bad}, member) == 0     # stored by whatever version: no reason to lose the rule
    for junk in (True, 1.5, "300", None, []):
        assert limit_in({member: junk}, member) == 0


def test_limit_that_is_wrong_is_read_so_that_it_costs_its_rule_alone():
    raw = b'{"https": [{"domain": "a", "maxBody": -5, "responseTimeout": 9000000000}], "ports": [{"udpTimeout": -1}]}'
    config = msgspec.json.decode(raw, type=TunConfig)
    with pytest.raises(RuleError, match="responseTimeout"):
        check_site(config.https[0])


@pytest.mark.parametrize("host", ["a.example.org", "my_host:8080", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_check_site_rewrite_host_is_a_host(host):
    check_site(Site(domain="a", rewrite_host=host))


@pytest.mark.parametrize("host", [
    "x\r\nX-Evil: z", "a b", "a\n", "a,b", "a/b", "u@h", "\u00e9", "a:x", "a:", "[::1", " a",
])
def test_check_site_rewrite_host_that_is_none_is_refused(host):
    with pytest.raises(RuleError, match="rewriteHost"):
        check_site(Site(domain="a", rewrite_host=host))


@pytest.mark.parametrize("host", ["a.example.org", "a:1", "a:65535", "127.0.0.1:80", "[::1]", "[::1]:80"])
def test_check_upstream_rewrite_host_names_a_host_and_a_port(host):
    check_upstream(Site(domain="a", rewrite_host=host))


@pytest.mark.parametrize("host", ["a:0", "a:65536", "a:99999", "[:::::]", "[1.2.3]:80", "a b"])
def test_check_upstream_rewrite_host_with_an_impossible_port_or_address_is_refused(host):
    with pytest.raises(RuleError, match="rewriteHost"):
        check_upstream(Site(domain="a", rewrite_host=host))


@pytest.mark.parametrize("rest", [
    "u@h", "u:secret@h/", "@h", "h/app", "h//", "h/?", "h?", "h?q=1", "h#", "h/#top", "h:80/app", "h/%2f"
])
def test_check_upstream_upstream_url_with_more_than_a_place_is_refused(rest):
    with pytest.raises(RuleError, match="upstreamURL") as refused:
        check_upstream(Site(domain="a", upstream_url=f"http://{rest}"))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("path", ["/", "/srv/www", "/srv/\u00fc b/"])
def test_check_upstream_web_root_is_an_absolute_path(path):
    check_upstream(Site(domain="a", web_root=path))


@pytest.mark.parametrize("path", ["www", "./www", "~/www", "\0", "/srv/\0", " /srv"])
def test_check_upstream_web_root_that_nobody_can_open_is_refused(path):
    with pytest.raises(RuleError, match="webRoot"):
        check_upstream(Site(domain="a", web_root=path))


@pytest.mark.parametrize("url", ["http://a", "http://my_host:8080", "http://10.0.0.5:80/", "http://[::1]:80", "HTTP://A"])
def test_check_upstream_upstream_url_names_a_host(url):
    check_upstream(Site(domain="a", upstream_url=url))


@pytest.mark.parametrize("url", [
    "http://", "http://a b/", "http://\0/", "http://a%00b/", "http://\u2028x/", "http://a,b/", "http://a..b/"
])
def test_check_upstream_upstream_url_without_a_host_is_refused(url):
    with pytest.raises(RuleError, match="upstreamURL"):
        check_upstream(Site(domain="a", upstream_url=url))


@pytest.mark.parametrize(
    ("rule", "plain"),
    [
        ({"tls": 8443}, False),
        ({"tls": 8443, "port": 0, "destination": "10.0.0.5"}, False),
        ({"tls": 8443, "port": 80}, True),
        ({"tls": 8443, "webRoot": "/srv"}, True),
        ({"tls": 8443, "upstreamURL": "http://a"}, True),
        ({"tls": 8443, "destination": "unix:/run/a"}, True),
        ({}, False),
    ],
)
def test_serves_plain_http_where_the_rule_names_somebody(rule, plain):
    assert serves_plain_http({"domain": "a", **rule}) is plain


@pytest.mark.parametrize(
    "destination", ["unix:/" + "x" * 107, "unix:/run/\x00", "unix:run/app.sock", "unix:/" + "\u00e4" * 54]
)
def test_destination_socket_that_cannot_be_one_is_refused(destination):
    with pytest.raises(RuleError):
        check_destination(destination)


def test_destination_socket_with_the_longest_path_is_taken():
    check_destination("unix:/" + "x" * 106)
