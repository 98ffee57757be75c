"""Where webhooks may lead."""

import ipaddress

import pytest

from spokes.errors import WebhookAddressError
from spokes.resolver import Resolver
from spokes.server.notify.resolver import SharedResolver
from spokes.server.notify.webhook_address import is_public, parse_target, resolve


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("127.255.0.9", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("239.1.1.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fd12::1", False),
        ("ff02::1", False),
        ("ff0e::1", False),
        ("2001:db8::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
        ("2002:c0a8:101::1", False),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", False),
        ("64:ff9b:1::7f00:1", False),
        ("::ffff:0:7f00:1", False),
        ("2606:4700::5efe:a00:1", False),
        ("2606:4700::200:5efe:7f00:1", False),
        ("2606:4700::5efe:808:808", True),
        ("fec0::1", False),
        ("3fff::1", False),
        ("192.88.99.1", False),
    ],
)
def test_address_public_or_not(address, public):
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    "url",
    [
        "", "hooks.example.org", "ftp://hooks.example.org/", "http://", "http:///x", "http://user@hooks.example.org/",
        "http://user:pw@hooks.example.org/", "http://hooks.example.org:0/", "http://hooks.example.org:99999/",
        "http://[::1/", "http://a..b/", "http://exa mple.org/", "http://127.1/", "http://0x7f000001/",
        "http://2130706433/", "file:///etc/passwd", "gopher://hooks.example.org/",
    ],
)  # fmt: skip
def test_target_malformed_is_refused(url):
    with pytest.raises(WebhookAddressError):
        parse_target(url)


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://Hooks.Example.org", "hooks.example.org", "/"),
        ("https://hooks.example.org:443/a?b=c", "hooks.example.org", "/a?b=c"),
        ("http://hooks.example.org:8080/", "hooks.example.org:8080", "/"),
        ("http://[2606:4700::1111]:8080/x", "[2606:4700::1111]:8080", "/x"),
        ("http://hooks.example.org/a\rb c", "hooks.example.org", "/ab%20c"),
        ("http://hooks.example.org/é?ü", "hooks.example.org", "/%C3%A9?%C3%BC"),
    ],
)
def test_target_is_taken_apart_in_one_form(url, authority, path):
    target = parse_target(url)
    assert (target.authority, target.path) == (authority, path)
    assert target.path.isascii()


@pytest.mark.parametrize("url", ["http://localhost/", "http://127.0.0.1/", "http://[::ffff:127.0.0.1]/", "http://[::1]/"])
async def test_resolve_inside_is_refused_unless_allowed(url):
    target = parse_target(url)
    with pytest.raises(WebhookAddressError, match="not a public address"):
        await resolve(target, allow_private=False, lookup=SharedResolver(Resolver().addresses))
    assert await resolve(target, allow_private=True, lookup=SharedResolver(Resolver().addresses))


async def test_resolve_one_address_inside_refuses_the_name():
    async def both(_host):
        return ["8.8.8.8", "10.0.0.1"]

    with pytest.raises(WebhookAddressError, match="leads to") as refused:
        await resolve(parse_target("http://hooks.example.org/"), allow_private=False, lookup=both)
    assert "10.0.0.1" not in str(refused.value)              # tenants read it
