"""Certificate as Python has it: one reference to the engine's own, and the site under which tables have it."""
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.route.site cimport site_release, site_with_certificate
from spokes._fastpath.tls.certificate cimport certificate_new, certificate_release, certificate_try
from spokes._fastpath.tls.openssl cimport SSL_CTX
from spokes._fastpath.tls.tls_context cimport tls_server_context
from spokes._fastpath.tls.tls_words cimport tls_error_text

import hashlib

from spokes.errors import EngineError

cdef SSL_CTX *trial_context = NULL      # certificates are tried with it; made with the first, never freed


cdef SSL_CTX *trial() except NULL:
    global trial_context
    if trial_context == NULL:
        trial_context = tls_server_context(False)
        if trial_context == NULL:
            raise MemoryError
    return trial_context


cdef class Certificate:
    def __cinit__(self, names, bytes chain_pem not None, bytes key_pem not None, *, bytes staple=b"",
                  bint is_tried=True):
        cdef const uint8_t *chain = chain_pem
        cdef const uint8_t *key = key_pem
        cdef const uint8_t *response = staple
        cdef size_t chain_bytes = len(chain_pem), key_bytes = len(key_pem), staple_bytes = len(staple)
        cdef bytes digest
        cdef const uint8_t *scope
        cdef SSL_CTX *context = trial() if is_tried else NULL
        self.names = tuple(sorted({name.lower() for name in names}))
        digest = hashlib.sha256("\0".join(self.names).encode("ascii")).digest()
        scope = digest
        with nogil:
            self.c = certificate_new(context, chain, chain_bytes, key, key_bytes, scope, response, staple_bytes)
        if self.c == NULL:
            raise EngineError(f"the certificate cannot be used: {tls_words()}")
        self.site = site_with_certificate(self.c)
        if self.site == NULL:
            raise MemoryError

    def try_out(self):
        cdef SSL_CTX *context = trial()
        cdef bint done
        with nogil:
            done = certificate_try(self.c, context)
        if not done:
            raise EngineError(f"the certificate cannot be used: {tls_words()}")

    def __dealloc__(self):
        site_release(self.site)
        certificate_release(self.c)


cdef str tls_words():
    return (<bytes>tls_error_text()).decode("ascii", "replace")
