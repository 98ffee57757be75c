"""Requests of a logged-in client: what it may ask about its own tunnel, and nothing of another's.

Source: docs/protocol.md, "Afterwards".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from spokes.config_values import PortRange
from spokes.errors import AddressInUseError, NotFoundError, SpokesError, ValueRefusedError
from spokes.model.operation import SYSTEM, Operation, client_of, perform
from spokes.model.ports import AllocatePort, ReleasePort
from spokes.model.tunnels import EditTunnel
from spokes.server.base.storethread import StoreThread
from spokes.server.routing.changes import ChangeFollower
from spokes.server.routing.ports import PortListeners
from spokes.server.routing.public import PublicPorts
from spokes.store import Store
from spokes.wire.messages import Answer, Fault, PortArgs, Request, TunnelEditArgs, TunnelInfo

BUSY_PORTS_MAX = 16  # ports of the range that other programs may hold before an allocation gives up

R = TypeVar("R")

Answerer = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


class Requests:
    """Operations by name; each gets the tunnel it is about."""

    def __init__(
        self,
        store: StoreThread,
        follower: ChangeFollower,
        ports: PortListeners,
        tcp_ports: PortRange,
        public: PublicPorts,
    ) -> None:
        self._store = store
        self._follower = follower
        self._ports = ports
        self.tcp_ports = tcp_ports
        self._public = public
        self.addresses: tuple[str, ...] = ()
        self._operations: dict[str, Answerer] = {
            "tcp.allocate": self._allocate,
            "tcp.release": self._release,
            "tunnel.edit": self._edit,
            "tunnel.info": self._info,
        }

    async def answer(self, tunnel_uid: str, request: Request) -> Answer:
        """The answer, be it a refusal. Only a fault of ours raises, and ends the session that met it."""
        try:
            operation = self._operations.get(request.op)
            if operation is None:
                raise NotFoundError(f"unknown operation {request.op!r}")
            async with self._store.patience():
                return Answer(id=request.id, result=await operation(tunnel_uid, request.args))
        except msgspec.ValidationError as error:
            return Answer(id=request.id, error=Fault.of(ValueRefusedError(f"{request.op}: {error}")))
        except SpokesError as error:
            return Answer(id=request.id, error=Fault.of(error))

    async def _perform(self, tunnel_uid: str, operation: Operation[R]) -> R:
        """On behalf of the client, as long as its tunnel may log in."""
        return await self._store.perform(perform, self._store.store, client_of(tunnel_uid), operation)

    async def _allocate(self, tunnel_uid: str, _args: dict[str, Any]) -> dict[str, Any]:
        busy: list[int] = []
        store = self._store.store
        try:
            while True:
                port = await self._perform(
                    tunnel_uid, AllocatePort(tunnel_uid, self.tcp_ports.begin, self.tcp_ports.end)
                )
                await self._follower.catch_up()
                # At a replica the master allocated it; what is taken here is reported, and no reason to ask again.
                if store.forward is not None or port not in self._ports.faults:
                    return {"port": port}
                busy.append(port)  # stays allocated until we are done, so that the next one is tried
                if len(busy) == BUSY_PORTS_MAX:
                    raise AddressInUseError(f"ports {busy[0]}-{busy[-1]} are in use by other programs on the server")
        finally:
            for port in busy:
                await self._store.ask(perform, store, SYSTEM, ReleasePort(tunnel_uid, port))
            if busy:
                self._follower.wake()

    async def _release(self, tunnel_uid: str, args: dict[str, Any]) -> dict[str, Any]:
        port = msgspec.convert(args, PortArgs).port
        await self._perform(tunnel_uid, ReleasePort(tunnel_uid, port))
        await self._follower.catch_up()
        return {}

    async def _edit(self, tunnel_uid: str, args: dict[str, Any]) -> dict[str, Any]:
        name = msgspec.convert(args, TunnelEditArgs).name
        tunnel = await self._perform(tunnel_uid, EditTunnel(tunnel_uid, name=name))
        await self._follower.catch_up()
        return {"name": tunnel.name}

    async def _info(self, tunnel_uid: str, _args: dict[str, Any]) -> dict[str, Any]:
        info = await self._store.run(_read_info, self._store.store, tunnel_uid, self.addresses)
        info = msgspec.structs.replace(info, urls=self._public.urls(info.hostname), url=self._public.url(info.hostname))
        return dict(msgspec.to_builtins(info))


def _read_info(store: Store, tunnel_uid: str, addresses: tuple[str, ...]) -> TunnelInfo:
    tunnel = store.tunnels.get(tunnel_uid)
    return TunnelInfo(
        tunnel=tunnel.uid,
        hostname=tunnel.hostname,
        name=tunnel.name,
        addresses=addresses,
        domains=tuple(site.domain for site in store.sites.select(tunnel_uid)),
        ports=tuple(port.port for port in store.ports.select(tunnel_uid)),
    )
