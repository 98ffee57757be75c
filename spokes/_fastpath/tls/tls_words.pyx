"""Why libssl refused, in words: kept by thread, because libssl's queue is shared with the conn that is served next.

Owns: one buffer a thread. Bound: 255 bytes. Fails: never.
"""
from spokes._fastpath.tls.openssl cimport (
    ERR_GET_LIB, ERR_GET_REASON, ERR_LIB_SSL, ERR_clear_error, ERR_peek_last_error, ERR_reason_error_string,
    SSL_R_CERTIFICATE_VERIFY_FAILED, SSL_get_verify_result, X509_verify_cert_error_string, snprintf,
)

cdef extern from *:
    """
    /* Cython has no thread-local storage. A worker asks for the words right after a failure. */
    static _Thread_local char spokes_tls_words[256] = "";
    """
    char spokes_tls_words[256]


cdef void tls_note_words(const char *words) noexcept nogil:
    snprintf(spokes_tls_words, sizeof(spokes_tls_words), "%s", words)
    ERR_clear_error()


cdef void tls_note_error(SSL *ssl, const char *otherwise) noexcept nogil:
    cdef unsigned long code = ERR_peek_last_error()
    cdef const char *reason = ERR_reason_error_string(code) if code != 0 else NULL
    if ssl != NULL and ERR_GET_LIB(code) == ERR_LIB_SSL and ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED:
        snprintf(spokes_tls_words, sizeof(spokes_tls_words), "certificate verify failed (%s)",
                 X509_verify_cert_error_string(SSL_get_verify_result(ssl)))
    else:
        snprintf(spokes_tls_words, sizeof(spokes_tls_words), "%s", reason if reason != NULL else otherwise)
    ERR_clear_error()


cdef const char *tls_error_text() noexcept nogil:
    ERR_clear_error()
    return spokes_tls_words
