"""Cookie sessions of the Admin API, and the delay against guessing. Neither is in the change log.

Bound: LOGIN_COUNT_MAX live logins of one key or person (the oldest end), FAILURE_SOURCE_COUNT_MAX sources.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import Any

from spokes import clock
from spokes.errors import ValueRefusedError
from spokes.ids import ZERO_UID, is_secret, is_uid, new_secret, new_uid
from spokes.store.base import Secrets, cleaned_text
from spokes.store.changes import ChangeLog, Writer
from spokes.store.db import Database
from spokes.store.models_admin import LoginFailureModel, LoginModel
from spokes.store.rows import User
from spokes.store.rows_admin import Login
from spokes.store.statement import Statement

LOGIN_LIFETIME_S = 86_400
LOGIN_COUNT_MAX = 100
FAILURE_SOURCE_COUNT_MAX = 10_000
FAILURE_MEMORY_S = 900                   # a source that was quiet for so long begins anew
WAIT_MAX_S = 60.0
DEVICE_LIFETIME_S = 400 * 86_400         # browsers keep no cookie for longer
_MADE_DIGITS_MAX = 12

_COLUMNS = (
    LoginModel.uid, LoginModel.api_key_uid, LoginModel.user_uid, LoginModel.created, LoginModel.expires,
    LoginModel.address, LoginModel.agent,
)

# Every request runs this one. A login is as good as its key, its person and the person of its key.
_FIND = f"""
SELECT {", ".join(f"login.{field.column_name}" for field in _COLUMNS)}
FROM login LEFT JOIN api_key ON api_key.uid = login.api_key_uid
    LEFT JOIN "user" AS person ON person.uid = login.user_uid
    LEFT JOIN "user" AS owner ON owner.uid = api_key.user_uid
WHERE login.cookie_hash = {{}} AND login.expires > {{}}
    AND (login.api_key_uid = '{ZERO_UID}' OR api_key.active AND (api_key.user_uid = '{ZERO_UID}' OR owner.active))
    AND (login.user_uid = '{ZERO_UID}' OR person.active)
"""                                      # noqa: S608  names of our own columns

_NOTE_FAILURE = f"""
INSERT INTO login_failure (source, failure_count, last) VALUES ({{}}, 1, {{}})
ON CONFLICT (source) DO UPDATE SET last = excluded.last, failure_count = CASE
    WHEN login_failure.last < excluded.last - {FAILURE_MEMORY_S} THEN 1 ELSE login_failure.failure_count + 1 END
