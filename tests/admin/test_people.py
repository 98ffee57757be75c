from __future__ import annotations

import dataclasses

import pyotp
import pytest

from spokes import clock
from spokes.admin import passwords
from spokes.admin.app import create_app
from spokes.admin.context import PERSON_SCOPES, Role, Scope
from spokes.admin.hash_slots import Rank
from spokes.admin.passwords import hash_password, verify_login, verify_password
from spokes.clock import ManualClock
from spokes.model.api_keys import CreateApiKey
from spokes.model.passwords import SetPassword, SetTotp
from spokes.model.users import CreateUser
from spokes.store.logins import DEVICE_LIFETIME_S
from tests.support.admin import ADMINISTRATOR, OWN, Api
from tests.support.operations import do

PASSWORD = "correct horse battery"
EMAIL = "mara@example.org"


@pytest.fixture
def wall():
    manual = ManualClock()
    with clock.replaced(manual):
        yield manual


@pytest.fixture
def sessions(admin) -> Api:
    """With real sessions."""
    return Api(create_app(admin))


@pytest.fixture(scope="module")
def password_hash() -> str:
    return hash_password(PASSWORD)


@pytest.fixture
def person(store, password_hash):
    user = do(store, CreateUser(email=EMAIL))
    return do(store, SetPassword(user.uid, password_hash))


def login(api: Api, password: str = PASSWORD, code: str = "", email: str = EMAIL, source: str = "192.0.2.1"):
    body = {"email": email, "password": password, "code": code}
    return api.post(f"{OWN}/login", body, headers={"X-Real-IP": source})


def cookie_of(result) -> dict[str, str]:
    assert result.status_code == 200, result.text
    return {"Cookie": f"spokes={result.cookies['spokes'].value}"}


def test_password_hash_is_argon2id_and_verifies():
    made = hash_password(PASSWORD)
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert made != hash_password(PASSWORD)
    assert verify_password(made, PASSWORD)
    assert not verify_password(made, PASSWORD + "x")
    assert not verify_password("", PASSWORD)
    assert not verify_password("junk", PASSWORD)
    assert not verify_password(made, "\ud800" * 600)


def test_login_gives_the_same_cookie_as_a_key(sessions, person):
    cookie = cookie_of(login(sessions, email=EMAIL.upper()))
    me = sessions.get(f"{OWN}/me", headers=cookie).json
    assert (me["kind"], me["id"], me["name"], me["role"]) == ("person", person.uid, EMAIL, "basic")
    assert sessions.get("user/list", headers=cookie).json["users"][0]["id"] == person.uid


def test_login_everything_wrong_gets_the_same_answer(sessions, store, person, password_hash):
    off = do(store, CreateUser(email="off@example.org", active=False))
    do(store, SetPassword(off.uid, password_hash))
    do(store, CreateUser(email="none@example.org"))
    locked = do(store, CreateUser(email="locked@example.org"))
    do(store, SetPassword(locked.uid, password_hash))
    do(store, SetTotp(locked.uid, pyotp.random_base32()))
    tries = [
        (EMAIL, "wrong"), (EMAIL, ""), ("nobody@example.org", PASSWORD), ("", PASSWORD), ("off@example.org", PASSWORD),
        ("none@example.org", ""), ("none@example.org", PASSWORD), ("locked@example.org", PASSWORD), ("%s", "%s"),
        ("a\u0000@b", "\u0000"),
    ]
    answers = {
        login(sessions, password, email=email, source=f"192.0.2.{number}").text
        for number, (email, password) in enumerate(tries)
    }
    assert answers == {'{"error":"e-mail address, password or code is wrong","status":false,"code":"SPK-LOGIN"}'}


def test_login_is_delayed_even_with_the_right_password(sessions, person, wall):
    """A password can be guessed, so nothing is held against it before its time."""
    assert login(sessions, "wrong").status_code == 401
    assert login(sessions).status_code == 429
    assert login(sessions, source="192.0.2.2").status_code == 200
    wall.advance(1)
    assert login(sessions).status_code == 200


def test_login_right_password_beside_a_wrong_one_counts_as_too_early(sessions, person, monkeypatch):
    """Many tries at once are one."""
    def verify_after_another_failed(password_hash: str, password: str, **options: object) -> bool:
        monkeypatch.undo()
        assert login(sessions, "wrong").status_code == 401
        return verify_login(password_hash, password, **options)

    monkeypatch.setattr("spokes.admin.resources.people.verify_login", verify_after_another_failed)
    assert login(sessions).status_code == 429


