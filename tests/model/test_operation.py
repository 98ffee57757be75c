"""Operations are values: they and their results travel as JSON, and their principal decides what they may touch."""

import json
from dataclasses import replace

import msgspec
import pytest

from spokes.errors import ForbiddenError, InactiveError, NotFoundError, NotSignedInError, SpokesError
from spokes.model.api_keys import CreateApiKey, DeleteApiKey, EditApiKey
from spokes.model.domains import AllowDomains, NoteDomainCheck, RemoveDomains, ResetDomains
from spokes.model.operation import (
    SYSTEM,
    UNAUTHENTICATED,
    client_of,
    decode,
    decode_result,
    encode,
    encode_result,
    operations,
    perform,
)
from spokes.model.passwords import Held, SetPassword, SetTotp
from spokes.model.portmaps import PutPortMaps, RemovePortMaps
from spokes.model.ports import AllocatePort, PutPortRules, ReleasePort
from spokes.model.rule_lists import ReplaceRules
from spokes.model.sites import PutSites, RemoveSites
from spokes.model.tokens import CreateToken, DeleteToken, EditToken
from spokes.model.tunnels import (
    AssignTunnel,
    CreateTunnel,
    DeleteTunnel,
    EditTunnel,
    RegisterTunnel,
    RenewTunnelKey,
    SetTunnelKey,
    SetTunnelState,
)
from spokes.model.users import CreateUser, DeleteUser, EditUser
from spokes.model.webhooks import CreateWebhook, DeleteWebhook, EditWebhook
from spokes.store import Principal, PrincipalKind, TunnelState
from tests.store.test_changes import DOMAIN, World
from tests.support.operations import TOTP_SECRET, password_hash

EXAMPLES = {
    "token.create": lambda w: CreateToken("a token", tunnel_count_max=3),
    "token.edit": lambda w: EditToken(w.token.uid, "another", active=False),
    "token.delete": lambda w: DeleteToken(w.token.uid),
    "tunnel.register": lambda w: RegisterTunnel(token=w.token.value, name="till", domain=DOMAIN),
    "tunnel.create": lambda w: CreateTunnel(name="till", domain=DOMAIN, user_uid=w.user.uid),
    "tunnel.assign": lambda w: AssignTunnel(uid=w.tunnel.uid, user_uid=w.user.uid, name="till", domain=DOMAIN),
    "tunnel.edit": lambda w: EditTunnel(w.tunnel.uid, name="till 2"),
    "tunnel.set_state": lambda w: SetTunnelState(w.tunnel.uid, TunnelState.SHUTDOWN),
    "tunnel.delete": lambda w: DeleteTunnel(w.tunnel.uid),
    "tunnel_key.set": lambda w: SetTunnelKey(w.tunnel.uid, active=False),
    "tunnel_key.renew": lambda w: RenewTunnelKey(w.tunnel.uid),
    "site.put": lambda w: PutSites(w.tunnel.uid, [{"domain": "b.example.org", "port": 80}], domain=DOMAIN),
    "site.remove": lambda w: RemoveSites(w.tunnel.uid, ["a.example.org"]),
    "port.allocate": lambda w: AllocatePort(w.tunnel.uid, 22000, 22999, without=(22001,)),
    "port.release": lambda w: ReleasePort(w.tunnel.uid, w.port),
    "port.put_rules": lambda w: PutPortRules(w.tunnel.uid, {w.port: {"dstPort": 22}}),
    "portmap.put": lambda w: PutPortMaps(w.tunnel.uid, [{"listenPort": 53, "dstPort": 54, "transport": "udp"}]),
    "portmap.remove": lambda w: RemovePortMaps(w.tunnel.uid, [5432]),
    "rules.replace": lambda w: ReplaceRules(w.tunnel.uid, [{"domain": "b.example.org"}], {w.port: {"dstPort": 22}}),
    "user.create": lambda w: CreateUser(email="lind@example.org", max_tunnels=3),
    "user.edit": lambda w: EditUser(w.user.uid, fullname="Mara Lind"),
    "user.delete": lambda w: DeleteUser(w.user.uid),
    "user.set_password": lambda w: SetPassword(w.user.uid, password_hash("one")),
    "user.set_totp": lambda w: SetTotp(w.user.uid, TOTP_SECRET),
    "domain.allow": lambda w: AllowDomains(w.user.uid, ["*.example.org"]),
    "domain.remove": lambda w: RemoveDomains(w.user.uid, ["old.example.org"]),
    "domain.reset": lambda w: ResetDomains(w.user.uid),
    "domain.note_check": lambda w: NoteDomainCheck(w.user.uid, "old.example.org", seen=True),
    "api_key.create": lambda w: CreateApiKey("a key", scopes=["read"]),
    "api_key.edit": lambda w: EditApiKey(w.api_key.uid, active=False),
    "api_key.delete": lambda w: DeleteApiKey(w.api_key.uid),
    "webhook.create": lambda w: CreateWebhook("https://hooks.example.org/c", kinds=["tunnel"]),
    "webhook.edit": lambda w: EditWebhook(w.webhook.uid, active=False),
    "webhook.delete": lambda w: DeleteWebhook(w.webhook.uid),
}


