from __future__ import annotations

import base64
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from spokes.admin.passwords import hash_text, verify_password
from spokes.model.domains import AllowDomains
from spokes.model.ports import AllocatePort
from spokes.model.rule_lists import ReplaceRules
from spokes.model.rules import HASH_COUNT_MAX
from spokes.model.sites import PutSites
from spokes.model.users import CreateUser
from tests.admin.tunnel_cases import DOMAIN, new_tunnel
from tests.support import admin_shapes as shapes
from tests.support.admin_shapes import check_shape
from tests.support.operations import do

UPDATE, REMOVE = "tunnel/traffic/http/update", "tunnel/traffic/http/remove"
EXAMPLE = {"sites": [{
    "domain": "shop.example.org", "destination": "127.0.0.1", "port": 8080, "useLetsEnc": True, "redirect": True,
    "firewall": [{"sequence": 1, "action": "allow", "network": "203.0.113.0/24"},
                 {"sequence": 2, "action": "allow", "network": "2001:db8:5::/48"}],
    "authPageOpts": {"title": "Staff only"},
}]}  # fmt: skip


@pytest.fixture
def tunnel(store):
    return new_tunnel(store)


@pytest.fixture
def update(api, tunnel):
    return lambda *sites: api.post(f"{UPDATE}/{tunnel.uid}", {"sites": list(sites)})


@pytest.fixture
def rules(store, tunnel):
    return lambda: {site.domain: dict(site.rule) for site in store.sites.select(tunnel.uid)}


