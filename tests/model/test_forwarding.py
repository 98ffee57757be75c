"""Operations that a replica sends: done at the master once, for who may, and refused in the same words."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from spokes.errors import (
    AdmissionRefusedError,
    ClusterMessageError,
    ForbiddenError,
    IdempotencyKeyError,
    InactiveError,
    NotFoundError,
    NotSignedInError,
    OperationUnknownError,
    ReplicaError,
    StoreError,
    TakenError,
    UnreachableError,
    ValueRefusedError,
)
from spokes.ids import ZERO_UID
from spokes.model.api_keys import CreateApiKey, DeleteApiKey, EditApiKey
from spokes.model.forwarding import (
    FORWARDED_BYTES_MAX,
    SEND_COUNT_MAX,
    Forwarded,
    Forwarder,
    answer_forwarded,
    decode_answer,
    decode_forwarded,
    encode_answer,
    encode_forwarded,
    new_key,
    perform_forwarded,
)
from spokes.model.operation import (
    SYSTEM,
    UNAUTHENTICATED,
    client_of,
    decode_result,
    encode,
    encode_result,
    perform,
)
from spokes.model.tokens import CreateToken, EditToken
from spokes.model.tunnels import CreateTunnel, EditTunnel, RegisterTunnel, SetTunnelState
from spokes.model.users import CreateUser, DeleteUser, EditUser
from spokes.store import Principal, PrincipalKind, Store, TunnelState
from spokes.store.operation_results import RESULT_LIFETIME_S
from spokes.store.rows import SCOPES
from tests.model.tenants import DOMAIN, person
from tests.model.test_operation import EXAMPLES
from tests.store.test_changes import World
from tests.support.operations import do

SHELL = Principal(kind=PrincipalKind.SHELL, name="mara", role="admin", scopes=SCOPES)


@pytest.fixture
def replica(tmp_path, store):
    """A store whose operations go to `store`, the master's, as bytes."""
    with Store.open(f"sqlite:///{tmp_path / 'replica.db'}") as opened:
        opened.forward = Forwarder(opened, lambda data: answer_forwarded(store, data), lambda epoch, seq: None)
        yield opened


def sent(message, **changes):
    """A forwarded operation as bytes, with other members."""
    whole = json.loads(encode_forwarded(message))
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = whole
        for name in outer:
            place = place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return json.dumps(whole).encode()


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_operation_is_carried_over_and_done(store, replica, name):
    operation = EXAMPLES[name](World(store))
    before = store.changes.position()
    result = perform(replica, SHELL, operation)
    assert store.changes.position() > before or name == "domain.note_check"      # which is in no change log
    assert replica.changes.position() == (1, 0)
    assert decode_result(type(operation), encode_result(result)) == result


@pytest.mark.parametrize("name", EXAMPLES)
def test_result_of_every_operation_is_the_same_when_its_key_comes_again(store, name):
    forwarded = Forwarded(EXAMPLES[name](World(store)), SHELL, new_key())
    first = decode_answer(type(forwarded.operation), answer_forwarded(store, encode_forwarded(forwarded)))
    before, records = store.changes.position(), store.audit.select()
    again = decode_answer(type(forwarded.operation), answer_forwarded(store, encode_forwarded(forwarded)))
    assert again == first
    assert (again.epoch, again.seq) == before
    assert (store.changes.position(), store.audit.select()) == (before, records)


def test_operation_travels_with_who_asked(store):
    login = "ab" * 16
    for principal in (
        UNAUTHENTICATED, SHELL, client_of("cd" * 16),
        Principal(kind="person", uid="cd" * 16, user_uid="cd" * 16, role="basic", scopes=("read", "write"), name="m",
                  address="198.51.100.7", login_uid=login),
        Principal(kind="key", uid="cd" * 16, user_uid="ef" * 16, role="admin", scopes=("write",)),
    ):  # fmt: skip
        forwarded = Forwarded(CreateToken("x"), principal, new_key())
        arrived = decode_forwarded(encode_forwarded(forwarded))
        assert arrived == forwarded
        assert arrived.principal.checked


# --- what is no forwarded operation --------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"1", b"{}", b"[]", b"\xff", b"[" * 10_000, b'{"operation":{}}'])
def test_bytes_that_are_none_are_refused(data):
    with pytest.raises(ClusterMessageError):
        decode_forwarded(data)