def test_every_operation_has_an_example():
    assert operations().keys() == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_operation_travels_as_json_and_so_does_its_result(store, name):
    operation = EXAMPLES[name](World(store))
    there = encode(operation)
    assert json.loads(there)["operation"] == name
    arrived = decode(there)
    assert (type(arrived), encode(arrived)) == (type(operation), there)
    result = perform(store, SYSTEM, arrived)
    assert decode_result(type(arrived), encode_result(result)) == result


def test_result_that_holds_refusals_says_them_at_the_other_end(store):
    world = World(store)
    operation = ReplaceRules(world.tunnel.uid, [{"domain": "admin." + DOMAIN}], {7: {}}, domain=DOMAIN)
    result = perform(store, SYSTEM, operation)
    there = decode_result(ReplaceRules, encode_result(result))
    assert (there.rev, there.own_ports) == (result.rev, result.own_ports)
    for here, far in ((result.sites[0].error, there.sites[0].error), (result.port_errors[7], there.port_errors[7])):
        assert isinstance(far, SpokesError)
        assert (far.code, str(far), far.hint) == (here.code, str(here), here.hint)


def test_principal_travels_as_json():
    principal = Principal(kind="key", uid="ab" * 16, user_uid="cd" * 16, role="basic", scopes=("read", "write"))
    assert msgspec.json.decode(msgspec.json.encode(principal), type=Principal) == principal


@pytest.mark.parametrize(
    "data", [b'{"operation":"world.end"}', b'{"operation":"token.delete","uid":"x","more":1}', b"1"]
)
def test_what_is_no_operation_is_refused(data):
    with pytest.raises(msgspec.ValidationError):
        decode(data)


def tenant_of(user, **facts):
    return Principal(kind=PrincipalKind.PERSON, uid=user.uid, user_uid=user.uid, role="basic",
                     scopes=("read", "write"), **facts)  # fmt: skip


@pytest.mark.parametrize("name", [
    "tunnel.edit", "tunnel.set_state", "tunnel.delete", "tunnel_key.renew", "site.put", "site.remove", "port.allocate",
    "port.release", "port.put_rules", "portmap.put", "portmap.remove", "rules.replace", "api_key.edit",
    "api_key.delete", "webhook.edit", "webhook.delete",
])
def test_what_is_not_the_principals_does_not_exist_for_it(store, name):
    world = World(store)
    before = store.changes.position()
    with pytest.raises(NotFoundError):
        perform(store, tenant_of(world.user), EXAMPLES[name](world))
    assert store.changes.position() == before


@pytest.mark.parametrize("name", [name for name, kind in operations().items() if kind.admin_only])
def test_what_is_for_administrators_is_refused_to_others(store, name):
    world = World(store)
    for principal in (tenant_of(world.user), client_of(world.tunnel.uid)):
        with pytest.raises(ForbiddenError):
            perform(store, principal, EXAMPLES[name](world))


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "tunnel.register"])
def test_key_that_may_only_read_changes_nothing(store, name):
    world = World(store)
    before = store.changes.position()
    reader = replace(SYSTEM, kind=PrincipalKind.KEY, uid=world.api_key.uid, scopes=("read",))
    with pytest.raises(ForbiddenError, match="lacks the scope"):
        perform(store, reader, EXAMPLES[name](world))
    assert store.changes.position() == before


