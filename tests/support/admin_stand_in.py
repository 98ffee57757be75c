"""A WSGI program in the administration's place: says what it was told of the visitor, and which process it is."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    facts = {key: value for key, value in environ.items() if key.startswith("HTTP_")}
    body = json.dumps({"pid": os.getpid(), "parent": os.getppid(), "path": environ["PATH_INFO"], **facts}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
