"""Upstream conns: pooled and reused, replayed or not, refused, unreachable, misbehaving."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spokes._fastpath.engine import FAULT_CODES, Engine, EventKind, ListenerKind, RouteKind, Site, Upstream
from spokes.errors import EngineError
from tests.support.engines import Pair, engine_pair, eventually, listening, wait_events
from tests.support.http_wire import (
    Ended,
    Message,
    ScriptedUpstream,
    Wire,
    answering,
    request,
    response,
    serving,
)

Visit = Callable[[], Wire]
RC_TIMEOUT = -5007                      # types.pxd


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def faults(upstream: Upstream) -> dict[str, int]:
    """How many of each code, without those there were none of."""
    counts: dict[str, int] = {}
    for code, count in zip(FAULT_CODES, upstream.outcomes()[2], strict=True):
        if count:
            counts[code] = counts.get(code, 0) + count
    return counts


def wait_readable(wire: Wire) -> None:
    assert select.select([wire.sock], [], [], 5)[0], "nothing came"


# --- the pool ---------------------------------------------------------------------------------------------------------


def answer_and_close(wire: Wire) -> None:
    """Keep-alive is what it says."""
    wire.read_request()
    wire.send(response())


def test_pool_visitors_one_after_another_share_one_upstream_conn(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        for _ in range(10):
            with visit() as visitor:
                visitor.send(request())
                assert visitor.read_response().body == b"hello"
        assert len(upstream.conns) == 1
        assert pair.client.stats()["upstreams_idle"] == 1


def test_pool_response_through_back_pressure_still_gives_the_conn_back(pair: Pair, visit: Visit) -> None:
    body = b"b" * 3_000_000
    with ScriptedUpstream(answering(response(body))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(5):
            visitor.send(request())
            assert visitor.read_response().body == body
        assert len(upstream.conns) == 1


def test_pool_idle_conn_closed_by_the_upstream_is_forgotten(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answer_and_close) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for i in range(5):
            visitor.send(request(method="POST", body=b"x"))
            assert visitor.read_response().body == b"hello"
            eventually(lambda: pair.client.stats()["upstreams_open"] == 0)
            assert len(upstream.conns) == i + 1


def test_pool_upstream_that_closes_after_each_answer_costs_no_get(pair: Pair, visit: Visit) -> None:
    """It says keep-alive and closes all the same: the close and the next request cross."""
    with ScriptedUpstream(answer_and_close) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(300):
            visitor.send(request())
            answer = visitor.read_response()
            assert (answer.status, answer.code, answer.body) == (200, "", b"hello")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("abort", [False, True], ids=["close", "abort"])
def test_pool_conn_lost_under_an_idempotent_request_is_replayed_once(
    pair: Pair, visit: Visit, method: str, abort: bool
) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(response(b"first"))
        asked = wire.read_request()
        if wire.index == 0:
            assert asked is not None
            if abort:
                wire.abort()
            return

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"first"
        visitor.send(request(method=method))
        answer = visitor.read_response(method)
        assert answer.status == 200 and answer.code == ""
        assert len(upstream.conns) == 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "BREW"])
def test_pool_conn_lost_under_a_request_that_is_not_idempotent_is_not_replayed(
    pair: Pair, visit: Visit, method: str
) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(response(b"first"))
        wire.read_request()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"first"
        visitor.send(request(method=method))
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (502, "SPK-UPSTREAM-CLOSED")
        assert len(upstream.conns) == 1


def test_pool_conn_lost_twice_under_a_request_is_not_replayed_again(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        if wire.index == 0:
            wire.read_request()
            wire.send(response(b"first"))
        wire.read_request()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"first"
        visitor.send(request())
        assert visitor.read_response().code == "SPK-UPSTREAM-CLOSED"
        assert len(upstream.conns) == 2


@pytest.mark.parametrize("head_bytes", [5_000, 30_000])
def test_pool_conn_lost_under_a_get_with_a_long_head_is_replayed(pair: Pair, visit: Visit, head_bytes: int) -> None:
    cookies = [f"Cookie: a={'x' * 5000}" for _ in range(head_bytes // 5000)]

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(response(b"first"))
        if wire.index == 1:
            return
        wire.read_request()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"first"
        visitor.send(request("/", *cookies))
        assert visitor.read_response().body == b"first"
        assert len(upstream.conns) == 2


@pytest.mark.parametrize("size", [1, 4_000, 60_000])
@pytest.mark.parametrize("in_parts", [False, True], ids=["at once", "in parts"])
def test_pool_conn_lost_under_a_put_with_a_body_is_replayed_whole(
    pair: Pair, visit: Visit, size: int, in_parts: bool
) -> None:
    body = bytes(i % 251 for i in range(size))
    lost = threading.Event()

    def script(wire: Wire) -> None:
        asked = wire.read_request()
        assert asked is not None
        wire.send(response(asked.body or b"first"))
        if wire.index == 0:
            wire.read_head()
            if in_parts:
                lost.set()
            else:
                wire.read(size)

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"first"
        asked = request(method="PUT", body=body)
        if in_parts:
            visitor.send(asked[: -len(body)])
            assert lost.wait(5)
            eventually(lambda: len(upstream.conns) == 2)
            visitor.send(body)
        else:
            visitor.send(asked)
        assert visitor.read_response().body == body
        assert len(upstream.conns) == 2
        assert pair.client.stats()["upstreams_open"] <= 1


@pytest.mark.parametrize(
    "asked",
    [
        request(method="PUT", body=b"x" * 100_000),
        request("/", "Transfer-Encoding: chunked", method="PUT") + b"5\r\nhello\r\n0\r\n\r\n",
        request(method="POST", body=b"x"),
        request(method="DELETE", body=b"x" * 100_000),
    ],
    ids=["long", "chunked", "POST", "DELETE"],
)
def test_pool_what_cannot_be_sent_again_takes_no_conn_that_was_idle_for_long(
    pair: Pair, visit: Visit, asked: bytes
) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"hello"
        idle = time.monotonic()
        eventually(lambda: time.monotonic() > idle + 0.4)      # the engine's own limit is a quarter of a second
        visitor.send(asked)
        assert visitor.read_response().body == b"hello"
        assert len(upstream.conns) == 2


def test_pool_what_cannot_be_sent_again_takes_a_fresh_conn(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response(b"hello", "200 OK", "Keep-Alive: timeout=60"))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(20):
            visitor.send(request(method="POST", body=b"x"))
            assert visitor.read_response().body == b"hello"
        idle = time.monotonic()
        eventually(lambda: time.monotonic() > idle + 0.4)      # a time-out that is known allows more
        visitor.send(request(method="POST", body=b"x"))
        assert visitor.read_response().body == b"hello"
        assert len(upstream.conns) == 1


def test_pool_upstream_that_closes_after_each_answer_costs_no_post(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answer_and_close) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(300):
            visitor.send(request(method="POST", body=b"x" * 100))
            answer = visitor.read_response()
            assert (answer.status, answer.code, answer.body) == (200, "", b"hello")


@pytest.mark.parametrize("field", ["Keep-Alive: timeout=1", "keep-alive: max=100, Timeout=1"])
def test_pool_conn_is_not_kept_for_as_long_as_its_upstream_says(pair: Pair, visit: Visit, field: str) -> None:
    """The engine closes it first: the upstream, which would wait for ever, sees the end."""
    ended: list[float] = []

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(response(b"hello", "200 OK", field))
        since = time.monotonic()
        assert wire.read_request() is None
        ended.append(time.monotonic() - since)

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"hello"
        eventually(lambda: ended)
        eventually(lambda: pair.client.stats()["upstreams_open"] == 0)


def test_pool_conn_that_its_upstream_keeps_for_no_time_is_not_kept(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response(b"hello", "200 OK", "Keep-Alive: timeout=0"))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for i in range(3):
            visitor.send(request())
            assert visitor.read_response().body == b"hello"
            assert len(upstream.conns) == i + 1


def test_pool_time_out_that_was_seen_is_kept_away_from(pair: Pair, visit: Visit) -> None:
    """It says nothing and closes after 0.8 s: the next conn is closed by us, before that."""
    ended: list[bool] = []

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(response())
        wire.sock.settimeout(0.8 if wire.index == 0 else 10)
        try:
            ended.append(wire.read_request() is None)
        except TimeoutError:
            ended.append(False)

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for told in ([False], [False, True]):
            visitor.send(request())
            assert visitor.read_response().body == b"hello"
            eventually(lambda told=told: ended == told)
            eventually(lambda: pair.client.stats()["upstreams_open"] == 0)


def test_pool_conn_lost_after_part_of_the_answer_is_not_replayed(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(response(b"first"))
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Len")

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"first"
        visitor.send(request())
        assert visitor.read_response().code == "SPK-UPSTREAM-CLOSED"
        assert len(upstream.conns) == 1


def test_pool_bytes_on_an_idle_conn_close_it(pair: Pair, visit: Visit) -> None:
    poison = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(response(b"good"))
        if wire.index == 0:
            assert poison.wait(5)
            wire.send(response(b"poison"))
        wire.read_request()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"good"
        poison.set()
        eventually(lambda: pair.client.stats()["upstreams_open"] == 0)
        visitor.send(request())
        assert visitor.read_response().body == b"good"


@pytest.mark.parametrize(
    "first",
    [
        response(b"good") + b"more",
        response(b"good") + response(b"poison"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n" + response(b"poison"),
    ],
    ids=["bytes", "second response", "behind chunks"],
)
def test_pool_more_than_the_message_is_dropped_with_its_conn(pair: Pair, visit: Visit, first: bytes) -> None:
    with ScriptedUpstream(answering(first)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(3):
            visitor.send(request())
            assert visitor.read_response().body == b"good"
        assert len(upstream.conns) == 3


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", response(b"body in spite of HEAD")),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison"),
    ],
)
def test_pool_body_where_none_may_be_is_not_passed_on(pair: Pair, visit: Visit, method: str, answer: bytes) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(answer if wire.index == 0 else response(b"after"))
        wire.read_request()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request(method=method))
        assert visitor.read_response(method).status in (200, 204, 304)
        visitor.send(request())
        assert visitor.read_response().body == b"after"


def test_pool_conn_of_an_early_answer_is_not_reused(pair: Pair, visit: Visit) -> None:
    """Its upstream still waits for the rest of the request's body."""

    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(response(b"early"))
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        for i in range(3):
            visitor = visit()
            visitor.send(request("/", "Content-Length: 10", method="POST"))
            assert visitor.read_response().body == b"early"
            eventually(lambda: pair.client.stats()["upstreams_open"] == 0)
            assert len(upstream.conns) == i + 1


