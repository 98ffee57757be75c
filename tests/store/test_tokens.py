import hashlib

import pytest

from spokes.errors import AdmissionRefusedError, InactiveError, LimitError, NotFoundError, TokenError, ValueRefusedError
from spokes.ids import is_secret, is_uid
from spokes.model.tokens import CreateToken, DeleteToken, EditToken
from spokes.model.tunnels import DeleteTunnel, RegisterTunnel
from spokes.store import Store
from spokes.store.models import TokenModel
from tests.support.operations import do


def register(store, value):
    return do(store, RegisterTunnel(token=value, name="t", domain="tun.example.net"))[0]


def test_create_token_is_listed_and_registers(store):
    token = do(store, CreateToken("  field team ", active=True))
    assert is_uid(token.uid)
    assert is_secret(token.value)
    assert (token.description, token.active, token.created) == ("field team", True, token.modified)
    assert store.tokens.select() == [token]
    assert register(store, token.value).token_uid == token.uid


def test_list_tokens_oldest_first_with_inactive_ones(store):
    tokens = [do(store, CreateToken(f"t{n}", active=n != 1)) for n in range(3)]
    assert store.tokens.select() == tokens


def test_edit_token_replaces_both_values_and_keeps_the_secret(store):
    token = do(store, CreateToken("old"))
    edited = do(store, EditToken(token.uid, "new", False))
    assert (edited.description, edited.active, edited.value) == ("new", False, token.value)
    assert edited.rev > token.rev
    assert edited.modified >= token.modified
    assert store.tokens.select() == [edited]


def test_token_inactive_is_told_from_unknown(store):
    token = do(store, CreateToken("t", active=False))
    with pytest.raises(InactiveError):
        register(store, token.value)
    do(store, EditToken(token.uid, "t", True))
    register(store, token.value)


@pytest.mark.parametrize("value", [
    "", "x", "5" * 64, "0" * 64, "' OR 1=1 --", "\x00" * 64, "\ud800" * 64, "A" * 64, "%" * 64, "0" * 100_000,
])
def test_token_no_such_value_refused(store, value):
    do(store, CreateToken("t"))
    with pytest.raises(TokenError):
        register(store, value)


def test_token_upper_case_or_padded_value_refused(store):
    value = do(store, CreateToken("t")).value
    for wrong in (value.upper(), value + "\n", " " + value, value[:-1]):
        with pytest.raises(TokenError):
            register(store, wrong)


def test_delete_token_is_gone_for_good(store):
    token = do(store, CreateToken("t"))
    do(store, DeleteToken(token.uid))
    assert store.tokens.select() == []
    with pytest.raises(TokenError):
        register(store, token.value)
    with pytest.raises(NotFoundError):
        do(store, DeleteToken(token.uid))


@pytest.mark.parametrize("uid", ["f" * 32, "", "0" * 32, "\x00", "\ud800", "' OR 1=1 --", "x" * 10_000])
def test_edit_token_unknown_uid_not_found(store, uid):
    token = do(store, CreateToken("t"))
    with pytest.raises(NotFoundError):
        do(store, EditToken(uid, "changed", False))
    with pytest.raises(NotFoundError):
        do(store, DeleteToken(uid))
    assert store.tokens.select() == [token]


@pytest.mark.parametrize("description", ["a\nb", "a\x00b", "a\ud800b", "a\u202eb", "\x1b[31m", "x" * 256])
def test_create_token_unfit_description_refused(store, description):
    with pytest.raises(ValueRefusedError):
        do(store, CreateToken(description))
    assert store.changes.position() == (1, 0)


def test_token_repr_shows_no_secret(store):
    token = do(store, CreateToken("t"))
    _, key = do(store, RegisterTunnel(token=token.value, name="n", domain="tun.example.net"))
    shown = repr(store.tokens.select()) + repr(store.changes.after(0)) + repr(store.tunnels.select())
    assert token.value not in shown
    assert key not in shown


def test_token_hash_is_keyed_by_the_store(store):
    token = do(store, CreateToken("t"))
    (row,) = store._db.read(TokenModel.select(TokenModel.value_hash).tuples())
    assert row[0] != hashlib.sha256(token.value.encode()).hexdigest()
    assert row[0] == store.secrets.hash(token.value)


def test_secret_is_made_once_and_differs_by_name(store, store_url):
    first = store.secrets.get("cluster")
    assert is_secret(first)
    assert store.secrets.get("node") != first
    with Store.open(store_url) as second:
        assert second.secrets.get("cluster") == first


def test_token_with_a_maximum_registers_so_many_that_exist(store):
    token = do(store, CreateToken("two", tunnel_count_max=2))
    first, _ = register(store, token.value), register(store, token.value)
    with pytest.raises(LimitError, match="2 tunnels") as refused:
        register(store, token.value)
    assert not refused.value.retryable
    do(store, DeleteTunnel(first.uid))
    register(store, token.value)
    do(store, EditToken(token.uid, "two", True, tunnel_count_max=3))
    register(store, token.value)
    register(store, do(store, CreateToken("another")).value)


def test_token_with_a_rate_refuses_until_the_oldest_is_an_hour_old(store, monkeypatch):
    now = 1_800_000_000.0
    monkeypatch.setattr("spokes.clock.wall_s", lambda: now)
    token = do(store, CreateToken("slow", tunnels_per_hour_max=2))
    first = register(store, token.value)
    now += 600.0
    register(store, token.value)
    do(store, DeleteTunnel(first.uid))       # what was registered counts, not what is left of it
    with pytest.raises(AdmissionRefusedError) as refused:
        register(store, token.value)
    assert refused.value.retry_after_s == 3000.0
    now += 3001.0
    register(store, token.value)


def test_edit_token_without_maxima_keeps_them(store):
    token = do(store, CreateToken("t", tunnel_count_max=5, tunnels_per_hour_max=7))
    edited = do(store, EditToken(token.uid, "u", True))
    assert (edited.tunnel_count_max, edited.tunnels_per_hour_max) == (5, 7)
    assert store.tokens.select() == [edited]


@pytest.mark.parametrize("count", [-1, 2**31])
def test_token_impossible_maximum_is_refused(store, count):
    with pytest.raises(ValueRefusedError):
        do(store, CreateToken("t", tunnel_count_max=count))
