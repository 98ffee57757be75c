"""Users: who owns which tunnel, and what the owners may. changes.py feeds it from the change log; it knows no store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from spokes.ids import ZERO_UID

MB_BYTES = 1_000_000  # decimal, as the Admin API counts


@dataclass(frozen=True, slots=True)
class UserLimits:
    """Of one user."""

    active: bool
    bandwidth_bytes: int  # in a calendar month; 0: no limit


class Users:
    """Users by id; tunnels of the system (zero id) have no user and no limit."""

    def __init__(self) -> None:
        self._limits: dict[str, UserLimits] = {}
        self._owners: dict[str, str] = {}  # tunnel: user
        self._tunnels: defaultdict[str, set[str]] = defaultdict(set)

    def put(self, uid: str, *, active: bool, bandwidth_mb: int) -> None:
        self._limits[uid] = UserLimits(active, bandwidth_mb * MB_BYTES)

    def drop(self, uid: str) -> None:
        self._limits.pop(uid, None)

    def put_tunnel(self, tunnel_uid: str, user_uid: str) -> None:
        self.drop_tunnel(tunnel_uid)
        if user_uid != ZERO_UID:
            self._owners[tunnel_uid] = user_uid
            self._tunnels[user_uid].add(tunnel_uid)

    def drop_tunnel(self, tunnel_uid: str) -> None:
        user_uid = self._owners.pop(tunnel_uid, None)
        if user_uid is not None:
            self._tunnels[user_uid].discard(tunnel_uid)
            if not self._tunnels[user_uid]:
                del self._tunnels[user_uid]

    def owner(self, tunnel_uid: str) -> str:
        return self._owners.get(tunnel_uid, ZERO_UID)

    def tunnels_of(self, uid: str) -> frozenset[str]:
        return frozenset(self._tunnels.get(uid, ()))

    def may_log_in(self, tunnel_uid: str) -> bool:
        """False while the tunnel's owner is deactivated."""
        limits = self._limits.get(self.owner(tunnel_uid))
        return limits is None or limits.active

    def limited(self) -> Iterator[tuple[str, int]]:
        """Users with a limit of traffic, and how many bytes it is."""
        for uid, limits in self._limits.items():
            if limits.bandwidth_bytes:
                yield uid, limits.bandwidth_bytes