@pytest.mark.parametrize("reads", [1, 2, 4])
def test_pool_bytes_that_were_not_read_yet_keep_their_conn_from_being_used_again(
    pair: Pair, visit: Visit, reads: int
) -> None:
    """The response ends where a read of the engine's does: what lies behind it is still in the kernel."""
    head_bytes = len(response(b"g" * (reads * 262_144 - 100))) - (reads * 262_144 - 100)
    good = response(b"g" * (reads * 262_144 - head_bytes))
    assert len(good) == reads * 262_144

    def script(wire: Wire) -> None:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        wire.read_request()
        wire.send(good + response(b"poison"))
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for i in range(3):
            visitor.send(request())
            assert visitor.read_response().body == good[head_bytes:]
            assert len(upstream.conns) == i + 1


def test_pool_two_upstreams_are_never_mixed_up(pair: Pair, visit: Visit) -> None:
    with (
        ScriptedUpstream(answering(response(b"a"))) as first,
        ScriptedUpstream(answering(response(b"b"))) as second,
    ):
        pair.serve_http("a.tun.test", first.upstream())
        pair.serve_http("b.tun.test", second.upstream())
        visitors = [visit() for _ in range(8)]
        for i in range(80):
            name = "ab"[i * 7 % 5 % 2]
            visitor = visitors[i % len(visitors)]
            visitor.send(request(host=f"{name}.tun.test"))
            assert visitor.read_response().body == name.encode()