def test_message_that_is_too_long_is_refused():
    with pytest.raises(ClusterMessageError):
        decode_forwarded(b" " * (FORWARDED_BYTES_MAX + 1))


@pytest.mark.parametrize("changes", [
    {"idempotencyKey": "short"}, {"idempotencyKey": None}, {"more": 1}, {"operation__uid": "x"},
    {"operation__description": 1}, {"operation__operation": None}, {"principal__checked": False},
    {"principal__checked": True}, {"principal__kind": "server"}, {"principal__kind": "root"},
    {"principal__uid": "x"}, {"principal__uid": ZERO_UID}, {"principal__role": "root"}, {"principal__role": None},
    {"principal__userUid": ZERO_UID}, {"principal__userUid": "ab" * 16}, {"principal__scopes": ["read", "root"]},
    {"principal__loginUid": "x"}, {"principal__name": "x" * 256},
    {"principal__kind": "client"}, {"principal__kind": "nobody"}, {"principal__kind": "shell"},
])  # fmt: skip
def test_message_with_a_member_that_does_not_fit_is_refused(changes):
    mara = Principal(kind="person", uid="cd" * 16, user_uid="cd" * 16, role="basic", scopes=("read", "write"))
    data = sent(Forwarded(CreateToken("x"), mara, new_key()), **changes)
    with pytest.raises(ClusterMessageError):
        decode_forwarded(data)


def test_operation_of_another_version_is_refused_with_its_own_code(store):
    data = sent(Forwarded(CreateToken("x"), SHELL, new_key()), operation__operation="token.forge")
    with pytest.raises(OperationUnknownError, match=r"token\.forge"):
        decode_answer(CreateToken, answer_forwarded(store, data))


@pytest.mark.parametrize("principal", [SYSTEM, SHELL.unconditional(), client_of("ab" * 16).unconditional()])
def test_rights_that_nobody_checks_do_not_travel(principal):
    with pytest.raises(ForbiddenError):
        encode_forwarded(Forwarded(CreateToken("x"), principal, new_key()))


def test_text_that_is_no_utf8_is_refused_before_it_travels():
    with pytest.raises(ValueRefusedError):
        encode_forwarded(Forwarded(CreateToken("\ud800"), SHELL, new_key()))


@pytest.mark.parametrize("data", [b"", b"1", b'{"epoch":-1}', b'{"result":1}', b'{"error":{"code":"SPK-X"}}'])
def test_bytes_that_are_no_answer_are_refused(data):
    with pytest.raises(ClusterMessageError):
        decode_answer(CreateToken, data)


# --- rights are the master's to hold -------------------------------------------------------------------------------


def asked(store, principal, operation):
    return decode_answer(type(operation), answer_forwarded(store, encode_forwarded(
        Forwarded(operation, principal, new_key())
    ))).result


@pytest.fixture
def mara(store):
    return do(store, CreateUser(email="mara@example.org"))


def test_person_who_was_deactivated_or_deleted_meanwhile_is_refused(store, mara):
    create = CreateApiKey("x", user_uid=mara.uid)
    asked(store, person(mara), create)
    before = store.changes.position()
    do(store, EditUser(mara.uid, active=False))
    with pytest.raises(NotSignedInError):
        asked(store, person(mara), create)
    do(store, EditUser(mara.uid, active=True))
    do(store, DeleteUser(mara.uid))
    with pytest.raises(NotSignedInError):
        asked(store, person(mara), create)
    assert store.changes.position()[1] - before[1] == 4      # two edits, the deletion, her key's


def test_role_that_a_person_does_not_have_at_the_master_is_refused(store, mara):
    with pytest.raises(ForbiddenError):
        asked(store, replace(person(mara), role="admin"), CreateToken("x"))
    assert store.tokens.select() == []


def test_key_counts_for_its_own_scopes_and_user_alone(store, mara):
    boss = do(store, CreateUser(email="boss@example.org", role="admin"))
    key, _ = do(store, CreateApiKey("x", scopes=["read"], user_uid=mara.uid))
    own = Principal(kind="key", uid=key.uid, user_uid=mara.uid, role="basic", scopes=("read",))
    for claimed, error in (
        (own, ForbiddenError), (replace(own, scopes=("read", "write")), NotSignedInError),
        (replace(own, user_uid=boss.uid, role="admin"), NotSignedInError),
        (replace(own, user_uid=ZERO_UID, role="admin"), NotSignedInError),
    ):
        with pytest.raises(error):
            asked(store, claimed, CreateToken("x"))
    do(store, EditApiKey(key.uid, active=False))
    with pytest.raises(NotSignedInError):
        asked(store, own, CreateToken("x"))
    assert store.tokens.select() == []


