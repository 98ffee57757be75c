"""This project: `spokes server` and `spoke start` as a user runs them, the link under TLS."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.certificate_pairs import HTTPS_NAMES, Authority
from benchmarks.peers.running import Endpoint, RunningPeer
from benchmarks.processes import BenchmarkError, MissingError, Process, Room, free_port, wait_until
from benchmarks.upstream import Upstream

DOMAIN = "localhost"                    # resolves without DNS, here and for its sub-domains in curl and browsers
HTTP_HOST = HTTPS_NAMES[0]
WORKER_COUNT = 2
PRESENCE_INTERVAL_S = 5.0               # its default: what changed is written that often
DRAIN_TIMEOUT_S = 1                     # nobody is left to wait for when a peer is stopped
TCP_PORT_COUNT = 20
# A variable, not an option: an earlier tree that is measured beside this one passes over what it does not know.
HANDSHAKES = {"SPOKES_HANDSHAKES_PER_ADDRESS_PER_S": "0"}       # a load comes from few addresses
CERTIFICATES = "certs-extra"
ALL_VISITORS = {"SPOKES_VISITORS_PER_TUNNEL": "1000000", "SPOKES_VISITORS_PER_ADDRESS": "1000000"}
READY_WITHIN_S = 60.0
LET_GO_WITHIN_S = 10.0

_programs = ContextVar("_programs", default=Path(sys.executable).parent)


@contextlib.contextmanager
def programs_of(folder: Path) -> Iterator[None]:
    """Peers that start in this block run the `spokes` and `spoke` of `folder`."""
    before = _programs.set(folder)
    try:
        yield
    finally:
        _programs.reset(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What loads that speak the link protocol, or ask the server, need."""

    link_address: str
    link_port: int
    http_port: int
    token: str
    data: Path
    room: Room
    spokes: str                         # the program that the server runs
    memory_group: Path | None = None    # the cgroup around the server, where there is one
    authority: Authority | None = None  # of the certificates that it was given, where it was

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(run_spokes(self.room, self.spokes, self.data, "status", "--json"))
        return answer

    def sql_statement_count(self) -> int | None:
        """Statements the server sent to its store since it started; None where it does not say."""
        count = self.status().get("store", {}).get("statements_total")
        return None if count is None else int(count)

    def left_open(self) -> dict[str, float]:
        """What the engine still holds for visitors once it has had time to let go."""
        names = ("visitors_open", "streams_open", "buffer_bytes")
        left: dict[str, float] = {}

        def is_empty() -> bool:
            engine = self.status()["engine"]
            left.update({name: float(engine[name]) for name in names})
            return not any(left.values())

        with contextlib.suppress(BenchmarkError):       # what is left then is the result
            wait_until(is_empty, "nothing left open", LET_GO_WITHIN_S)
        return left


def find_cli(name: str) -> str:
    path = _programs.get() / name
    if not path.exists():
        raise MissingError(f"{path} is not built")
    return str(path)


