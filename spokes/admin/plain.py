"""The two answers that are no API call: the page at the server's own name, and the health check."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import falcon

from spokes.admin.context import Admin
from spokes.admin.dispatch import Resource
from spokes.admin.routing import JSON
from spokes.errors import StoreError
from spokes.pages import CONTENT_TYPE, render_page

HEALTH_WITHIN_S = 2.0                    # load balancers and supervisors wait no longer


class Welcome(Resource):
    methods = ("GET", "HEAD")

    def __init__(self) -> None:
        self._body = render_page("SPK-WELCOME")

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = CONTENT_TYPE
        resp.data = self._body

    on_head = on_get


class Health(Resource):
    """200 while the store answers, else the envelope with 503; for load balancers, so no session.

    One thread asks a store that hangs, however many want to know.
    """

    methods = ("GET", "HEAD")

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._lock = threading.Lock()
        self._asked: Future[tuple[int, int]] | None = None

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = self._asking.submit(self._admin.store.changes.position)
            asked = self._asked
        try:
            asked.result(HEALTH_WITHIN_S)
        except TimeoutError:
            raise StoreError("the database does not answer") from None
        self._admin.store.audit.write_counted()     # the server asks every few seconds, also when nobody else does
        resp.content_type = JSON
        resp.data = b'{"status":true,"error":""}'

    on_head = on_get