def test_client_whose_tunnel_was_shut_down_meanwhile_is_refused(store):
    tunnel, _ = do(store, CreateTunnel(name="t", domain=DOMAIN))
    assert asked(store, client_of(tunnel.uid), EditTunnel(tunnel.uid, name="u")).name == "u"
    do(store, SetTunnelState(tunnel.uid, TunnelState.SHUTDOWN))
    with pytest.raises(InactiveError):
        asked(store, client_of(tunnel.uid), EditTunnel(tunnel.uid, name="v"))


def test_session_is_the_business_of_the_node_that_knows_it(store, mara):
    principal = replace(person(mara), login_uid="ab" * 16)
    assert asked(store, principal, CreateApiKey("x", user_uid=mara.uid))[0].user_uid == mara.uid


def test_record_names_who_asked_at_the_other_node(store, mara):
    asked(store, replace(person(mara), address="198.51.100.7"), CreateApiKey("x", user_uid=mara.uid))
    (record,) = store.audit.select()
    assert (record.action, record.actor_uid, record.actor_name, record.address) == (
        "api_key.create", mara.uid, "mara@example.org", "198.51.100.7"
    )


# --- refusals ------------------------------------------------------------------------------------------------------


def test_refusal_comes_out_as_itself_and_may_be_asked_again(store, replica):
    token = do(store, CreateToken("x", tunnels_per_hour_max=1))
    register = RegisterTunnel(token=token.value, name="t", domain=DOMAIN, hostname=f"till.{DOMAIN}")
    perform(replica, UNAUTHENTICATED, register)
    with pytest.raises(AdmissionRefusedError) as refused:
        perform(replica, UNAUTHENTICATED, register)
    assert 3590 < refused.value.retry_after_s <= 3600
    do(store, EditToken(token.uid, "x", active=True, tunnels_per_hour_max=9))
    with pytest.raises(TakenError) as taken:
        perform(replica, UNAUTHENTICATED, register)
    assert (taken.value.code, taken.value.hint) == ("SPK-TAKEN", "choose another name")


def test_refused_operation_leaves_nothing_and_its_key_is_still_good(store):
    forwarded = Forwarded(EditToken("ab" * 16, "x", active=True), SHELL, new_key())
    for _ in range(2):
        with pytest.raises(NotFoundError):
            perform_forwarded(store, forwarded)
    assert store._db.query("SELECT COUNT(*) FROM operation_result") == [(0,)]


def test_node_that_is_no_master_forwards_nothing_further(store, replica):
    with pytest.raises(ReplicaError):
        asked(replica, SHELL, CreateToken("x"))


# --- one call, once ------------------------------------------------------------------------------------------------


def test_key_of_another_call_is_refused(store):
    key = new_key()
    perform_forwarded(store, Forwarded(CreateToken("x"), SHELL, key))
    for forwarded in (
        Forwarded(CreateToken("y"), SHELL, key), Forwarded(CreateToken("x"), client_of("ab" * 16), key),
    ):
        with pytest.raises(IdempotencyKeyError):
            perform_forwarded(store, forwarded)
    assert len(store.tokens.select()) == 1


def test_first_result_stands_where_the_call_took_its_own_rights(store):
    key, _ = do(store, CreateApiKey("x"))
    principal = Principal(kind="key", uid=key.uid, role="admin", scopes=("read", "write"))
    forwarded = Forwarded(DeleteApiKey(key.uid), principal, new_key())
    first = perform_forwarded(store, forwarded)
    assert perform_forwarded(store, forwarded) == first


def test_result_is_not_to_be_read_in_the_database(store):
    _, value = perform_forwarded(store, Forwarded(CreateApiKey("x"), SHELL, key := new_key())).result
    text = "".join(str(row) for row in store._db.query("SELECT * FROM operation_result"))
    assert value not in text and key not in text


