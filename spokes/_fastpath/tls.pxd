# TLS by libssl, non-blocking, between our own buffers: it never touches a socket, so it runs over sockets and streams.
from spokes._fastpath.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "openssl/ssl.h" nogil:
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass

cdef enum:
    TLS_RECORD_BYTES_MAX = 16384        # plaintext of one record
    TLS_RECORD_OVERHEAD_BYTES = 256     # more than any record adds (RFC 8446 §5.2)

cdef struct TlsIo:                      # where libssl reads and writes during one call; belongs to a worker
    const uint8_t *rx                   # ciphertext received
    size_t rx_bytes
    size_t rx_taken                     # how much of it libssl has taken
    uint8_t *tx                         # room for ciphertext to send
    size_t tx_size
    size_t tx_bytes                     # how much of it is filled

# Contexts. TLS 1.2 and 1.3 for visitors, 1.3 only for links; sessions resume by tickets; memory released when idle
# (SSL_MODE_RELEASE_BUFFERS, SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER). A context may be
# shared between threads, and freed while conns of it live. NULL on failure: tls_error_text has the words.
# ALPN of a link context is "spokes/1" (required); of a visitor's "http/1.1" (chosen when offered, ignored when not).
cdef SSL_CTX *tls_server_context(const uint8_t *chain_pem, size_t chain_bytes, const uint8_t *key_pem, size_t key_bytes,
                                 bint for_links) noexcept nogil
# "" = the system's authorities; for links: TLS 1.3, ALPN spokes/1
cdef SSL_CTX *tls_client_context(const char *ca_file) noexcept nogil
cdef void tls_context_free(SSL_CTX *context) noexcept nogil

# One connection; NULL on failure. server_name (host name or literal IP): sent as SNI by a client and verified unless a
# pin is given; NULL at a server. A client offers the context's newest session for this name and kind of trust.
# A conn may move between threads between calls. Whatever a call left in io.tx is sent, also after RC_TLS (the alert);
# what it did not take of io.rx is offered again, also to the next function (data may follow a handshake at once).
cdef SSL *tls_new(SSL_CTX *context, bint is_server, const char *server_name, bint has_pin) noexcept nogil
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
cdef bint tls_has_pending(SSL *ssl) noexcept nogil                          # decrypted bytes wait inside libssl
# Words for the last failure of this thread (ASCII, 0-terminated, until the next failure), and clears libssl's queue.
cdef const char *tls_error_text() noexcept nogil
