"""The admin process: gunicorn on a Unix socket in the data directory, with few threads and one worker.

Owns: DATA/admin.sock, mode 0600: the engine is its only visitor and sets what is said of the real one.
Bound: `threads` calls at once, BODY_DEADLINE_S a body; what waits is the engine's. While the store cannot be opened
every call is answered 503 in the envelope, and the next one tries again.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import socket
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from spokes import collector
from spokes.admin.app import THREAD_COUNT, create_app, create_metrics_app
from spokes.admin.context import DEFAULT_TCP_PORTS, Admin
from spokes.admin.deadline import BodyDeadline, Wsgi
from spokes.admin.routing import JSON
from spokes.admin.schema.envelope import failure
from spokes.admin.sending import Sending
from spokes.admin.worker import AdminWorker
from spokes.config_values import parse_address, parse_domain, parse_port_range
from spokes.control import CONTROL_SOCKET_NAME, Control
from spokes.errors import StoreError
from spokes.log import setup_logging
from spokes.store import Store
from spokes.store.settings import TUNNELS_PER_USER_MAX

log = logging.getLogger(__name__)

ADMIN_SOCKET_NAME = "admin.sock"
STORE_VARIABLE = "SPOKES_STORE"          # not an argument: it may hold a password
BODY_DEADLINE_S = 10.0
CONTROL_DEADLINE_S = 10.0
GRACEFUL_TIMEOUT_S = 10
WORKER_TIMEOUT_S = 30                    # a worker whose main thread hangs is replaced
KEEPALIVE_S = 40                         # longer than the engine keeps an idle conn, so that it closes first
SOCKET_UMASK = 0o177
MAPPED_BLOCK_BYTES = 1024 * 1024
MALLOC_ARENA_COUNT = 2                   # by default each thread gets one, and keeps what its longest list took
_M_MMAP_THRESHOLD = -3                   # malloc.h
_M_ARENA_MAX = -8


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m spokes.admin", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the server's data directory")
    parser.add_argument("--domain", type=parse_domain, required=True, help="the server's own name")
    parser.add_argument("--tcp-ports", type=parse_port_range, default=DEFAULT_TCP_PORTS, help="BEGIN-END")
    parser.add_argument("--https-port", type=int, default=443, help="where clients reach the server")
    parser.add_argument("--server-key", default="", help="the server's key, as clients pin it")
    parser.add_argument("--tunnels-per-user", type=int, default=TUNNELS_PER_USER_MAX, help="of basic ones; 0: any")
    parser.add_argument("--domain-proof", action="store_true", help="domains have to be verified by a TXT record")
    parser.add_argument("--resolver", type=parse_address, action="append", default=[], help="of those, ADDR:PORT")
    parser.add_argument("--path-prefix", default="", help="what a front proxy puts before every path")
    parser.add_argument("--metrics", type=parse_address, help="IP:PORT that serves /metrics, and that alone")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=THREAD_COUNT)
    parser.add_argument("--body-deadline-s", type=float, default=BODY_DEADLINE_S, help="for a request's body")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser.parse_args(argv)


class LazyApp:
    """The WSGI app of one worker. Opens the store by itself, after the fork, and again while that fails."""

    def __init__(self, arguments: argparse.Namespace, store_url: str) -> None:
        self._arguments = arguments
        self._store_url = store_url
        self._opening = threading.Lock()
        self._apps: tuple[Wsgi, Wsgi] | None = None

    def __call__(self, env: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        apps = self._apps
        if apps is None:
            try:
                apps = self._open()
            except StoreError as error:
                log.warning("store not opened", extra={"error": str(error), "code": error.code})
                body = msgspec.json.encode(failure(str(error), error.code))
                headers = [("Content-Type", JSON), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
                start_response("503 Service Unavailable", headers)
                return [body]
        # By the socket, not by anything in the request: what comes by TCP needs no key and gets metrics alone.
        api, metrics = apps
        app = api if env["gunicorn.socket"].family == socket.AF_UNIX else metrics
        return app(env, start_response)

    def _open(self) -> tuple[Wsgi, Wsgi]:
        """The API, and what is served at the address for metrics."""
        with self._opening:
            if self._apps is None:
                given = self._arguments
                store = Store.open(self._store_url)
                store.leave_checkpoints()
                store.settings.verified_domains_only = given.domain_proof
                store.settings.tunnels_per_user_max = given.tunnels_per_user
                admin = Admin(
                    store=store,
                    resolvers=tuple(given.resolver),
                    control=Control(given.data / CONTROL_SOCKET_NAME, deadline_s=CONTROL_DEADLINE_S),
                    domain=given.domain,
                    tcp_ports=given.tcp_ports,
                    server_key=given.server_key,
                    https_port=given.https_port,
                    path_prefix=given.path_prefix,
                )
                deadline_s = given.body_deadline_s
                self._apps = (
                    BodyDeadline(Sending(create_app(admin, thread_count=given.threads), given.threads), deadline_s),
                    BodyDeadline(Sending(create_metrics_app(admin), given.threads), deadline_s),
                )
            return self._apps


class GunicornLogger(Logger):
    """gunicorn's own lines go where ours go, in our form; it writes no access log."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True
        self.error_log.handlers.clear()
        self.error_log.setLevel(logging.WARNING)
        self.access_log.propagate = False


class AdminApplication(BaseApplication):
    def __init__(self, arguments: argparse.Namespace, store_url: str) -> None:
        self._arguments = arguments
        self._wsgi = LazyApp(arguments, store_url)
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings().items():
            self.cfg.set(name, value)

    def _settings(self) -> dict[str, Any]:
        return {
            "bind": self._addresses(),
            "umask": SOCKET_UMASK,
            "workers": self._arguments.workers,
            "worker_class": AdminWorker,
            "threads": self._arguments.threads,
            "worker_connections": 1000,
            "preload_app": True,         # the worker shares what the master has loaded
            "timeout": WORKER_TIMEOUT_S,
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            "keepalive": KEEPALIVE_S,
            "proc_name": "spokes-admin",
            "logger_class": GunicornLogger,
            "control_socket_disable": True,
            # The engine has checked the head and is stricter in all but these; what it lets pass is answered by the
            # app in the envelope, not by gunicorn in HTML.
            "limit_request_line": 8190,
            "limit_request_fields": 120,
            "limit_request_field_size": 16_380,
            "permit_unconventional_http_method": True,
            # Whoever reaches a Unix socket counts as a trusted proxy, so by default a visitor could set SCRIPT_NAME.
            "forwarder_headers": "",
            "header_map": "drop",
            "http_parser": "python",
        }

    def _addresses(self) -> list[str]:
        addresses = [f"unix:{self._arguments.data / ADMIN_SOCKET_NAME}"]
        if self._arguments.metrics is not None:
            addresses.append(str(self._arguments.metrics))
        return addresses

    def load(self) -> Any:
        collector.settle()               # what is loaded by now stays shared with the worker
        return self._wsgi


def _give_memory_back() -> None:
    """Have glibc map large blocks singly: what a password's hash took is then returned when it is done, not kept."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, MAPPED_BLOCK_BYTES)
        libc.mallopt(_M_ARENA_MAX, MALLOC_ARENA_COUNT)
    except (OSError, AttributeError):
        return                           # another C library; it has its own ways


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    arguments.data = arguments.data.absolute()
    store_url = os.environ.pop(STORE_VARIABLE, "") or f"sqlite:///{arguments.data / 'spokes.db'}"
    _give_memory_back()
    setup_logging(arguments.log_format, arguments.log_level)
    AdminApplication(arguments, store_url).run()
