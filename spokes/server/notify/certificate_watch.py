"""The files of the server's certificate while it runs: a new good pair is taken, a bad one becomes an alert.

Owns: which pair is in use. The last good one stays in use whatever lies in the directory.
Fails: never; what is wrong with the files is an alert until it is mended.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from spokes.errors import CertificateError, DataDirError, EngineError
from spokes.server.certificates.certificates import CHAIN_NAME, Certificate, link_certificate, read_certificate
from spokes.server.certificates.shown_certificates import ShownCertificates
from spokes.server.notify.watch import Watch

log = logging.getLogger(__name__)


class CertificateWatch:
    """check() is called periodically."""

    def __init__(
        self,
        *,
        shown: ShownCertificates,
        watch: Watch,
        directory: Path,
        domain: str,
        certificate: Certificate,
    ) -> None:
        self._shown = shown
        self._watch = watch
        self._directory = directory
        self._domain = domain
        self.current = certificate
        self._checking = asyncio.Lock()

    async def check(self) -> None:
        async with self._checking:  # a slow check does not report after a later one
            await self._check()

    async def _check(self) -> None:
        subject = str(self._directory / CHAIN_NAME)
        try:
            found = await asyncio.to_thread(read_certificate, self._directory, self._domain)
            if (found.chain_pem, found.key_pem) != (self.current.chain_pem, self.current.key_pem):
                self._take(found, await asyncio.to_thread(link_certificate, self._directory, self._domain, found))
        except (CertificateError, DataDirError, EngineError) as error:
            self._watch.certificate_files(subject, error)
        else:
            self._watch.certificate_files(subject, None)

    def _take(self, found: Certificate, link: Certificate) -> None:
        self._shown.show(found, link)
        self.current = found
        log.info("certificate taken", extra={"names": found.names, "fingerprint": found.fingerprint})
