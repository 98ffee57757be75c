"""A name server of the test's own: BIND with one zone, on a free port of the loopback address."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

from spokes.config_values import Address

NAMED = shutil.which("named") or "/usr/sbin/named"
START_TIMEOUT_S = 20.0
CONFIG = """\
options {{
    directory "{directory}";
    pid-file "{directory}/named.pid";
    session-keyfile "{directory}/session.key";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
}};
controls {{ }};
zone "{zone}" {{ type primary; file "{directory}/zone"; }};
"""
HEAD = """\
$TTL 1
@ IN SOA ns.{zone}. admin.{zone}. {serial} 60 60 60 1
@ IN NS ns.{zone}.
ns IN A 127.0.0.1
"""


class NameServer:
    def __init__(self, directory: Path, zone: str) -> None:
        self.zone = zone
        self._directory = directory
        self._records: dict[str, str] = {}
        self._lines: tuple[str, ...] = ()
        self._serial = 1
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.address = Address("127.0.0.1", int(sock.getsockname()[1]))
        config = CONFIG.format(directory=directory, port=self.address.port, zone=zone)
        (directory / "named.conf").write_text(config)
        self._write()
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [NAMED, "-g", "-n", "1", "-c", str(directory / "named.conf")], stdout=log, stderr=log
            )
        self._wait_for_serial()

    def put_txt(self, name: str, *texts: str) -> None:
        """`name` relative to the zone; no texts: the name is gone. Returns when it is served."""
        self._records[name] = " ".join(f'"{text}"' for text in texts)
        self._serve()

    def put_lines(self, *lines: str) -> None:
        """Records as a zone file has them, in place of those that were put so before."""
        self._lines = lines
        self._serve()

    def _serve(self) -> None:
        self._serial += 1
        self._write()
        self._process.send_signal(1)  # SIGHUP: zones are read again
        self._wait_for_serial()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(START_TIMEOUT_S)

    def _write(self) -> None:
        lines = [f"{name} IN TXT {texts}\n" for name, texts in self._records.items() if texts]
        lines += [f"{line}\n" for line in self._lines]
        new = self._directory / "zone.new"
        new.write_text(HEAD.format(zone=self.zone, serial=self._serial) + "".join(lines))
        new.replace(self._directory / "zone")

    def _wait_for_serial(self) -> None:
        question = dns.message.make_query(self.zone + ".", "SOA")
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError, dns.exception.DNSException):
                answer = dns.query.udp(question, self.address.host, port=self.address.port, timeout=0.2)
                if answer.answer and answer.answer[0][0].serial >= self._serial:
                    return
            assert self._process.poll() is None, (self._directory / "log").read_text()
            assert time.monotonic() < deadline, (self._directory / "log").read_text()
            time.sleep(0.02)


@contextlib.contextmanager
def name_server(zone: str) -> Iterator[NameServer]:
    if not Path(NAMED).exists():
        pytest.skip("needs BIND (Debian's bind9)")
    with tempfile.TemporaryDirectory(prefix="spokes-named-") as name:
        Path(name).chmod(0o755)
        server = NameServer(Path(name), zone)
        try:
            yield server
        finally:
            server.stop()