# --- connecting -------------------------------------------------------------------------------------------------------


def test_connect_refused_shows_its_page_and_the_conn_goes_on(pair: Pair, visit: Visit) -> None:
    pair.serve_http("a.tun.test", Upstream(addresses=[("127.0.0.1", closed_port())]))
    visitor = visit()
    for _ in range(3):
        visitor.send(request())
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (502, "SPK-UPSTREAM-REFUSED")


def test_connect_refused_with_a_body_under_way_shows_its_page(pair: Pair, visit: Visit) -> None:
    pair.serve_http("a.tun.test", Upstream(addresses=[("127.0.0.1", closed_port())]))
    visitor = visit()
    visitor.send(request("/", "Content-Length: 1000000", method="POST"), b"x" * 100_000)
    answer = visitor.read_response()
    assert (answer.status, answer.code, answer.one("Connection")) == (502, "SPK-UPSTREAM-REFUSED", "close")


def test_connect_without_addresses_is_a_name_that_was_not_found(pair: Pair, visit: Visit) -> None:
    pair.serve_http("a.tun.test", Upstream(addresses=[]))
    visitor = visit()
    visitor.send(request())
    answer = visitor.read_response()
    assert (answer.status, answer.code) == (502, "SPK-UPSTREAM-NAME")


def test_connect_to_an_unroutable_address_is_unreachable(pair: Pair, visit: Visit) -> None:
    """A link-local IPv6 address without a scope has no route: the kernel says so at once."""
    pair.serve_http("a.tun.test", Upstream(addresses=[("fe80::1", 80)]))
    visitor = visit()
    visitor.send(request())
    answer = visitor.read_response()
    assert (answer.status, answer.code) == (502, "SPK-UPSTREAM-UNREACHABLE")


