"""Short conversations with a server outside the serving session: registering, and one question at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from spokes.client.config import ClientConfig
from spokes.client.endpoint import Endpoint
from spokes.client.link import LinkEngine
from spokes.client.links import Links
from spokes.client.session import Session, log_in, register
from spokes.errors import SpokesError
from spokes.resolver import Resolver
from spokes.wire.messages import Registered


class ControlEngine(LinkEngine, Protocol):
    """The part of the engine that is used here."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


@contextlib.asynccontextmanager
async def running_links(engine: ControlEngine, resolver: Resolver) -> AsyncIterator[Links]:
    """Links over an engine that lives as long as the block."""
    engine.start()
    links = Links(engine, resolve=resolver.addresses)
    links.start()
    try:
        yield links
        await links.wait_all_down()
    finally:
        links.stop()
        engine.stop()


async def register_tunnel(
    engine: ControlEngine, endpoint: Endpoint, *, resolver: Resolver, token: str, name: str
) -> Registered:
    async with running_links(engine, resolver) as links:
        return await register(links, endpoint, token=token, name=name)


@contextlib.asynccontextmanager
async def control_session(engine: ControlEngine, config: ClientConfig, *, resolver: Resolver) -> AsyncIterator[Session]:
    """A session that only asks; a serving session of the same tunnel goes on."""
    config.require_identity()
    async with running_links(engine, resolver) as links:
        link, ready = await log_in(links, Endpoint.of(config), key=config.key, mode="control")
        session = Session(link, ready)
        reading = asyncio.create_task(session.run())
        try:
            yield session
        finally:
            link.close()
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, SpokesError):
                await reading
