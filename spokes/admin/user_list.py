"""All users as the API shows them: each is made once, and again when its row was written.

A list of thousands that is asked for every second would otherwise cost more than all other calls together.
Bound: one object for each user that exists.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import msgspec

from spokes.admin.months import UserMonths
from spokes.admin.schema.users import User, is_used_up, user_object
from spokes.store import Store, UserVersion


class _Known(NamedTuple):
    version: UserVersion
    shown: User                          # as one who has used up nothing


class UserList:
    """One for a process; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self.months = UserMonths()

    def read(self, store: Store) -> list[User]:
        """Oldest first."""
        with self._lock:
            versions = store.users.versions()
            known = {uid: one for uid, version in versions if (one := self._known.get(uid)) and one.version == version}
            for user in store.users.get_many([uid for uid, _ in versions if uid not in known]):
                known[user.uid] = _Known(UserVersion(user.rev, user.modified), user_object(user, 0))
            self._known = known
            # One that was deleted between the two reads is in the first alone.
            users = [known[uid].shown for uid, _ in versions if uid in known]
        used = self.months.read(store) if any(user.bandwidth_mb for user in users) else {}
        return [
            msgspec.structs.replace(user, bandwidth_used_up=True)
            if is_used_up(user.bandwidth_mb, used.get(user.id, 0)) else user
            for user in users
        ]
