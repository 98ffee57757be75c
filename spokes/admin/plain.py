"""What is no API call: the page at the server's own name, and the question whether the app is well."""

from __future__ import annotations

import falcon

from spokes.admin.context import Admin
from spokes.admin.dispatch import Resource
from spokes.admin.routing import JSON
from spokes.pages import CONTENT_TYPE, render_page


class Welcome(Resource):
    methods = ("GET", "HEAD")

    def __init__(self) -> None:
        self._body = render_page("SPK-WELCOME")

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = CONTENT_TYPE
        resp.data = self._body

    on_head = on_get


class Health(Resource):
    """200 while the store answers, else the envelope with 503; for load balancers, so no session."""

    methods = ("GET", "HEAD")

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._admin.store.position()
        self._admin.store.write_counted_events()     # the server asks every few seconds, also when nobody else does
        resp.content_type = JSON
        resp.data = b'{"status":true,"error":""}'

    on_head = on_get