def run_spokes(room: Room, program: str, data: Path, *words: str) -> str:
    return room.run([program, *words, "--data", str(data)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    process: Process
    control: Control
    http_port: int
    fingerprint: str


def start_server(
    room: Room, *, worker_count: int = WORKER_COUNT, admin: bool = False, options: Sequence[str] = (),
    env: Mapping[str, str] | None = None, prepare: Callable[[Path], object] | None = None,
) -> Server:
    """A server with its own data directory and one registration token; `admin`: with its administration beside it;
    `prepare`: puts into its data directory what is to be there before it starts."""
    program = find_cli("spokes")
    data = room.path / "data"
    if prepare is not None:
        data.mkdir(mode=0o700)
        prepare(data)
    http_port, https_port = free_port(), free_port()
    first_tcp_port = _free_port_range(TCP_PORT_COUNT)
    process = room.start("spokes-server", [
        program, "server", "--data", str(data), "--domain", DOMAIN,
        "--http", f"{room.address}:{http_port}", "--https", f"{room.address}:{https_port}",
        "--tcp-address", room.address, "--tcp-ports", f"{first_tcp_port}-{first_tcp_port + TCP_PORT_COUNT - 1}",
        "--workers", str(worker_count), "--drain-timeout", str(DRAIN_TIMEOUT_S),
        "--admin", "true" if admin else "false", *options,
    ], env=env)
    facts: dict[str, Any] = {}

    def is_up() -> bool:
        try:
            facts.update(json.loads(run_spokes(room, program, data, "status", "--json")))
        except (BenchmarkError, ValueError):
            return False
        return True

    process.wait_for(is_up, "answers `spokes status`", READY_WITHIN_S)
    token = str(json.loads(run_spokes(room, program, data, "token", "create", "--json"))["value"])
    control = Control(
        link_address=room.address, link_port=https_port, http_port=http_port, token=token, data=data, room=room,
        spokes=program,
    )
    return Server(process=process, control=control, http_port=http_port, fingerprint=_fingerprint(facts))


def start(room: Room, upstream: Upstream) -> RunningPeer:
    """One tunnel that may have all the visitors: no other is there that a share would be kept for."""
    server = start_server(room, env=ALL_VISITORS)
    return start_client(room, server, upstream, client_room=room)


def start_https(room: Room, upstream: Upstream) -> RunningPeer:
    """The same with a certificate for its host name that an operator has put down."""
    authority = Authority()
    server = start_server(
        room, env={**ALL_VISITORS, **HANDSHAKES},
        prepare=lambda data: authority.put(data / CERTIFICATES / "benchmark", *HTTPS_NAMES),
    )
    running = start_client(room, server, upstream, client_room=room)
    secure = Endpoint(room.address, server.control.link_port, HTTP_HOST, is_secure=True)
    return dataclasses.replace(
        running, name="spokes-https", endpoints={**running.endpoints, "https": secure},
        control=dataclasses.replace(server.control, authority=authority),
    )


def start_with_admin(room: Room, upstream: Upstream) -> RunningPeer:
    server = start_server(room, admin=True)
    return dataclasses.replace(start_client(room, server, upstream, client_room=room), name="spokes-admin")


def start_client(
    room: Room, server: Server, upstream: Upstream, *, client_room: Room, name: str = "benchmark",
    host: str = HTTP_HOST, options: Sequence[str] = (),
) -> RunningPeer:
    """A client with every service of `upstream`; `client_room` may lie in another network namespace."""
    program = find_cli("spoke")
    config = client_room.path / f"{name}.json"
    token_variable = {"SPOKE_TOKEN": server.control.token}      # never in argv

    def spoke(*words: str) -> str:
        return client_room.run([program, *words, "--config", str(config)], env=token_variable)

    url = f"https://{room.address}:{server.control.link_port}"
    spoke("configure", "--url", url, "--server-key", server.fingerprint, "--name", name)
    client = client_room.start(
        f"spoke-{name}", [program, "start", "--config", str(config), "--api-port", "0", *options],
    )
    client.wait_for(lambda: b"Connected to" in client.log_path.read_bytes(), "is on-line", READY_WITHIN_S)
    spoke("tunnel", "http", "add", "--domain", host, "--destination", upstream.address,
          "--http", str(upstream.http_port))
    endpoints = {"http": Endpoint(room.address, server.http_port, host)}
    wanted = {"tcp": upstream.http_port}
    if upstream.bulk_port:
        wanted["bulk"] = upstream.bulk_port
    for service, upstream_port in wanted.items():
        allocated = re.search(r"Allocated port (\d+)", spoke("tunnel", "tcp", "allocate"))
        if not allocated:
            raise BenchmarkError("spoke tunnel tcp allocate: no `Allocated port`")
        spoke("tunnel", "tcp", "forward", "--port", allocated[1], "--destination", upstream.address,
              "--dstport", str(upstream_port))
        endpoints[service] = Endpoint(room.address, int(allocated[1]))
    for service in ("http", "tcp"):
        client.wait_for(partial(answers, room, endpoints[service]), f"serves {service}", READY_WITHIN_S)
    return RunningPeer(
        name="spokes", endpoints=endpoints, processes={"server": server.process, "client": client},
        upstream_port=upstream.http_port, control=server.control,
    )


def answers(room: Room, endpoint: Endpoint) -> bool:
    """Whether a visitor of this endpoint gets a good answer."""
    try:
        room.run([
            "curl", "-sf", "-o", "/dev/null", "-H", f"Host: {endpoint.host or endpoint.address}", endpoint.url,
        ], within_s=10.0)
    except BenchmarkError:
        return False
    return True


def _fingerprint(facts: dict[str, Any]) -> str:
    """The key that clients pin: that of the certificate for the server's own domain."""
    if "link_key" in facts:
        return str(facts["link_key"])
    # An earlier tree: one key for visitors and links.
    return str(next(one["fingerprint"] for one in facts["certificates"] if DOMAIN in one["names"]))


def _free_port_range(count: int) -> int:
    """First of `count` ports in a row that are free now."""
    for _ in range(100):
        first = free_port()
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise BenchmarkError("no free range of ports found")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