"""                                      # noqa: S608  a number of ours


_FROM_BY = Statement(
    lambda address, user_uid, now: LoginModel.select(LoginModel.uid)
    .where(LoginModel.address == address, LoginModel.user_uid == user_uid, LoginModel.expires > now).limit(1)
)
_FROM = Statement(
    lambda address, now: LoginModel.select(LoginModel.uid)
    .where(LoginModel.address == address, LoginModel.expires > now).limit(1)
)


class Logins:
    def __init__(self, db: Database, changes: ChangeLog, secrets: Secrets) -> None:
        self._db = db
        self._changes = changes
        self._secrets = secrets

    def create(
        self, *, api_key_uid: str = ZERO_UID, user_uid: str = ZERO_UID, address: str = "", agent: str = "",
        lifetime_s: float = LOGIN_LIFETIME_S,
    ) -> tuple[Login, str]:
        """A session of an API key or of a person (one of the two), and the cookie's value, which is not kept."""
        if not is_uid(api_key_uid) or not is_uid(user_uid) or (api_key_uid == ZERO_UID) == (user_uid == ZERO_UID):
            raise ValueRefusedError("a login is an API key's or a person's")
        now, value = clock.wall_s(), new_secret()
        login = Login(
            uid=new_uid(), api_key_uid=api_key_uid, user_uid=user_uid, created=now, expires=now + lifetime_s,
            address=cleaned_text(address), agent=cleaned_text(agent),
        )
        columns = {field.name: getattr(login, field.name) for field in _COLUMNS}
        own = (LoginModel.api_key_uid == api_key_uid) & (LoginModel.user_uid == user_uid)
        oldest = (
            LoginModel.select(LoginModel.uid).where(own).order_by(LoginModel.created.desc(), LoginModel.uid)
            .limit(-1 if self._db.is_sqlite else None).offset(LOGIN_COUNT_MAX - 1)
        )
        with self._changes.transaction() as tx:
            tx.unlogged(LoginModel.delete().where(own & (LoginModel.expires <= now)))
            tx.unlogged(LoginModel.delete().where(LoginModel.uid.in_(oldest)))
            tx.unlogged(LoginModel.insert({**columns, "cookie_hash": self._secrets.hash(value)}))
        return login, value

    def find(self, cookie: str) -> Login | None:
        """The live session with this cookie; None too when its key or person is gone or inactive."""
        if not is_secret(cookie):
            return None
        parameters = (self._secrets.hash(cookie), clock.wall_s())
        for row in self._db.alone(lambda: self._db.query(_FIND, parameters)):
            return _to_login(row)
        return None

    def renew(self, uid: str, *, lifetime_s: float = LOGIN_LIFETIME_S) -> bool:
        """Let it end `lifetime_s` from now; False if it has ended."""
        now = clock.wall_s()
        query = LoginModel.update(expires=now + lifetime_s).where(LoginModel.uid == uid, LoginModel.expires > now)
        if not is_uid(uid):
            return False
        with self._changes.transaction() as tx:
            return bool(tx.unlogged(query))

    def end(self, uid: str) -> bool:
        """False if there was none."""
        if not is_uid(uid):
            return False
        with self._changes.transaction() as tx:
            return bool(tx.unlogged(LoginModel.delete().where(LoginModel.uid == uid)))

    def select(self, user_uid: str | None = None) -> list[Login]:
        """Live ones, newest first."""
        query = LoginModel.select(*_COLUMNS).where(LoginModel.expires > clock.wall_s())
        if user_uid is not None:
            query = query.where(LoginModel.user_uid == (user_uid if is_uid(user_uid) else ""))
        return [_to_login(row) for row in self._db.rows(query.order_by(LoginModel.created.desc(), LoginModel.uid))]

    def has_from(self, address: str, user_uid: str | None = None) -> bool:
        """Whether a live session began there: anybody's, or this person's."""
        address, now = cleaned_text(address), clock.wall_s()
        return bool(self._db.rows(_FROM(address, now) if user_uid is None else _FROM_BY(address, user_uid, now)))

    def purge(self) -> int:
        """Remove what has ended; how many."""
        self._db.run(LoginFailureModel.delete().where(LoginFailureModel.last < clock.wall_s() - FAILURE_MEMORY_S))
        return int(self._db.run(LoginModel.delete().where(LoginModel.expires <= clock.wall_s())))

    # --- devices ---------------------------------------------------------------------------------------------------

    def device_mark(self, user: User, device_uid: str) -> str:
        """What a device keeps on which this person has logged in; void once the password is another one."""
        made = int(clock.wall_s())
        return f"{device_uid}.{made}.{self._device_hash(user, device_uid, made)}"

    def known_device(self, user: User, mark: str) -> str | None:
        """The device whose mark this is; None if it is no mark for this person, or too old."""
        device_uid, _, rest = mark.partition(".")
        made, _, digest = rest.partition(".")
        if not is_uid(device_uid) or not made.isascii() or not made.isdigit() or len(made) > _MADE_DIGITS_MAX:
            return None
        if not 0 <= clock.wall_s() - int(made) < DEVICE_LIFETIME_S:
            return None
        right = hmac.compare_digest(self._device_hash(user, device_uid, int(made)).encode(), digest.encode())
        return device_uid if right else None

    def _device_hash(self, user: User, device_uid: str, made: int) -> str:
        return self._secrets.hash(f"device:{user.uid}:{device_uid}:{made}:{user.password_hash}")

    # --- guessing --------------------------------------------------------------------------------------------------

    def wait_s(self, source: str) -> float:
        """How long `source` has to wait before its next try: 0, or up to 1, 2, 4 … 60 s after its failures."""
        query = LoginFailureModel.select(LoginFailureModel.failure_count, LoginFailureModel.last).where(
            LoginFailureModel.source == source_key(source)
        )
        for count, last in self._db.rows(query):
            return failure_wait_s(int(count), float(last), clock.wall_s())
        return 0.0

    def note_failure(self, source: str) -> None:
        now = clock.wall_s()
        with self._db.write() as db:
            self._db.query(_NOTE_FAILURE, (source_key(source), now))
            if LoginFailureModel.select().count(db) > FAILURE_SOURCE_COUNT_MAX:
                oldest = LoginFailureModel.select(LoginFailureModel.source).order_by(LoginFailureModel.last).limit(
                    FAILURE_SOURCE_COUNT_MAX // 10
                )
                LoginFailureModel.delete().where(LoginFailureModel.source.in_(oldest)).execute(db)


def end_logins(
    tx: Writer, *, api_key_uid: str | None = None, user_uid: str | None = None, but: str | None = None
) -> None:
    """Those of a key or of a person, `but` one, such as the caller's own; in the transaction that takes the reason for
    them away."""
    wanted = [
        field == (uid if is_uid(uid) and uid != ZERO_UID else "")
        for field, uid in ((LoginModel.api_key_uid, api_key_uid), (LoginModel.user_uid, user_uid)) if uid is not None
    ]
    if not wanted:
        raise TypeError("whose logins are to end?")
    query = LoginModel.delete().where(*wanted)
    tx.unlogged(query if but is None else query.where(LoginModel.uid != but))


def failure_wait_s(count: int, last: float, now: float) -> float:
    """How long who failed `count` times, the last time at `last`, has to wait."""
    since_s = now - last
    if not count or not 0 <= since_s < FAILURE_MEMORY_S:
        return 0.0
    return max(0.0, min(2.0 ** min(count - 1, 10), WAIT_MAX_S) - since_s)


def account_source(account: str, address: str) -> str:
    """What failed logins of one account from one address are held against, whether there is such an account or not."""
    digest = hashlib.sha256(account.strip().lower().encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{digest} from {source_key(address)}"


def source_key(source: str) -> str:
    """Who counts as one: an IPv4 address, a /64 of IPv6 (what one subscriber has), or any other text as it is."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return cleaned_text(source)
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def _to_login(row: tuple[Any, ...]) -> Login:
    return Login(**dict(zip((field.name for field in _COLUMNS), row, strict=True)))