def pem_pair(password: bytes = b""):
    """A certificate of its own making, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    sealed = BestAvailableEncryption(password) if password else NoEncryption()
    texts = certificate.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)
    return [base64.b64encode(text).decode() for text in texts]


def test_update_as_the_contract_shows(api, tunnel, control, rules):
    """Example 22."""
    answer = api.post(f"{UPDATE}/{tunnel.uid}", EXAMPLE).json
    check_shape(answer, {**shapes.ENVELOPE, "warning": shapes.Optional(shapes.text)})
    assert (answer["status"], answer["message"]) == (True, "1 site updated")
    assert answer["warning"] == "kept, but not in force in this version: firewall, redirect, useLetsEnc"
    assert rules() == {"shop.example.org": EXAMPLE["sites"][0]}
    assert control.called("changed") == [{}]


def test_update_replaces_only_the_domains_named_and_each_whole(update, rules):
    update({"domain": "a.example.org", "port": 1, "redirect": True}, {"domain": "b.example.org", "port": 2})
    assert update({"domain": "A.Example.org.", "tls": 443}).json["message"] == "1 site updated"
    assert rules() == {"a.example.org": {"domain": "a.example.org", "tls": 443},
                       "b.example.org": {"domain": "b.example.org", "port": 2}}  # fmt: skip


@pytest.mark.parametrize("body", [{"sites": []}, {"sites": None}, {}, None, {"sites": [None]}])
def test_update_nothing_is_done(api, tunnel, control, body):
    assert api.post(f"{UPDATE}/{tunnel.uid}", body).status_code == 200
    assert control.calls == []


@pytest.mark.parametrize(("site", "words"), [
    ({"port": 80}, "domain"), ({"domain": ""}, "domain"), ({"domain": "a..b"}, "label"),
    ({"domain": "192.0.2.1"}, "address"), ({"domain": "a.example.org", "port": "80"}, "sites[1].port"),
    ({"domain": "a.example.org", "port": 80.0}, "sites[1].port"), ({"domain": "a.example.org", "port": True}, "port"),
    ({"domain": "a.example.org", "port": 65536}, "sites[1].port"), ({"domain": "a.example.org", "secure": 1}, "secure"),
    ({"domain": "a.example.org", "firewall": [{"sequence": 1, "action": "deny", "network": "::/0"}]}, "deny"),
    ({"domain": "a.example.org", "firewall": [{"sequence": 1, "action": "drop", "network": "10.0.0/8"}]}, "10.0.0/8"),
    ({"domain": "a.example.org", "redirectURL": "javascript:alert(1)"}, "redirectURL"),
    ({"domain": "a.example.org", "redirectURL": "https://x.example/\r\nSet-Cookie: a"}, "redirectURL"),
    ({"domain": "a.example.org", "authPageOpts": {"logoURL": "data:text/html,x"}}, "logoURL"),
    ({"domain": "a.example.org", "upstreamURL": "ftp://files"}, "upstreamURL"),
    ({"domain": "a.example.org", "upstreamURL": "http://files/app"}, "upstreamURL"),
    ({"domain": "a.example.org", "upstreamURL": "http://u:p@files"}, "upstreamURL"),
    ({"domain": "a.example.org", "rewriteHost": "a:99999"}, "rewriteHost"),
    ({"domain": "a.example.org", "destination": "127.0.0.1:80"}, "destination"),
    ({"domain": "a.example.org", "basicHttpAuth": "nobody"}, "user:password"),
    ({"domain": "a.example.org", "ca": "eA=="}, "privateKey"),
    ({"domain": f"admin.{DOMAIN}"}, "reserved"), ({"domain": DOMAIN}, "reserved"),
])  # fmt: skip
def test_update_one_bad_site_refuses_all(api, tunnel, store, control, site, words):
    before = store.changes.position()
    answer = api.post(f"{UPDATE}/{tunnel.uid}", {"sites": [{"domain": "good.example.org"}, site]})
    assert answer.status_code == 400
    assert words in answer.json["error"]
    assert store.changes.position() == before
    assert control.calls == []


def test_update_firewall_bare_addresses_and_both_families_pass(update, rules):
    firewall = [{"sequence": n, "action": "drop", "network": network} for n, network in enumerate((
        "198.51.100.7", "2001:db8::1", "10.0.0.0/8", "2001:db8::/32"
    ))]  # fmt: skip
    assert update({"domain": "a.example.org", "firewall": firewall}).status_code == 200
    assert rules()["a.example.org"]["firewall"] == firewall


def test_update_domain_of_another_tunnel_is_409(update, store, rules):
    other = new_tunnel(store, "other")
    do(store, PutSites(other.uid, [{"domain": "taken.example.org"}]))
    for domain in ("taken.example.org", other.hostname):
        assert update({"domain": "a.example.org"}, {"domain": domain}).status_code == 409
    assert rules() == {}


def test_update_domain_not_allowed_to_the_owner_is_403(api, store):
    mara = do(store, CreateUser(fullname="Mara", check_domains=True))
    do(store, AllowDomains(mara.uid, ["*.mara.example"]))
    tunnel = new_tunnel(store, user_uid=mara.uid)
    for domain, status in (("shop.mara.example", 200), ("shop.example.org", 403), (tunnel.hostname, 200)):
        assert api.post(f"{UPDATE}/{tunnel.uid}", {"sites": [{"domain": domain}]}).status_code == status


def test_update_passwords_are_stored_as_hashes_and_survive_being_written_back(api, tunnel, update, rules):
    assert update({"domain": "a.example.org", "password": "s3cret", "basicHttpAuth": "mara:pw"}).status_code == 200
    stored = rules()["a.example.org"]
    assert verify_password(stored["password"], "s3cret")
    assert verify_password(stored["basicHttpAuth"], "mara:pw")
    (site,) = api.get(f"tunnel/config/{tunnel.uid}").json["config"]["https"]
    assert update({**site, "port": 81}).status_code == 200
    assert rules()["a.example.org"] == {**stored, "port": 81}


def test_update_hash_of_other_parameters_is_a_plain_text(update, rules):
    """It would say how much memory each visitor's try takes."""
    costly = hash_text("x").replace("m=19456", "m=4194304")
    assert update({"domain": "a.example.org", "password": costly}).status_code == 200
    assert verify_password(rules()["a.example.org"]["password"], costly)


def test_update_certificate_with_its_key_passes_unchanged(update, rules):
    ca, key = pem_pair()
    assert update({"domain": "a.example.org", "ca": ca, "privateKey": key}).status_code == 200
    assert (rules()["a.example.org"]["ca"], rules()["a.example.org"]["privateKey"]) == (ca, key)


def test_update_certificate_that_cannot_be_used_is_refused_without_telling_the_key(update, rules):
    (ca, key), (_, stranger), (_, sealed) = pem_pair(), pem_pair(), pem_pair(b"pw")
    for bad_ca, bad_key, words in (
        (ca, stranger, "does not belong"), (ca, sealed, "password"), ("%%%", key, "base64"), (key, key, "PEM"),
        (ca, "", "both"), (ca, base64.b64encode(b"/etc/key.pem").decode(), "PEM"),
    ):
        answer = update({"domain": "a.example.org", "ca": bad_ca, "privateKey": bad_key})
        assert answer.status_code == 400
        assert words in answer.json["error"]
        assert (bad_key or ca)[:40] not in answer.text
    assert rules() == {}


def test_update_rules_too_large_for_one_message_is_429(update, rules):
    answer = update(*({"domain": f"s{n}.example.org", "webRoot": "/" + "x" * 4000} for n in range(250)))
    assert answer.status_code == 429
    assert rules() == {}