def test_totp_wrong_codes_from_many_addresses_delay_the_code_not_others(
    sessions, store, person, password_hash, wall
):
    secret = pyotp.random_base32()
    do(store, SetTotp(person.uid, secret))
    colleague = do(store, CreateUser(email="colleague@example.org"))
    do(store, SetPassword(colleague.uid, password_hash))
    totp = pyotp.TOTP(secret)
    wrong = f"{(int(totp.at(int(wall.wall_s()))) + 1) % 1_000_000:06}"
    answer = login(sessions, code=wrong, source="2001:db8:0:1::1")
    assert answer.status_code == 401
    early = login(sessions, code=totp.at(int(wall.wall_s())), source="2001:db8:0:2::1")
    assert (early.status_code, early.text) == (answer.status_code, answer.text)
    assert login(sessions, email=colleague.email, source="2001:db8:0:3::1").status_code == 200
    wall.advance(1)
    assert login(sessions, code=totp.at(int(wall.wall_s())), source="2001:db8:0:4::1").status_code == 200


def test_totp_removed_ends_other_sessions(sessions, store, person, wall):
    secret = pyotp.random_base32()
    do(store, SetTotp(person.uid, secret))
    first, second, third = (pyotp.TOTP(secret).at(int(wall.wall_s()) + off_s) for off_s in (-30, 0, 30))
    cookie, other = cookie_of(login(sessions, code=first)), cookie_of(login(sessions, code=second))
    body = {"password": PASSWORD}
    assert sessions.post(f"{OWN}/person/totp/remove", {**body, "code": first}, headers=cookie).status_code == 401
    wall.advance(2)
    result = sessions.post(f"{OWN}/person/totp/remove", {**body, "code": third}, headers=cookie)
    assert result.status_code == 200, result.text
    assert sessions.get("ping", headers=cookie).status_code == 200
    assert sessions.get("ping", headers=other).status_code == 401


def test_login_wrong_ones_of_others_from_the_same_address_do_not_delay_it(sessions, store, person, key_of_nobody):
    """An office, or a proxy: whoever guesses there, at whatever but this account, and scrapers with an old key."""
    for number in range(5):
        assert login(sessions, "wrong", email=f"{number}@example.org").status_code == 401
        sessions.get("ping", headers={"Authorization": f"Bearer {key_of_nobody}", "X-Real-IP": "192.0.2.1"})
    assert login(sessions).status_code == 200


@pytest.fixture
def key_of_nobody() -> str:
    return "ab" * 32


def device_of(result) -> dict[str, str]:
    name, value = next((c.name, c.value) for c in result.cookies.values() if c.name.endswith("-device"))
    return {"Cookie": f"{name}={value}"}


def login_from(api: Api, device: dict[str, str], password: str = PASSWORD, source: str = "192.0.2.1"):
    return api.post(
        f"{OWN}/login", {"email": EMAIL, "password": password}, headers={"X-Real-IP": source, **device}
    )


def test_login_from_a_known_device_is_not_delayed_by_strangers_who_guess_at_the_same_account(sessions, person):
    device = device_of(login(sessions))
    for _ in range(3):
        login(sessions, "wrong")
    assert login(sessions).status_code == 429
    assert login_from(sessions, device).status_code == 200


def test_login_wrong_passwords_from_a_known_device_are_delayed_too(sessions, person):
    device = device_of(login(sessions))
    assert login_from(sessions, device, "wrong").status_code == 401
    assert login_from(sessions, device).status_code == 429
    assert login_from(sessions, device, source="192.0.2.9").status_code == 429


def test_login_where_the_person_has_a_session_comes_early_though_others_fail_there(sessions, person, monkeypatch):
    ranks: list[Rank] = []

    def verify(*args: object, rank: Rank, **named: object) -> bool:
        ranks.append(rank)
        return verify_login(*args, rank=rank, **named)

    monkeypatch.setattr("spokes.admin.resources.people.verify_login", verify)
    for email in (EMAIL, "other@example.org", "third@example.org", EMAIL):
        login(sessions, email=email)
    assert ranks == [Rank.UNKNOWN, Rank.SESSION, Rank.FAILED, Rank.SESSION]


