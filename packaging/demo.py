"""`make demo`: a server, a sample page and a client on this machine, joined by a real tunnel.

Owns: the directory .demo (delete it to start over), which one run at a time has, and the two processes it starts; both
end with it.
Fails: says in one line what did not come up and where its log is.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
HOME = ROOT / ".demo"
DATA = HOME / "data"
CLIENT_CONFIG = HOME / "client.json"
LOCK = HOME / "lock"        # held by the run that has .demo; its text is that run's URL

ADDRESS = "127.0.0.1"
DOMAIN = "localhost"        # browsers, and curl since 7.77, take every name under it for this machine, without DNS
HTTP_PORT, HTTPS_PORT = 8080, 8443
TCP_PORTS = "22000-22099"
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0
POLL_INTERVAL_S = 0.05

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Spokes demo</title>
<h1>It works</h1>
<p>This page comes from a small web server on {upstream}. Your request reached it through the Spokes server, over a
TLS link that the client opened from its side.</p>
<p>You asked for <code>{path}</code> at <code>{host}</code>.</p>
</html>
"""


class DemoError(Exception):
    """Something did not come up; said in words."""


class Interrupt(Exception):
    """Ctrl-C, or a request to end."""


class SamplePage(http.server.BaseHTTPRequestHandler):
    """The service behind the tunnel."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address, port = self.connection.getsockname()
        shown = {"upstream": f"{address}:{port}", "path": self.path, "host": self.headers.get("Host", "")}
        body = PAGE.format(**{name: _escape(text) for name, text in shown.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the terminal shows the URL, not requests."""


class Child:
    """A program of ours in a session of its own, so that Ctrl-C comes to us first and we end it in order."""

    def __init__(self, name: str, *words: str) -> None:
        self.name = name
        self.log_path = HOME / f"{name}.log"
        with self.log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                [str(BIN / words[0]), *words[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def check(self) -> None:
        if self._popen.poll() is not None:
            last = (self.log().strip().splitlines() or ["it said nothing"])[-1]
            raise DemoError(f"{self.name} ended with status {self._popen.returncode}: {last} (log: {self.log_path})")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not condition():
            self.check()
            if time.monotonic() > deadline_s:
                raise DemoError(f"{self.name}: {what}: not within {READY_WITHIN_S:g} s (log: {self.log_path})")
            time.sleep(POLL_INTERVAL_S)

    def stop(self) -> None:
        if self._popen.poll() is None:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_WITHIN_S)
        with contextlib.suppress(ProcessLookupError):       # whatever of its group is left
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with contextlib.ExitStack() as stack:
            _run(stack)
    except Interrupt:
        print("\nStopped.")
        return 0
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def _run(stack: contextlib.ExitStack) -> None:
    HOME.mkdir(mode=0o700, exist_ok=True)
    lock = stack.enter_context(_locked())
    page = http.server.ThreadingHTTPServer((ADDRESS, 0), SamplePage)
    stack.callback(page.server_close)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    stack.callback(page.shutdown)

    server = _serve(stack)
    status = json.loads(_output("spokes", "status", "--json", "--data", str(DATA)))
    http_port, https_port = (int(status[scheme][0].rpartition(":")[2]) for scheme in ("http", "https"))
    print(f"A server runs on {ADDRESS}:{http_port} and {ADDRESS}:{https_port}.", flush=True)

    _configure(f"{ADDRESS}:{https_port}", status["link_key"])
    client = Child("client", "spoke", "http", str(page.server_address[1]), "--config", str(CLIENT_CONFIG))
    stack.callback(client.stop)
    client.wait_until(lambda: _public_url(client) is not None, "prints its public URL")
    url = _public_url(client) or ""
    host = re.sub(r"^https?://|[:/].*$", "", url)
    client.wait_until(lambda: _answers(http_port, host), f"serves {host}")

    shown = f"http://{host}:{http_port}/"
    lock.write(shown)
    lock.flush()
    print(f"\n  Public URL:  {shown}\n  Try it:      curl {shown}\n\nCtrl-C ends everything.", flush=True)
    while True:
        server.check()
        client.check()
        time.sleep(0.5)


@contextlib.contextmanager
def _locked() -> Iterator[TextIO]:
    """.demo is this run's: two would write one database and one configuration."""
    with LOCK.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            where = lock.read().strip() or "it is just starting"
            raise DemoError(f"a demo runs here already: {where}; end that one first, with Ctrl-C") from None
        lock.truncate(0)
        yield lock
        lock.truncate(0)


def _serve(stack: contextlib.ExitStack) -> Child:
    """A server on the usual ports, or on any others where those are in use."""
    try:
        return _serve_on(stack, HTTP_PORT, HTTPS_PORT)
    except DemoError as error:
        if "[SPK-ADDRESS-IN-USE]" not in str(error):
            raise
    return _serve_on(stack, 0, 0)


def _serve_on(stack: contextlib.ExitStack, http_port: int, https_port: int) -> Child:
    server = Child(
        "server", "spokes", "server", "--data", str(DATA), "--domain", DOMAIN,
        "--http", f"{ADDRESS}:{http_port}", "--https", f"{ADDRESS}:{https_port}",
        "--tcp-address", ADDRESS, "--tcp-ports", TCP_PORTS, "--drain-timeout", "1",
    )
    stack.callback(server.stop)
    server.wait_until(lambda: _succeeds("spokes", "status", "--data", str(DATA)), "answers `spokes status`")
    return server


def _configure(server_host: str, fingerprint: str) -> None:
    """Register on the first run; later ones keep the tunnel, and so its host name, but follow the port."""
    if CLIENT_CONFIG.exists():
        known = json.loads(CLIENT_CONFIG.read_text())
        if known.get("serverKey") == fingerprint:
            CLIENT_CONFIG.write_text(json.dumps({**known, "serverHost": server_host}, indent=2) + "\n")
            return
        CLIENT_CONFIG.unlink()
    token = str(json.loads(_output("spokes", "token", "create", "--json", "--data", str(DATA)))["value"])
    _output(
        "spoke", "configure", "--url", f"https://{server_host}", "--server-key", fingerprint, "--name", "demo",
        "--config", str(CLIENT_CONFIG), token=token,
    )


def _public_url(client: Child) -> str | None:
    found = re.search(r"^\s*(https?://\S+)\s*$", client.log(), re.MULTILINE)
    return found[1] if found else None


def _answers(port: int, host: str) -> bool:
    conn = http.client.HTTPConnection(ADDRESS, port, timeout=5)
    try:
        conn.request("GET", "/", headers={"Host": host})
        return conn.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        conn.close()


def _output(program: str, *words: str, token: str = "") -> str:
    """What a command prints; a token goes by environment, never in argv."""
    environment = {**os.environ, "SPOKE_TOKEN": token} if token else None
    done = subprocess.run(
        [str(BIN / program), *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env=environment, timeout=READY_WITHIN_S,
    )
    if done.returncode != 0:
        raise DemoError(f"{program} {words[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _succeeds(*words: str) -> bool:
    try:
        _output(*words)
    except DemoError:
        return False
    return True


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _interrupt(number: int, frame: FrameType | None) -> None:
    for later in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(later, signal.SIG_IGN)        # the second Ctrl-C of an impatient hand: we are on our way
    raise Interrupt


if __name__ == "__main__":
    sys.exit(main())
