"""Alerts by e-mail: what came within a moment in one message, sent through the operator's SMTP server.

Bound: LINE_COUNT_MAX lines wait; beyond that the oldest go, and the message says so. A password is sent over TLS only,
but for a server on this host.
Fails: TRY_COUNT_MAX attempts, then the message is dropped with a line in the log; alerts stay listed all the same.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import socket
import urllib.parse
from collections import deque
from collections.abc import Coroutine
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Any

import aiosmtplib

from spokes.errors import ConfigError
from spokes.resolver import Resolve
from spokes.store import Alert

log = logging.getLogger(__name__)

PASSWORD_VARIABLE = "SPOKES_SMTP_PASSWORD"  # noqa: S105  a variable's name
GATHER_S = 2.0  # alerts that come together go together
LINE_COUNT_MAX = 500
TRY_COUNT_MAX = 5
RETRY_S = 60.0
DEADLINE_S = 30.0
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class SmtpServer:
    """`smtp://user@host:587` (STARTTLS where it is offered), `smtps://user@host:465` (TLS from the first byte)."""

    def __init__(self, url: str, password: str, resolve: Resolve, *, greeted_as: str) -> None:
        """`greeted_as`: the name that this host gives itself in EHLO."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.password is not None:
            raise ConfigError("smtp is not of the form smtp://USER@HOST:PORT", hint="the password goes by file")
        self.host = parts.hostname
        self.secure = parts.scheme == "smtps"
        self.port = parts.port or (465 if self.secure else 587)
        self.user = urllib.parse.unquote(parts.username or "")
        self._password = password
        self._resolve = resolve
        self._greeted_as = greeted_as

    async def send(self, message: EmailMessage) -> None:
        """Fails: aiosmtplib.SMTPException, OSError."""
        has_secret = bool(self.user and self._password)
        # None: STARTTLS if it is offered. With a password it must be, or the password would be read on the way.
        start_tls = None if not has_secret or self.host in _LOCAL_HOSTS else True
        await aiosmtplib.send(
            message,
            hostname=self.host,
            sock=await self._connect(),
            local_hostname=self._greeted_as,
            use_tls=self.secure,
            start_tls=False if self.secure else start_tls,
            username=self.user if has_secret else None,
            password=self._password if has_secret else None,
            timeout=DEADLINE_S,
        )


    async def _connect(self) -> socket.socket:
        """A connection to the first address of the host that takes it. Fails: OSError, TimeoutError included."""
        loop, failure = asyncio.get_running_loop(), OSError(f"{self.host} has no address")
        async with asyncio.timeout(DEADLINE_S):
            for address in (await self._resolve(self.host)).addresses:
                sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, (address, self.port))
                except OSError as error:
                    sock.close()
                    failure = error
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock
        raise failure


class Mailer:
    """Takes alerts at once, sends them behind everyone's back."""

    def __init__(
        self, server: SmtpServer, *, sender: str, recipients: tuple[str, ...], domain: str, retry_s: float = RETRY_S
    ) -> None:
        self._server = server
        self._sender = sender
        self._recipients = recipients
        self._domain = domain
        self._retry_s = retry_s
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._woken = asyncio.Event()

    def put(self, alert: Alert) -> None:
        if len(self._lines) >= LINE_COUNT_MAX:
            self._lines.popleft()
            self._dropped += 1
        self._lines.append(_line(alert))
        self._woken.set()

    async def run(self) -> None:
        while True:
            await self._woken.wait()
            await asyncio.sleep(GATHER_S)
            self._woken.clear()
            lines, dropped = list(self._lines), self._dropped
            self._lines.clear()
            self._dropped = 0
            if lines:
                await self._send(self._message(lines, dropped))

    async def _send(self, message: EmailMessage) -> None:
        for attempt in range(1, TRY_COUNT_MAX + 1):
            try:
                await _apart(self._server.send(message))
            except (aiosmtplib.SMTPException, OSError) as error:
                log.warning("e-mail not sent", extra={"attempt": attempt, "detail": str(error)})
                if attempt < TRY_COUNT_MAX:
                    await asyncio.sleep(self._retry_s * attempt)
            except Exception:  # of the message itself, such as an address that no server takes: never again
                log.exception("e-mail cannot be sent", extra={"subject": message["Subject"]})
                return
            else:
                log.info("e-mail sent", extra={"subject": message["Subject"]})
                return

    def _message(self, lines: list[str], dropped: int) -> EmailMessage:
        message = EmailMessage()
        subject = lines[0] if len(lines) == 1 else f"{len(lines)} alerts"
        message["Subject"] = _one_line(f"[{self._domain}] {subject}")
        message["From"] = self._sender
        message["To"] = ", ".join(self._recipients)
        message["Date"] = format_datetime(dt.datetime.now(dt.UTC))
        message["Message-ID"] = make_msgid(domain=self._domain)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation answers, please
        text = "\n".join(lines)
        if dropped:
            text = f"{dropped} older ones are left out.\n{text}"
        message.set_content(text + "\n")
        return message


async def _apart(work: Coroutine[Any, Any, None]) -> None:
    """Awaits in a task of its own: the library waits with asyncio.wait_for, which before Python 3.12 may swallow a
    cancellation, and then a server that stops would wait for us for ever."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    task.result()


def _line(alert: Alert) -> str:
    if alert.resolved is not None:
        return _one_line(f"resolved: {alert.text}")
    return _one_line(f"{alert.severity.value}: {alert.text}")


def _one_line(text: str) -> str:
    """Names in an alert come from clients: they must not begin a line, let alone a header."""
    return "".join(char if char.isprintable() else " " for char in text)[:500]
