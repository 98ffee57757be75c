"""Temporary rules of `spoke http` and `spoke tcp`, served by the client that runs already for as long as they run.

The command opens a connection to the running client's local API, sends its rule and keeps the connection open. However
the command ends, the kernel closes the connection, and the client removes the rule. The command learns of the client's
end in the same way.
Bound: ONE_OFF_COUNT_MAX rules at once. Fails: TakenError where another command serves the same name or port,
LimitError, or what the server refused; nothing is served then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from spokes.client.configured_rules import ConfiguredRules
from spokes.client.local_caller import ANSWER_BYTES_MAX, LocalCaller
from spokes.client.operations import Apply, port_fault, site_fault
from spokes.client.rule_parsing import parse_port, parse_site
from spokes.errors import LimitError, RemoteError, SpokesError, UnreachableError
from spokes.wire.messages import Fault
from spokes.wire.rules import Port, Site, check_upstream

Json = dict[str, Any]

ONE_OFF_COUNT_MAX = 16
ANSWER_DEADLINE_S = 40.0  # it may wait for the server's answer twice


class OneOffs:
    """The rules that the running client serves for other commands."""

    def __init__(
        self,
        rules: ConfiguredRules,
        *,
        apply: Apply,
        allocate: Callable[[], Awaitable[int]],
        address: Callable[[Site | Port], str],
    ) -> None:
        self._rules = rules
        self._apply = apply
        self._allocate = allocate
        self._address = address
        self._count = 0
        self.closed = False  # the client ends: nothing needs to be put back

    @contextlib.asynccontextmanager
    async def serve(self, args: Json) -> AsyncIterator[Json]:
        """Serve a rule inside the block: `site`, or `port`, where the number 0 means any."""
        if self._count >= ONE_OFF_COUNT_MAX:
            raise LimitError(f"a client serves at most {ONE_OFF_COUNT_MAX} commands at once")
        self._count += 1
        try:
            rule = await self._rule(args)
            self._rules.add_temporary(rule)
            try:
                await self._serve(rule)
                yield {"address": self._address(rule), "port": rule.port if isinstance(rule, Port) else 0}
            finally:
                self._rules.remove_temporary(rule)
                if not self.closed:
                    with contextlib.suppress(SpokesError):
                        await self._apply()
        finally:
            self._count -= 1

    async def _rule(self, args: Json) -> Site | Port:
        if "port" not in args:
            site = parse_site(args.get("site") or {})
            check_upstream(site)
            return site
        wanted: Json = args["port"]
        number = int(wanted.get("port") or 0) or self._rules.free_port() or await self._allocate()
        return parse_port({**wanted, "port": number})

    async def _serve(self, rule: Site | Port) -> None:
        accepted = await self._apply()
        fault: Fault | None = None
        if accepted is not None:
            fault = site_fault(accepted, rule) if isinstance(rule, Site) else port_fault(accepted, rule.port)
        if fault is not None:
            raise RemoteError(fault.message, code=fault.code)


async def serve_through(caller: LocalCaller, args: Json, on_served: Callable[[Json], None]) -> None:
    """Have the running client serve a rule. Returns when the client has ended or has stopped serving it."""
    from spokes.http_client import NotHttpError, Peer, Request, exchange  # the running client needs none of it

    peer = Peer(addresses=[caller.address], port=caller.port)
    body = json.dumps(args).encode()
    request = Request(method="POST", target="/one-offs", host=caller.authority, headers=caller.headers(), body=body)
    async with contextlib.AsyncExitStack() as held:
        try:
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                open_answer = await held.enter_async_context(exchange(peer, request))
                answer = msgspec.json.decode(await open_answer.read(ANSWER_BYTES_MAX), type=Json)
        except (OSError, msgspec.MsgspecError, NotHttpError) as error:
            raise UnreachableError(f"the running client does not answer: {error}", hint="try again") from None
        if refusal := answer.get("error"):
            raise RemoteError(
                str(refusal.get("message")), code=str(refusal.get("code")), hint=str(refusal.get("hint") or "")
            )
        on_served(answer.get("result") or {})
        await open_answer.wait_closed()