def test_device_mark_is_of_one_person_one_password_and_one_server(sessions, store, person, password_hash, wall):
    mark = store.logins.device_mark(person, "d" * 32)
    assert store.logins.known_device(person, mark) == "d" * 32
    other = do(store, SetPassword(do(store, CreateUser(email="o@example.org")).uid, password_hash))
    assert store.logins.known_device(other, mark) is None
    changed_end = mark[:-1] + ("0" if mark[-1] != "0" else "1")
    for forged in ("", ".", "..", "x.1.y", changed_end, "\u0660" + mark, mark + "\x00"):
        assert store.logins.known_device(person, forged) is None
    changed = do(store, SetPassword(person.uid, hash_password(PASSWORD + "x")))
    assert store.logins.known_device(changed, mark) is None
    wall.advance(DEVICE_LIFETIME_S)
    assert store.logins.known_device(person, mark) is None


def test_device_cookie_over_tls_is_bound_to_this_host_and_given_to_people_alone(sessions, store, person):
    _, key = do(store, CreateApiKey("operations"))
    tls = {"X-Forwarded-Proto": "https"}
    cookies = sessions.post(f"{OWN}/login", {"email": EMAIL, "password": PASSWORD}, headers=tls).cookies
    assert set(cookies) == {"__Host-spokes", "__Host-spokes-device"}
    mark = cookies["__Host-spokes-device"]
    assert (mark.secure, mark.http_only, mark.path, mark.domain) == (True, True, "/", None)
    assert set(sessions.post("auth", {"key": key}, headers=tls).cookies) == {"__Host-spokes"}


def test_setting_passwords_takes_no_turn_from_logins(sessions, person, password_hash):
    with passwords._work.slot("tenant"):
        assert login(sessions).status_code == 200


def test_totp_enrolment_then_each_code_opens_once(sessions, person, store, wall):
    cookie = cookie_of(login(sessions))
    other = cookie_of(login(sessions))
    made = sessions.post(f"{OWN}/person/totp/new", {}, headers=cookie).json
    assert made["uri"] == f"otpauth://totp/tun.example.net:mara%40example.org?secret={made['secret']}&issuer=tun.example.net"
    totp = pyotp.TOTP(made["secret"])
    confirm = {"password": PASSWORD, "secret": made["secret"], "code": totp.at(int(wall.wall_s()))}
    assert sessions.post(f"{OWN}/person/totp/confirm", {**confirm, "code": "000000"}, headers=cookie).status_code == 400
    assert sessions.post(f"{OWN}/person/totp/confirm", confirm, headers=cookie).status_code == 200
    assert sessions.get("ping", headers=other).status_code == 401
    assert sessions.get("ping", headers=cookie).status_code == 200
    assert made["secret"] not in "".join(store.audit.export())

    assert login(sessions, code=confirm["code"]).status_code == 401          # used for the enrolment
    wall.advance(60)
    assert login(sessions).status_code == 401
    wall.advance(60)
    code = totp.at(int(wall.wall_s()))
    assert login(sessions, code=code[:3] + " " + code[3:]).status_code == 200
    assert login(sessions, code=code, source="192.0.2.7").status_code == 401


def test_totp_confirm_needs_the_password(sessions, person):
    cookie = cookie_of(login(sessions))
    secret = sessions.post(f"{OWN}/person/totp/new", {}, headers=cookie).json["secret"]
    body = {"password": "wrong", "secret": secret, "code": pyotp.TOTP(secret).now()}
    assert sessions.post(f"{OWN}/person/totp/confirm", body, headers=cookie).status_code == 401


def test_totp_confirm_over_a_factor_needs_its_code(sessions, person, store, wall):
    old, new = pyotp.TOTP(pyotp.random_base32()), pyotp.TOTP(pyotp.random_base32())
    do(store, SetTotp(person.uid, old.secret))
    cookie = cookie_of(login(sessions, code=old.at(int(wall.wall_s()) - 30)))
    body = {"password": PASSWORD, "secret": new.secret, "code": new.at(int(wall.wall_s()))}
    for code in ({}, {"currentCode": body["code"]}):
        assert sessions.post(f"{OWN}/person/totp/confirm", {**body, **code}, headers=cookie).status_code == 401
        wall.advance(5)
    assert store.users.get(person.uid).totp_secret == old.secret
    body |= {"code": new.at(int(wall.wall_s())), "currentCode": old.at(int(wall.wall_s()))}
    assert sessions.post(f"{OWN}/person/totp/confirm", body, headers=cookie).status_code == 200
    assert store.users.get(person.uid).totp_secret == new.secret


