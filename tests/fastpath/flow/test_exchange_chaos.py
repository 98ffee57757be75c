"""Visitors and upstreams that do anything at any moment: every whole answer is right, nothing is left at the end."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

import pytest

from spokes._fastpath.engine import Upstream
from tests.support.engines import Pair, engine_pair
from tests.support.http_wire import Ended, Message, ScriptedUpstream, Wire, chunked, request, response

HOSTS = ("a.tun.test", "b.tun.test", "refused.test", "unknown.test")
VISITORS = 12
TURNS = 120


def body_for(target: str) -> bytes:
    size = int(target.rsplit("/", 1)[1])
    return (target.encode() + b"|") * (size // (len(target) + 1) + 1)


class Upstreams:
    """One script for all conns; what it does next is drawn by lot."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.lock = threading.Lock()

    def draw(self, count: int) -> int:
        with self.lock:
            return self.chance.randrange(count)

    def script(self, wire: Wire) -> None:
        while True:
            lot = self.draw(30)
            if lot == 0:
                return                                  # leaves before it is asked
            try:
                asked = wire.read_head()
            except TimeoutError:
                if wire.waiting:
                    raise
                return                                  # nobody asked for so long, as on a slow machine
            if lot == 1:
                wire.abort()
                return
            if lot == 2:
                wire.send(response(b"early", "413 Content Too Large"))
                return
            asked.body = wire.read_framed(asked, b"")
            self.answer(wire, asked, lot)
            if lot in (3, 4, 5, 6):
                return

    def answer(self, wire: Wire, asked: Message, lot: int) -> None:
        body = body_for(asked.target)
        if asked.all("Upgrade") and lot % 2:
            wire.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            for _ in range(self.draw(5)):
                wire.send(wire.read(10))
            raise Ended(b"", reset=False)
        if lot == 3:
            wire.send(response(body)[: self.draw(len(body)) + 10])
        elif lot == 4:
            wire.send(b"garbage garbage\r\n\r\n")
        elif lot == 5:
            wire.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)
        elif lot == 6:
            wire.send(response(body) + b"more than was asked for")
        elif lot < 15:
            wire.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * (lot % 3), response(body))
        else:
            size = self.draw(20_000) + 1
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(body, size, b";x" * (lot % 2)))


def visitor_of(pair: Pair, seed: int, wrong: list[str]) -> None:
    chance = random.Random(seed)
    turns = 0
    while turns < TURNS:
        wire = Wire(socket.create_connection(("127.0.0.1", pair.ports["http"])))
        wire.sock.settimeout(20)
        with contextlib.suppress(Ended, ConnectionError), wire:
            while turns < TURNS:
                turns += 1
                host = chance.choice(HOSTS)
                target = f"/{seed}-{turns}/{chance.choice([0, 1, 100, 5000, 70_000, 400_000])}"
                lot = chance.randrange(20)
                if lot == 0:
                    wire.send(request(target, host=host)[: chance.randrange(1, 40)])
                    wire.abort()
                    break
                if lot == 1:
                    wire.send(request(target, "Content-Length: 1000", host=host, method="POST"), b"part")
                    if chance.randrange(2):
                        wire.abort()
                    break
                if lot == 2:
                    wire.send(b"garbage\x00\r\n\r\n")
                    if wire.read_response().status != 400:
                        wrong.append("garbage was not refused")
                    break
                if lot == 3:
                    wire.send(request(target, "Connection: upgrade", "Upgrade: echo", host=host) + b"0123456789" * 5)
                    if wire.read_response().status == 101:
                        wire.read(10)
                    break
                sent = request(target, host=host)
                if lot < 10:
                    up = b"u" * chance.choice([1, 3000, 200_000])
                    if lot % 2:
                        sent = request(target, host=host, method="POST", body=up)
                    else:
                        sent = request(target, "Transfer-Encoding: chunked", host=host, method="POST")
                        sent += chunked(up, 7000)
                cut = chance.randrange(len(sent))
                wire.send(sent[:cut])
                wire.send(sent[cut:])
                if lot == 19:
                    wire.read_head()
                    wire.abort()
                    break
                answer = wire.read_response()
                if answer.status == 200 and answer.body != body_for(target):
                    wrong.append(f"{target}: {len(answer.body)} bytes, not {len(body_for(target))}")
                if answer.status not in (200, 404, 413, 502):
                    wrong.append(f"{target}: {answer.start}")
                if answer.one("Connection") == "close":
                    break


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_chaos_every_whole_answer_is_right_and_nothing_is_left(workers: int, seed: int) -> None:
    upstreams = Upstreams(seed)
    wrong: list[str] = []
    with engine_pair(workers=workers) as pair, ScriptedUpstream(upstreams.script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        pair.serve_http("b.tun.test", upstream.upstream(host="inside"))
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))               # bound, not listening: refused
            pair.serve_http("refused.test", Upstream(addresses=[("127.0.0.1", nobody.getsockname()[1])]))
            threads = [
                threading.Thread(target=visitor_of, args=(pair, seed * 1000 + i, wrong), daemon=True)
                for i in range(VISITORS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(100)
                assert not thread.is_alive(), "a visitor waits for an answer that does not come"
        assert wrong == []
        pair.assert_idle()
        assert pair.server.stats()["links_open"] == 1