def test_connect_falls_back_to_the_next_address_and_keeps_the_conn(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        dead = [("127.0.0.1", closed_port()), ("127.0.0.1", closed_port())]
        pair.serve_http("a.tun.test", Upstream(addresses=[*dead, ("127.0.0.1", upstream.port)]))
        visitor = visit()
        for _ in range(5):
            visitor.send(request(method="POST", body=b"x" * 1000))
            assert visitor.read_response().body == b"hello"
        assert len(upstream.conns) == 1


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A listener whose backlog is full: the kernel drops what comes, as a host that is gone does."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_connect_silent_address_does_not_take_the_time_of_the_next_and_is_not_tried_first_again(
    pair: Pair, visit: Visit
) -> None:
    with silent_port() as silent, ScriptedUpstream(answering(response())) as upstream:
        addresses = [("127.0.0.1", silent), ("127.0.0.1", upstream.port)]
        pair.serve_http("a.tun.test", Upstream(addresses=addresses))
        visitor = visit()
        visitor.send(request())
        fault = wait_events(pair.client, lambda event: event.kind == EventKind.UPSTREAM_FAULT)
        assert (fault.code, visitor.read_response().body) == (RC_TIMEOUT, b"hello")
        pair.client.drain_events()
        others = [visit() for _ in range(5)]
        for other in others:                # at once, on conns of their own
            other.send(request())
        for other in others:
            assert other.read_response().body == b"hello"
        assert not [event for event in pair.client.drain_events() if event.kind == EventKind.UPSTREAM_FAULT]


def test_connect_refused_is_told_once_a_second_and_names_its_upstream(pair: Pair, visit: Visit) -> None:
    upstream = Upstream(addresses=[("127.0.0.1", closed_port())])
    pair.serve_http("a.tun.test", upstream)
    visitor = visit()
    began = time.monotonic()
    for _ in range(50):
        visitor.send(request())
        assert visitor.read_response().code == "SPK-UPSTREAM-REFUSED"
    took_s = time.monotonic() - began
    faults = [event for event in pair.client.drain_events() if event.kind == EventKind.UPSTREAM_FAULT]
    assert {(event.link, event.code) for event in faults} == {(upstream.id, -errno.ECONNREFUSED)}
    assert 1 <= len(faults) <= 1 + took_s