def test_password_own_needs_the_present_one_and_ends_other_sessions(sessions, person):
    cookie, other = cookie_of(login(sessions)), cookie_of(login(sessions))
    new = "another long password"
    path = f"{OWN}/person/password"
    assert sessions.post(path, {"password": new}, headers=cookie).status_code == 401
    sessions.headers["X-Real-IP"] = "192.0.2.50"         # the wrong one counted
    assert sessions.post(path, {"password": "short", "current": PASSWORD}, headers=cookie).status_code == 400
    assert sessions.post(path, {"password": new, "current": PASSWORD}, headers=cookie).status_code == 200
    assert sessions.get("ping", headers=other).status_code == 401
    assert sessions.get("ping", headers=cookie).status_code == 200
    assert login(sessions, new, source="192.0.2.9").status_code == 200


def test_password_by_an_administrator_lets_a_person_in(api, sessions, store):
    made = api.post(f"{OWN}/person/create", {"email": EMAIL, "role": "admin", "maxTunnels": 3, "Active": True}).json
    person = made["person"]
    assert (person["role"], person["maxTunnels"], person["hasPassword"]) == ("admin", 3, False)
    assert api.post(f"{OWN}/person/password", {"userID": person["id"], "password": PASSWORD}).status_code == 200
    assert api.get(f"{OWN}/person/get/{person['id']}").json["person"]["hasPassword"] is True
    cookie = cookie_of(login(sessions))
    assert sessions.get(f"{OWN}/person/list", headers=cookie).status_code == 200
    exported = "".join(store.audit.export())
    assert PASSWORD not in exported and "argon2id" not in exported


def test_role_nobody_takes_their_own(api, caller, store):
    user = do(store, CreateUser(email=EMAIL, role="admin"))
    caller.caller = dataclasses.replace(ADMINISTRATOR, uid=user.uid, user_uid=user.uid)
    assert api.post(f"{OWN}/person/edit", {"userID": user.uid, "role": "basic"}).status_code == 403
    assert api.post(f"{OWN}/person/edit", {"userID": user.uid, "Active": False}).status_code == 403
    assert api.post(f"{OWN}/person/edit", {"userID": user.uid, "role": "admin", "phone": "1"}).status_code == 200
    assert api.post(f"{OWN}/person/edit", {"userID": user.uid, "role": "root"}).status_code == 400


def test_basic_person_changes_nobody_else(api, caller, store):
    own, other = do(store, CreateUser()), do(store, CreateUser())
    caller.caller = dataclasses.replace(ADMINISTRATOR, role=Role.BASIC, user_uid=own.uid)
    assert api.post(f"{OWN}/person/password", {"userID": other.uid, "password": PASSWORD}).status_code == 404
    assert api.post(f"{OWN}/person/totp/remove", {"userID": other.uid}).status_code == 404
    assert api.post(f"{OWN}/person/edit", {"userID": own.uid, "role": "admin"}).status_code == 403
    assert api.get(f"{OWN}/person/list").status_code == 403


def test_key_cannot_act_as_a_person(api, person):
    assert api.post(f"{OWN}/person/totp/new", {}).status_code == 403
    assert api.post(f"{OWN}/person/password", {"password": PASSWORD}).status_code == 403


def test_administrators_are_made_by_who_may_do_what_they_may(api, caller, store):
    basic = do(store, CreateUser(fullname="Mara"))
    admin = do(store, CreateUser(fullname="Jo", role="admin"))
    caller.caller = dataclasses.replace(ADMINISTRATOR, scopes=frozenset((Scope.WRITE,)))
    refused = [
        api.post(f"{OWN}/person/create", {"fullname": "x", "role": "admin"}),
        api.post(f"{OWN}/person/edit", {"userID": basic.uid, "role": "admin"}),
        api.post(f"{OWN}/person/password", {"userID": admin.uid, "password": PASSWORD}),
        api.post(f"{OWN}/person/totp/remove", {"userID": admin.uid}),
    ]
    assert [one.status_code for one in refused] == [403] * 4
    assert api.post(f"{OWN}/person/create", {"fullname": "x"}).status_code == 200
    assert api.post(f"{OWN}/person/password", {"userID": basic.uid, "password": PASSWORD}).status_code == 200
    caller.caller = dataclasses.replace(ADMINISTRATOR, scopes=PERSON_SCOPES)
    assert api.post(f"{OWN}/person/edit", {"userID": basic.uid, "role": "admin"}).status_code == 200


@pytest.mark.parametrize("email", ["correct horse battery", "a@b\u202e", "a@b" + "c" * 300])
def test_login_refused_tells_no_address_that_is_none(api, store, email):
    assert api.post(f"{OWN}/login", {"email": email, "password": "x"}).status_code in (400, 401)
    assert all(email not in str(event.after) for event in store.audit.select())
