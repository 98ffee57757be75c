"""The WSGI app: the route table, the middleware before it, and the error handlers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import falcon

from spokes.admin.auth import Authenticator
from spokes.admin.body_slots import BodySlots
from spokes.admin.context import Admin
from spokes.admin.dispatch import (
    Authenticate,
    Endpoint,
    Entrance,
    on_http_error,
    on_spokes_error,
    on_unexpected_error,
)
from spokes.admin.metrics import Metrics
from spokes.admin.openapi import Description
from spokes.admin.plain import Health, Welcome
from spokes.admin.routes import ROUTES
from spokes.admin.routing import Route
from spokes.errors import SpokesError

THREAD_COUNT = 8


def create_metrics_app(admin: Admin) -> falcon.App[Any, Any]:
    """What is served at the address for metrics: `/metrics`, without a key, and nothing else."""
    app = falcon.App(middleware=[Entrance()])
    app.add_error_handler(Exception, on_unexpected_error)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(SpokesError, on_spokes_error)
    app.add_route("/metrics", Metrics(admin, None))
    return app


def create_app(
    admin: Admin, *, authenticate: Authenticate | None = None, routes: Sequence[Route] = ROUTES,
    thread_count: int = THREAD_COUNT,
) -> falcon.App[Any, Any]:
    """The app over `admin`, called by so many threads; tests may bring their own routes, or say who calls."""
    app = falcon.App(middleware=[Entrance(admin.path_prefix)])
    app.add_error_handler(Exception, on_unexpected_error)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(SpokesError, on_spokes_error)
    authenticate = authenticate or Authenticator()
    body_slots = BodySlots(thread_count)
    by_path: dict[str, list[Route]] = {}
    for route in routes:
        by_path.setdefault(route.path, []).append(route)
    for path, together in by_path.items():
        app.add_route(path, Endpoint(admin, together, authenticate, body_slots))
    app.add_route("/api/admin/openapi.json", Description(routes))
    app.add_route("/metrics", Metrics(admin, authenticate))
    app.add_route("/healthz", Health(admin))
    app.add_route("/", Welcome())
    return app