def test_unix_socket_upstream_is_served_and_pooled(pair: Pair, visit: Visit, tmp_path: Path) -> None:
    path = str(tmp_path / "upstream.sock")
    body = b"u" * 200_000
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(asked.body))), unix_path=path) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(5):
            visitor.send(request(method="POST", body=body))
            assert visitor.read_response().body == body
        assert len(upstream.conns) == 1


def test_unix_socket_that_is_not_there_is_refused(pair: Pair, visit: Visit, tmp_path: Path) -> None:
    pair.serve_http("a.tun.test", Upstream(unix_path=str(tmp_path / "nobody.sock")))
    visitor = visit()
    visitor.send(request())
    assert visitor.read_response().code == "SPK-UPSTREAM-REFUSED"


@pytest.mark.parametrize("kind", ["file", "directory", "below-a-file", "datagram", "link-to-itself"])
def test_unix_path_that_leads_to_no_listener_is_refused(pair: Pair, visit: Visit, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "upstream.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        if kind == "directory":
            path.mkdir()
        elif kind == "datagram":
            datagrams.bind(str(path))
        elif kind == "link-to-itself":
            path.symlink_to(path)
        else:
            path.touch()
        upstream = Upstream(unix_path=str(path / "deeper" if kind == "below-a-file" else path))
        pair.serve_http("a.tun.test", upstream)
        visitor = visit()
        visitor.send(request())
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (502, "SPK-UPSTREAM-REFUSED")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use any socket")
def test_unix_socket_that_is_not_for_us_is_refused(pair: Pair, visit: Visit, tmp_path: Path) -> None:
    path = str(tmp_path / "upstream.sock")
    with ScriptedUpstream(answering(response()), unix_path=path) as upstream:
        Path(path).chmod(0)
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().code == "SPK-UPSTREAM-REFUSED"


def test_unix_socket_with_a_full_backlog_is_waited_for(pair: Pair, visit: Visit, tmp_path: Path) -> None:
    """The kernel refuses with EAGAIN and does not queue: the engine comes back until there is a place."""
    path = str(tmp_path / "upstream.sock")
    count = 6
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(path)
        listener.listen(0)
        listener.settimeout(10)
        pair.serve_http("a.tun.test", Upstream(unix_path=path))
        visitors = [visit() for _ in range(count)]
        for visitor in visitors:
            visitor.send(request())
        eventually(lambda: pair.client.stats()["upstreams_open"] == count)
        for _ in range(count):
            wire = stack.enter_context(Wire(listener.accept()[0]))
            assert wire.read_request() is not None
            wire.send(response())
        for visitor in visitors:
            assert visitor.read_response().body == b"hello"


def test_unix_socket_with_a_full_backlog_visitor_that_leaves_is_forgotten(
    pair: Pair, visit: Visit, tmp_path: Path
) -> None:
    path = str(tmp_path / "upstream.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        pair.serve_http("a.tun.test", Upstream(unix_path=path))
        visitor = visit()
        visitor.send(request())
        eventually(lambda: pair.client.stats()["upstreams_open"] == 1)
        visitor.abort()
        eventually(lambda: pair.client.stats()["upstreams_open"] == 0)


@pytest.mark.slow
def test_unix_socket_whose_backlog_stays_full_is_a_timeout(pair: Pair, visit: Visit, tmp_path: Path) -> None:
    path = str(tmp_path / "upstream.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        pair.serve_http("a.tun.test", Upstream(unix_path=path))
        visitor = visit()
        visitor.sock.settimeout(15)
        visitor.send(request())
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (504, "SPK-UPSTREAM-TIMEOUT")


# --- broken answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("CLOSED", b""),
        ("CLOSED", b"HTTP/1.1 200 OK\r\nContent-"),
        ("TLS", b"\x15\x03\x01\x00\x02\x02\x46"),
        ("TLS", b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 9000 + b"\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 7000) for i in range(6)) + b"\r\n"),
        *(("BROKEN", answer) for answer in (
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + response(),
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000,
        )),
    ],
)
@pytest.mark.parametrize("with_body", [False, True], ids=["GET", "POST"])
def test_broken_response_head_is_502(
    pair: Pair, visit: Visit, code: str, answer: bytes, with_body: bool
) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(answer)
        wire.end_sending()
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        asked = upstream.upstream()
        pair.serve_http("a.tun.test", asked)
        visitor = visit()
        visitor.send(request(method="POST", body=b"x" * 10) if with_body else request())
        got = visitor.read_response()
        assert (got.status, got.code) == (502, f"SPK-UPSTREAM-{code}")
        eventually(lambda: pair.client.stats()["upstreams_open"] == 0)
        assert faults(asked) == {f"SPK-UPSTREAM-{code}": 1}
        assert FAULT_CODES[asked.outcomes()[0]] == f"SPK-UPSTREAM-{code}"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 999_999,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n",
    ],
)
@pytest.mark.parametrize("abort", [False, True], ids=["close", "abort"])
def test_truncated_body_is_an_abort_for_the_visitor(
    pair: Pair, visit: Visit, answer: bytes, abort: bool
) -> None:
    seen = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(answer)
        if abort:
            assert seen.wait(10)
            wire.abort()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        try:
            assert visitor.read_head().status == 200
            seen.set()
            with pytest.raises(Ended) as ended:
                visitor.read_to_end()
            assert ended.value.reset
        except Ended as early:                          # the abort may overtake what was not read yet
            assert early.reset
        finally:
            seen.set()