def test_who_is_not_known_registers_and_asks_for_nothing_else(store):
    world = World(store)
    for name, example in EXAMPLES.items():
        if name == "tunnel.register":
            perform(store, UNAUTHENTICATED, example(world))
        else:
            with pytest.raises(NotSignedInError):
                perform(store, UNAUTHENTICATED, example(world))


def test_client_asks_for_what_clients_ask_and_for_nothing_else(store):
    world = World(store)
    client = client_of(world.tunnel.uid)
    refused = set()
    for name, example in EXAMPLES.items():
        try:
            perform(store, client, example(world))
        except ForbiddenError:
            refused.add(name)
    assert EXAMPLES.keys() - refused == {
        "tunnel.register", "tunnel.edit", "port.allocate", "port.release", "rules.replace",
    }


def test_owner_does_not_undo_what_the_operator_decided(store):
    world = World(store)
    tunnel, _ = perform(store, SYSTEM, CreateTunnel(name="own", domain=DOMAIN, user_uid=world.user.uid))
    owner = tenant_of(world.user)
    perform(store, owner, SetTunnelState(tunnel.uid, TunnelState.SHUTDOWN))
    with pytest.raises(ForbiddenError):
        perform(store, owner, SetTunnelState(tunnel.uid, TunnelState.INIT))
    assert store.tunnels.get(tunnel.uid).state is TunnelState.SHUTDOWN


def test_client_changes_its_own_tunnel_alone_and_while_it_may_log_in(store):
    world = World(store)
    other, _ = perform(store, SYSTEM, CreateTunnel(name="other", domain=DOMAIN))
    client = client_of(world.tunnel.uid)
    assert perform(store, client, EditTunnel(world.tunnel.uid, name="mine")).name == "mine"
    with pytest.raises(NotFoundError):
        perform(store, client, EditTunnel(other.uid, name="mine"))
    perform(store, SYSTEM, SetTunnelState(world.tunnel.uid, TunnelState.SHUTDOWN))
    with pytest.raises(InactiveError):
        perform(store, client, EditTunnel(world.tunnel.uid, name="still mine"))


def test_rights_that_went_meanwhile_are_missed_unless_something_is_undone(store):
    world = World(store)
    tunnel, _ = perform(store, SYSTEM, CreateTunnel(name="own", domain=DOMAIN, user_uid=world.user.uid))
    tenant = tenant_of(world.user)
    port = perform(store, tenant, AllocatePort(tunnel.uid, 22500, 22600))
    perform(store, SYSTEM, EditUser(world.user.uid, active=False))
    with pytest.raises(NotSignedInError):
        perform(store, tenant, ReleasePort(tunnel.uid, port))
    perform(store, tenant.unconditional(), ReleasePort(tunnel.uid, port))
    assert store.ports.select(tunnel.uid) == []


def test_own_password_is_changed_only_with_what_was_held_against_the_present_one(store):
    world = World(store)
    perform(store, SYSTEM, SetPassword(world.user.uid, password_hash("first")))
    tenant, second = tenant_of(world.user), password_hash("second")
    with pytest.raises(ForbiddenError):
        perform(store, tenant, SetPassword(world.user.uid, second))
    with pytest.raises(NotSignedInError):
        perform(store, tenant, SetPassword(world.user.uid, second, held=Held(password_hash("older"), "")))
    changed = perform(store, tenant, SetPassword(world.user.uid, second, held=Held(password_hash("first"), "")))
    assert changed.password_hash == second


def test_audit_record_names_the_principal_of_a_person_and_none_of_the_server(store):
    world = World(store)
    mara = replace(SYSTEM, kind=PrincipalKind.SHELL, name="mara", address="198.51.100.7")
    perform(store, mara, CreateToken("hers"))
    perform(store, SYSTEM, CreateToken("the server's"))
    perform(store, client_of(world.tunnel.uid), EditTunnel(world.tunnel.uid, name="the client's"))
    (record,) = store.audit.select()
    assert (record.action, record.actor_kind, record.actor_name) == ("token.create", "shell", "mara")
