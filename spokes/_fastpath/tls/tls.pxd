# TLS by libssl, non-blocking, between our own buffers: it never touches a socket, so it runs over sockets and streams.
from spokes._fastpath.base.types cimport uint8_t, uint64_t
from spokes._fastpath.tls.certificate cimport CERTIFICATE_SCOPE_BYTES, Certificate
from spokes._fastpath.tls.openssl cimport SSL, SSL_CTX
from spokes._fastpath.tls.tls_context cimport TlsIo

cdef enum:
    TLS_RECORD_BYTES_MAX = 16384        # plaintext of one record
    TLS_RECORD_OVERHEAD_BYTES = 256     # more than any record adds (RFC 8446 §5.2)

# One connection; NULL on failure. A conn may move between threads between calls. Whatever a call left in io.tx is sent,
# also after RC_TLS (the alert); what it did not take of io.rx is offered again, also to the next function (data may
# follow a handshake at once).
cdef SSL *tls_new_server(SSL_CTX *context, Certificate *certificate, bint is_link) noexcept nogil
# server_name (host name or literal IP): sent as SNI and verified unless a pin is given. The context's newest session
# for this name and kind of trust is offered.
cdef SSL *tls_new_client(SSL_CTX *context, const char *server_name, bint has_pin) noexcept nogil
# 1 done, 0 again (send io.tx, bring io.rx), RC_TLS
cdef int tls_handshake(SSL *ssl, TlsIo *io) noexcept nogil
# Right after the handshake: 0, or RC_PIN. SHA-256 over the peer's SubjectPublicKeyInfo, constant time.
cdef int tls_check_pin(SSL *ssl, const uint8_t *pin_sha256) noexcept nogil
cdef bint tls_has_link_alpn(SSL *ssl) noexcept nogil
cdef bint tls_is_resumed(SSL *ssl) noexcept nogil
# One record at most: > 0, 0 again (more io.rx, or room in io.tx when it is full), RC_EOF (close_notify), RC_TLS.
cdef ssize_t tls_read(SSL *ssl, TlsIo *io, uint8_t *dst, size_t dst_bytes) noexcept nogil
# No more rx will come (the socket ended): RC_EOF when close_notify came before, RC_TLS when the stream was cut.
cdef int tls_end_of_input(SSL *ssl) noexcept nogil
# Whole records as far as io.tx has room for (n + overhead each): plaintext bytes taken (> 0), 0 no room, RC_TLS.
# A call that answered 0 need not be repeated with the same bytes.
cdef ssize_t tls_write(SSL *ssl, TlsIo *io, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef int tls_shutdown(SSL *ssl, TlsIo *io) noexcept nogil               # 1 close_notify is in io.tx, 0 no room, RC_TLS
cdef void tls_free(SSL *ssl) noexcept nogil
cdef bint tls_has_pending(SSL *ssl) noexcept nogil                      # decrypted bytes wait inside libssl
