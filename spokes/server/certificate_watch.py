"""The files of the server's certificate while it runs: a new good pair is taken, a bad one becomes an alert.

Owns: which pair is in use. The last good one stays in use whatever lies in the directory.
Fails: never; what is wrong with the files is an alert until it is mended.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from spokes.errors import CertificateError, DataDirError, EngineError
from spokes.server.certificates import CHAIN_NAME, Certificate, read_certificate
from spokes.server.routes import RouteTable
from spokes.server.watch import Watch

log = logging.getLogger(__name__)


class CertificateWatch:
    """look() again and again."""

    def __init__(
        self,
        *,
        routes: RouteTable,
        watch: Watch,
        directory: Path,
        domain: str,
        certificate: Certificate,
    ) -> None:
        self._routes = routes
        self._watch = watch
        self._directory = directory
        self._domain = domain
        self.current = certificate

    async def look(self) -> None:
        subject = str(self._directory / CHAIN_NAME)
        try:
            found = await asyncio.to_thread(read_certificate, self._directory, self._domain)
            self._take(found)
        except (CertificateError, DataDirError, EngineError) as error:
            self._watch.certificate_files(subject, error)
        else:
            self._watch.certificate_files(subject, None)

    def _take(self, found: Certificate) -> None:
        if (found.chain_pem, found.key_pem) == (self.current.chain_pem, self.current.key_pem):
            return
        if found.fingerprint != self.current.fingerprint:
            # Clients pin the key that their links are greeted with, and that one changes with a restart only.
            raise CertificateError(
                f"{found.chain_path} has another key than the one in use",
                hint="restart the server to use it; clients that pin the old key will refuse it",
            )
        self._routes.renew_certificate(found.names, found.chain_pem, found.key_pem)
        self.current = found
        log.info("certificate taken", extra={"names": found.names, "fingerprint": found.fingerprint})