def test_failure_at_the_end_of_the_transaction_leaves_neither_rows_nor_result(store, monkeypatch):
    forwarded = Forwarded(CreateToken("x"), SHELL, new_key())
    with monkeypatch.context() as patch, pytest.raises(StoreError):
        patch.setattr(store.operation_results, "put", fail, raising=False)
        perform_forwarded(store, forwarded)
    assert store.tokens.select() == []
    perform_forwarded(store, forwarded)
    assert len(store.tokens.select()) == 1


def fail(*args):
    raise StoreError("the disk is full")


# --- at a replica --------------------------------------------------------------------------------------------------


class Line:
    """Between two nodes; answers can be lost on it."""

    def __init__(self, store, lost_count: int = 0) -> None:
        self.store = store
        self.lost_count = lost_count
        self.sent = []
        self.waited = []

    def send(self, data: bytes) -> bytes:
        self.sent.append(data)
        answer = answer_forwarded(self.store, data)
        if len(self.sent) <= self.lost_count:
            raise UnreachableError("the line broke")
        return answer

    def wait_applied(self, epoch: int, seq: int) -> None:
        self.waited.append((epoch, seq))


def test_lost_answer_is_asked_for_again_and_the_change_is_made_once(store, replica):
    line = Line(store, lost_count=SEND_COUNT_MAX - 1)
    replica.forward = Forwarder(replica, line.send, line.wait_applied)
    token = perform(replica, SHELL, CreateToken("x"))
    assert store.tokens.select() == [token]
    assert len(set(line.sent)) == 1 and len(line.sent) == SEND_COUNT_MAX
    assert line.waited == [store.changes.position()]


def test_master_that_does_not_answer_is_said(store, replica):
    line = Line(store, lost_count=SEND_COUNT_MAX)
    replica.forward = Forwarder(replica, line.send, line.wait_applied)
    with pytest.raises(UnreachableError):
        perform(replica, SHELL, CreateToken("x"))
    assert line.waited == []


def test_each_call_has_a_key_of_its_own(store, replica):
    line = Line(store)
    replica.forward = Forwarder(replica, line.send, line.wait_applied)
    for _ in range(2):
        perform(replica, SHELL, CreateToken("x"))
    assert len(store.tokens.select()) == 2


def test_session_that_ended_at_the_replica_is_refused_there(store, replica, mara):
    line = Line(store)
    replica.forward = Forwarder(replica, line.send, line.wait_applied)
    with pytest.raises(NotSignedInError):
        perform(replica, replace(person(mara), login_uid="ab" * 16), CreateApiKey("x", user_uid=mara.uid))
    assert line.sent == []


def test_operation_that_is_decoded_is_the_one_that_was_asked(store):
    forwarded = Forwarded(RegisterTunnel(token="0" * 64, name="t", domain=DOMAIN), UNAUTHENTICATED, new_key())
    assert encode(decode_forwarded(encode_forwarded(forwarded)).operation) == encode(forwarded.operation)


# --- docs/protocol.md ----------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text().partition("## Operations between nodes")[2]
MESSAGE, ANSWERS = re.findall(r"(?:^    .+\n)+", PAGE.replace(": …", ': "…"'), re.MULTILINE)


def test_page_shows_the_members_of_the_code(store):
    boss = person(do(store, CreateUser(email="boss@example.org", role="admin")))
    message = json.loads(encode_forwarded(
        Forwarded(CreateToken("tills"), replace(boss, address="198.51.100.7", login_uid="ab" * 16), new_key())
    ))
    error = json.loads(encode_answer(AdmissionRefusedError("busy", retry_after_s=2.5)))
    shown_message, shown_answer, shown_error = map(json.loads, (MESSAGE, *ANSWERS.splitlines()))
    assert (shown_message.keys(), shown_message["principal"].keys()) == (message.keys(), message["principal"].keys())
    assert shown_message["operation"].items() <= json.loads(encode(CreateToken("tills"))).items()
    answer = json.loads(answer_forwarded(store, encode_forwarded(Forwarded(CreateToken("x"), SHELL, new_key()))))
    assert shown_answer.keys() == answer.keys()
    assert shown_error["error"].keys() == error["error"].keys() | {"hint"}


def test_page_says_the_numbers_of_the_code():
    assert f"({FORWARDED_BYTES_MAX} bytes)" in PAGE
    assert f"for {RESULT_LIFETIME_S / 60:.0f}\nminutes" in PAGE