def test_upstream_that_resets_at_once_is_502(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.abort()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(5):
            visitor.send(request())
            answer = visitor.read_response()
            assert (answer.status, answer.code) == (502, "SPK-UPSTREAM-RESET")


# --- what came of it --------------------------------------------------------------------------------------------------


def test_outcomes_of_an_upstream_that_was_never_asked() -> None:
    assert Upstream(addresses=[("127.0.0.1", 1)]).outcomes() == (0, 0.0, [0] * len(FAULT_CODES))


def test_outcomes_say_what_came_last_and_count_the_rest(pair: Pair, visit: Visit) -> None:
    upstream = Upstream(addresses=[("127.0.0.1", closed_port())])
    pair.serve_http("a.tun.test", upstream)
    visitor = visit()
    for count in (1, 2):
        visitor.send(request())
        visitor.read_response()
        assert faults(upstream) == {"SPK-UPSTREAM-REFUSED": count}
    last, at, _ = upstream.outcomes()
    assert FAULT_CODES[last] == "SPK-UPSTREAM-REFUSED" and abs(at - time.time()) < 5


def test_outcomes_count_an_answer_broken_off_in_the_middle_and_the_next_one_mends_it(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort" if wire.index == 0 else response())

    with ScriptedUpstream(script) as scripted:
        upstream = scripted.upstream()
        pair.serve_http("a.tun.test", upstream)
        visitor = visit()
        visitor.send(request())
        with pytest.raises(Ended):
            visitor.read_response()
        assert faults(upstream) == {"SPK-UPSTREAM-CUT": 1}
        assert FAULT_CODES[upstream.outcomes()[0]] == "SPK-UPSTREAM-CUT"
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"hello"
        assert faults(upstream) == {"SPK-UPSTREAM-CUT": 1} and upstream.outcomes()[0] == 0


def test_outcomes_count_no_fault_where_the_visitor_leaves(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(lambda wire: (wire.read_request(), wire.read_to_end())[0]) as scripted:
        upstream = scripted.upstream()
        pair.serve_http("a.tun.test", upstream)
        visitor = visit()
        visitor.send(request())
        eventually(lambda: len(scripted.conns) == 1)
        visitor.abort()
        eventually(lambda: scripted.ended_count == 1)
        assert faults(upstream) == {}


# --- the way there ----------------------------------------------------------------------------------------------------


def test_unknown_host_is_404_and_the_conn_goes_on(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request(host="unknown.test"))
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (404, "SPK-UNKNOWN-HOST")
        visitor.send(request())
        assert visitor.read_response().body == b"hello"


def test_host_the_client_does_not_serve_is_404(pair: Pair, visit: Visit) -> None:
    pair.server.set_route(RouteKind.HTTP, "a.tun.test", Site(tunnels=(pair.server_tunnel,)))
    pair.publish()
    visitor = visit()
    for _ in range(2):
        visitor.send(request())
        assert visitor.read_response().code == "SPK-NO-RULE"


def test_tunnel_off_line_is_503(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"hello"
        pair.client.close_link(pair.client_link)
        wait_events(pair.server, lambda event: event.kind == EventKind.LINK_DOWN)
        for _ in range(2):
            visitor.send(request())
            answer = visitor.read_response()
            assert (answer.status, answer.code) == (503, "SPK-OFFLINE")
        pair.connect()
        visitor.send(request())
        assert visitor.read_response().body == b"hello"


def test_tunnel_at_its_stream_limit_is_503_of_another_kind() -> None:
    with (
        engine_pair(stream_count_max=2) as pair,
        ScriptedUpstream(answering(response())) as upstream,
        contextlib.ExitStack() as visitors,
    ):
        pair.serve_http("a.tun.test", upstream.upstream())
        wires = [
            visitors.enter_context(Wire(socket.create_connection(("127.0.0.1", pair.ports["http"])))) for _ in range(3)
        ]
        for wire in wires[:2]:
            wire.send(request())
            assert wire.read_response().body == b"hello"
        wires[2].send(request())
        answer = wires[2].read_response()
        assert (answer.status, answer.code) == (503, "SPK-LIMIT")
        wires[0].close()
        eventually(lambda: pair.server.stats()["streams_open"] == 1)
        wires[2].send(request())
        assert wires[2].read_response().body == b"hello"


def test_link_that_dies_before_the_response_is_503(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(lambda wire: (wire.read_request(), wire.read_to_end())[0]) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        eventually(lambda: len(upstream.conns) == 1)
        pair.server.abort_link(pair.server_link)
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (503, "SPK-OFFLINE")
        eventually(lambda: upstream.ended_count == 1)


def test_link_that_dies_in_mid_response_aborts_the_visitor(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        visitor.read_until(b"part")
        pair.client.abort_link(pair.client_link)
        with pytest.raises(Ended) as ended:
            visitor.read_to_end()
        assert ended.value.reset
        eventually(lambda: upstream.ended_count == 1)


def test_page_route_answers_by_itself(pair: Pair, visit: Visit) -> None:
    pair.server.set_route(RouteKind.HTTP, "tun.test", Site(page="SPK-WELCOME"))
    pair.publish()
    visitor = visit()
    for _ in range(2):
        visitor.send(request(host="tun.test"))
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (200, "SPK-WELCOME")


def test_upstream_route_of_the_server_itself_tells_it_the_visitor(pair: Pair, visit: Visit) -> None:
    """No tunnel in between: what the upstream is told about the visitor is still ours, never the visitor's."""
    seen: list[Message] = []

    def handle(wire: Wire, asked: Message) -> None:
        seen.append(asked)
        wire.send(response(asked.body))

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.server.set_route(RouteKind.HTTP, "admin.tun.test", Site(upstream=upstream.upstream()))
        pair.publish()
        visitor = visit()
        for size in (0, 10, 500_000):
            asked = request("/", "X-Forwarded-For: 6.6.6.6", host="admin.tun.test", method="POST", body=b"x" * size)
            threading.Thread(target=visitor.sock.sendall, args=(asked,), daemon=True).start()
            assert visitor.read_response().body == b"x" * size
        assert [asked.one("X-Forwarded-For") for asked in seen] == ["127.0.0.1"] * 3
        assert len(upstream.conns) == 1


def test_upstream_of_the_server_is_never_sent_what_was_taken_off_a_body(pair: Pair, visit: Visit) -> None:
    """A request that is sent again must not bring the extensions and trailers that were dropped the first time."""
    seen: list[bytes] = []

    def script(wire: Wire) -> None:
        if wire.index == 0:
            wire.read_request()
            wire.send(response())
        seen.append(wire.read_until(b"0\r\n"))

    with ScriptedUpstream(script) as upstream:
        pair.server.set_route(RouteKind.HTTP, "admin.tun.test", Site(upstream=upstream.upstream()))
        pair.publish()
        visitor = visit()
        visitor.send(request(host="admin.tun.test"))
        assert visitor.read_response().status == 200
        visitor.send(
            request("/", "Transfer-Encoding: chunked", host="admin.tun.test", method="PUT")
            + b"5;secret=1\r\nhello\r\n0\r\nX-Secret: 1\r\n\r\n"
        )
        assert visitor.read_response().status == 502
        assert [b"ecret" in one for one in seen] == [False]


@pytest.mark.parametrize("how", ["absent", "closes"])
def test_upstream_with_a_fault_page_has_it_when_silent(pair: Pair, visit: Visit, tmp_path: Path, how: str) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()

    path = str(tmp_path / "admin.sock")
    with ScriptedUpstream(script, unix_path=path if how != "absent" else str(tmp_path / "other.sock")):
        upstream = Upstream(unix_path=path, fault_page="SPK-ADMIN-DOWN")
        pair.server.set_route(RouteKind.HTTP, "admin.tun.test", Site(upstream=upstream))
        pair.publish()
        visitor = visit()
        visitor.send(request(host="admin.tun.test"))
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (503, "SPK-ADMIN-DOWN")


@pytest.mark.parametrize(
    ("target", "is_api"), [("/", False), ("/apis/", False), ("//api/admin/v1.0/info", True), ("/front/api/x?y", True)]
)
def test_upstream_with_the_admin_fault_page_answers_api_callers_in_json(
    tmp_path: Path, target: str, is_api: bool
) -> None:
    upstream = Upstream(unix_path=str(tmp_path / "none.sock"), fault_page="SPK-ADMIN-DOWN")
    engine = Engine(workers=1, memory_limit_bytes=64 << 20, accepting=True)
    engine.set_page("SPK-ADMIN-DOWN.json", status=503, content_type="application/json", body=b"{}")
    sock = listening()
    address = sock.getsockname()
    try:
        engine.add_listener(ListenerKind.HTTP, sock.detach(), worker=0, port=80)
        engine.set_route(RouteKind.HTTP, "admin.tun.test", Site(upstream=upstream))
        engine.publish()
        engine.start()
        visitor = Wire(socket.create_connection(address))
        for _ in range(2):
            visitor.send(request(target, host="admin.tun.test"))
            answer = visitor.read_response()
            assert (answer.status, answer.code) == (503, "SPK-ADMIN-DOWN")
            assert (answer.body == b"{}") == is_api
        visitor.close()
    finally:
        engine.stop()


def test_upstream_with_a_fault_page_that_is_none_is_refused() -> None:
    with pytest.raises(EngineError, match="SPK-NONSENSE is no page"):
        Upstream(unix_path="/run/x.sock", fault_page="SPK-NONSENSE")


def test_dropped_route_acts_on_the_next_request_of_a_conn(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"hello"
        pair.server.drop_route(RouteKind.HTTP, "a.tun.test")
        pair.publish()
        visitor.send(request())
        assert visitor.read_response().code == "SPK-UNKNOWN-HOST"


@pytest.mark.slow
def test_idle_conn_is_closed_after_its_time(pair: Pair, visit: Visit) -> None:
    def patient(wire: Wire) -> None:
        wire.sock.settimeout(60)        # or the script gives up first
        answering(response())(wire)

    with ScriptedUpstream(patient) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        visitor.read_response()
        began = time.monotonic()
        eventually(lambda: pair.client.stats()["upstreams_open"] == 0, within_s=40)
        assert time.monotonic() - began > 25
