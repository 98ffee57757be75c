"""The public address of this server: the ports it listens on, unless something in front of it translates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

HTTP_PORT = 80
HTTPS_PORT = 443


@dataclass(slots=True)
class PublicPorts:
    """Ports of the public address; None = not served."""

    http: int | None = None
    https: int | None = None
    is_vouched_for: Callable[[str], bool] = lambda _host: False  # a host's certificate, by others than this server

    def urls(self, host: str) -> tuple[str, ...]:
        """Of a host name that leads here, plain HTTP first."""
        served = (("http", self.http, HTTP_PORT), ("https", self.https, HTTPS_PORT))
        return tuple(
            f"{scheme}://{host}" + ("" if port == usual else f":{port}")
            for scheme, port, usual in served
            if port is not None
        )

    def url(self, host: str) -> str:
        """The one of them to show; "" where nothing is served."""
        urls = self.urls(host)
        if not urls:
            return ""
        return urls[-1] if self.https is not None and self.is_vouched_for(host) else urls[0]
