"""Short conversations with a server outside the serving session: registering, and one question at a time.

With the host name of a cluster its nodes are tried in order until one answers: one that cannot be reached, or that says
that it cannot do it now, leaves it to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from spokes.client.config import ClientConfig
from spokes.client.endpoint import Endpoint
from spokes.client.link import LinkEngine
from spokes.client.links import Links
from spokes.client.node_discovery import NodeDiscovery
from spokes.client.node_file import NodeFile
from spokes.client.session import Session, log_in, register
from spokes.errors import NobodyThereError, RemoteError, ServerKeyError, SpokesError, UnreachableError
from spokes.resolver import Resolver
from spokes.wire.messages import Registered

Result = TypeVar("Result")


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


async def find_endpoints(config: ClientConfig, resolver: Resolver, links: Links) -> list[Endpoint]:
    """Of every node in the order to try, each with each key that may be its own."""
    server = Endpoint.of(config)
    file = NodeFile(config.path, read_only=True)
    discovery = NodeDiscovery(resolver.services, server.host, server.port, file=file)
    links.addresses.seed(file.addresses)
    nodes = await discovery.first()
    discovery.stop()
    if not nodes:
        raise NobodyThereError(discovery.problem, hint="correct the records")
    return [endpoint for node in nodes for endpoint in server.nodes_at(node.host, node.port)]


async def register_tunnel(
    engine: ControlEngine, config: ClientConfig, *, resolver: Resolver, token: str, name: str
) -> Registered:
    async with running_links(engine, resolver) as links:
        endpoints = await find_endpoints(config, resolver, links)
        return await _first_answer(endpoints, lambda endpoint: register(links, endpoint, token=token, name=name))


@contextlib.asynccontextmanager
async def control_session(engine: ControlEngine, config: ClientConfig, *, resolver: Resolver) -> AsyncIterator[Session]:
    """A session that only asks; a serving session of the same tunnel goes on."""
    config.require_identity()
    async with running_links(engine, resolver) as links:
        endpoints = await find_endpoints(config, resolver, links)
        link, ready = await _first_answer(
            endpoints, lambda endpoint: log_in(links, endpoint, key=config.key, mode="control")
        )
        session = Session(link, ready)
        reading = asyncio.create_task(session.run())
        try:
            yield session
        finally:
            link.close()
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, SpokesError):
                await reading


async def _first_answer(endpoints: Sequence[Endpoint], ask: Callable[[Endpoint], Awaitable[Result]]) -> Result:
    """Fails with what the last one said that can be cured here: a key before a network."""
    failure: SpokesError | None = None
    for endpoint in endpoints:
        try:
            return await ask(endpoint)
        except (RemoteError, ServerKeyError, UnreachableError) as error:
            if isinstance(error, RemoteError) and not error.retryable:
                raise
            if failure is None or not isinstance(failure, ServerKeyError):
                failure = error
    assert failure is not None
    raise failure
