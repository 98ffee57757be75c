"""Port maps: ports at a client that lead through the server to a service; the key is listening port and transport."""

from __future__ import annotations

from spokes.store.base import View
from spokes.store.db import Database
from spokes.store.logged import PORTMAPS, RowsOfTunnels
from spokes.store.models import PortMapModel
from spokes.store.rows import PortMap

_OF = RowsOfTunnels(PORTMAPS, PortMapModel.listen_port, PortMapModel.transport)


class PortMaps:
    def __init__(self, db: Database) -> None:
        self._db = db

    def select(self, tunnel_uid: str | None = None, view: View | None = None) -> list[PortMap]:
        """By listening port."""
        return [PORTMAPS.read(row) for row in (view or self._db).rows(_OF(tunnel_uid))]