def test_remove_all_or_none(api, tunnel, update, rules, control):
    update({"domain": "a.example.org"}, {"domain": "b.example.org"})
    assert api.post(f"{REMOVE}/{tunnel.uid}", {"domains": ["a.example.org", "c.example.org"]}).status_code == 404
    assert set(rules()) == {"a.example.org", "b.example.org"}
    assert api.post(f"{REMOVE}/{tunnel.uid}", {"domains": ["A.example.org", None]}).status_code == 200
    assert set(rules()) == {"b.example.org"}
    for nothing in ({"domains": None}, {"domains": []}, None):
        assert api.post(f"{REMOVE}/{tunnel.uid}", nothing).status_code == 200
    assert len(control.called("changed")) == 2


def test_unmanaged_client_changes_of_rules_are_409_and_say_so(api, tunnel, store, update):
    port = do(store, AllocatePort(tunnel.uid, 22000, 22999))
    do(store, ReplaceRules(tunnel.uid, [{"domain": "a.example.org"}], {}, unmanaged=True))
    for answer in (
        update({"domain": "b.example.org"}),
        api.post(f"{REMOVE}/{tunnel.uid}", {"domains": ["a.example.org"]}),
        api.post(f"tunnel/traffic/tcp/update/{tunnel.uid}", {"ports": [{"port": port, "dstPort": 22}]}),
        api.post(f"tunnel/traffic/tcp/reset/{tunnel.uid}", {"ports": [port]}),
        api.post(f"tunnel/traffic/portmap/update/{tunnel.uid}", {"portmaps": [{"listenPort": 1, "dstPort": 2}]}),
        api.post(f"tunnel/traffic/portmap/remove/{tunnel.uid}", {"listenPorts": [1]}),
    ):
        assert (answer.status_code, answer.json["code"]) == (409, "SPK-UNMANAGED")
    assert api.get(f"tunnel/config/{tunnel.uid}").json["config"]["unmanaged"] is True
    assert api.get(f"tunnel/traffic/tcp/allocate/{tunnel.uid}").status_code == 200     # the server's own to give


def test_events_of_rules_redact_their_secrets(store, tunnel, update):
    ca, key = pem_pair()
    update({"domain": "a.example.org", "ca": ca, "privateKey": key, "password": "s3cret"})
    text = str(store.audit.select())
    assert "a.example.org" in text
    assert key not in text
    assert "argon2" not in text


def test_update_more_new_passwords_than_one_call_may_set_is_refused_before_any_is_hashed(api, tunnel):
    sites = [{"domain": f"a{number}.example.org", "password": "x"} for number in range(HASH_COUNT_MAX + 1)]
    result = api.post(f"tunnel/traffic/http/update/{tunnel.uid}", {"sites": sites})
    assert (result.status_code, result.json["code"]) == (400, "SPK-RULE")
    assert "at most 100" in result.json["error"]


def test_update_says_what_acts_on_nobody_yet(update):
    closed = {"domain": "a.example.org", "firewall": [{"sequence": 1, "action": "drop", "network": "0.0.0.0/0"}],
              "basicHttpAuth": "mara:secret", "rewriteHost": "inside:8080"}
    assert update(closed).json["warning"] == "kept, but not in force in this version: firewall, basicHttpAuth"
    assert "warning" not in update({"domain": "a.example.org", "rewriteHost": "inside:8080"}).json


def test_update_limits_are_kept_and_one_out_of_bounds_refuses_the_call(update, rules):
    limits = {"responseTimeout": 600, "maxBody": 1 << 30, "maxHeaderLine": 16384}
    answer = update({"domain": "a.example.org", "port": 1, **limits})
    assert "warning" not in answer.json
    assert rules() == {"a.example.org": {"domain": "a.example.org", "port": 1, **limits}}
    for member, value, words in (
        ("responseTimeout", 86401, "responseTimeout 86401 is not between 1 and 86400 seconds"),
        ("maxBody", -1, "maxBody -1 is not between 1 and 1099511627776 bytes"),
        ("maxHeaderLine", 255, "maxHeaderLine 255 is not between 256 and 32768 bytes"),
    ):
        answer = update({"domain": "b.example.org", "port": 1}, {"domain": "a.example.org", member: value})
        assert (answer.status_code, answer.json["code"]) == (400, "SPK-RULE")
        assert words in answer.json["error"]
    assert set(rules()) == {"a.example.org"}
    update({"domain": "a.example.org", "port": 1})      # a site is complete: what is absent is the default
    assert rules() == {"a.example.org": {"domain": "a.example.org", "port": 1}}
