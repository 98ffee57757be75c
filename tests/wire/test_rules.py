"""Rules: JSON names of the configuration, zero values left out, bad rules refused."""

import json

import msgspec
import pytest

from spokes.errors import RuleError
from spokes.wire.rules import FwRule, Port, PortMap, Site, TunConfig, check_port, check_site, serves_plain_http

SITE_KEYS = {
    "domain", "secure", "destination", "port", "tls", "upstreamURL", "webRoot", "useLetsEnc", "ca", "privateKey",
    "firewall", "redirect", "password", "requires2FA", "basicHttpAuth", "redirectURL", "rewriteHost",
    "insecureUpstream", "authPageOpts",
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
        (Port, {"port", "destination", "dstPort", "firewall"}),
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


@pytest.mark.parametrize("host", ["a.example.org", "my_host:8080", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_check_site_rewrite_host_is_a_host(host):
    check_site(Site(domain="a", rewrite_host=host))


@pytest.mark.parametrize("host", [
    "x\r\nX-Evil: z", "a b", "a\n", "a,b", "a/b", "u@h", "\u00e9", "a:x", "a:", "[::1", " a",
])
def test_check_site_rewrite_host_that_is_none_is_refused(host):
    with pytest.raises(RuleError, match="rewriteHost"):
        check_site(Site(domain="a", rewrite_host=host))


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
