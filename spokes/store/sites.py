"""HTTP services of tunnels: who serves which domain, by which rule."""

from __future__ import annotations

from collections.abc import Iterable

from spokes.store.base import View
from spokes.store.db import Database
from spokes.store.logged import SITES, RowsOfTunnels
from spokes.store.models import SiteModel
from spokes.store.rows import Site

_OF = RowsOfTunnels(SITES, SiteModel.domain)


class Sites:
    def __init__(self, db: Database) -> None:
        self._db = db

    def select(self, tunnel_uid: str | Iterable[str] | None = None, view: View | None = None) -> list[Site]:
        """By domain: all, a tunnel's, or those of several tunnels."""
        return [SITES.read(row) for row in (view or self._db).rows(_OF(tunnel_uid))]
