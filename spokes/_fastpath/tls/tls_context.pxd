# TLS contexts: what all conns of one kind share.
from spokes._fastpath.base.types cimport uint8_t, uint64_t
from spokes._fastpath.tls.certificate cimport Certificate
from spokes._fastpath.tls.openssl cimport BIO_get_data, SSL, SSL_CTX, SSL_get_rbio

cdef enum:
    ALPN_WIRE_BYTES = 9                 # of ALPN_LINK and ALPN_VISITOR
    TICKET_KEY_BYTES = 80               # name (16), AES-256 (32), HMAC-SHA-256 (32)
    TICKET_KEY_COUNT_MAX = 4            # the first seals, all open

cdef const unsigned char *ALPN_LINK                     # as on the wire: length, name
# What a client offers beside it that knows no key of the server and wants a certificate that its authorities vouch for.
cdef enum:
    ALPN_BY_AUTHORITY_WIRE_BYTES = 21
    ALPN_OF_WORKER_WIRE_BYTES = 27      # spokes/1 and spokes-worker/001

cdef struct TlsIo:                      # where libssl reads and writes during one call; belongs to a worker
    const uint8_t *rx                   # ciphertext received
    size_t rx_bytes
    size_t rx_taken                     # how much of it libssl has taken
    uint8_t *tx                         # room for ciphertext to send
    size_t tx_size
    size_t tx_bytes                     # how much of it is filled

cdef struct TlsConn:                    # what we keep beside an SSL; owned by its BIO
    TlsIo *io                           # only during a call
    uint64_t record_count               # written under the present key
    Certificate *certificate            # a server's with an OCSP response, until its handshake is over
    uint8_t has_ended                   # no more rx will come
    uint8_t has_failed                  # RC_TLS was answered, and is for ever; libssl itself may say "again" after it
    uint8_t has_pin
    char *name                          # a client's server name, behind this struct; NULL at a server

cdef inline TlsConn *conn_of(SSL *ssl) noexcept nogil:
    return <TlsConn *>BIO_get_data(SSL_get_rbio(ssl))

# TLS 1.2 and 1.3 for visitors, 1.3 only for links; sessions resume by tickets; memory is released when idle
# (SSL_MODE_RELEASE_BUFFERS, SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER). A context may be
# shared between threads, and freed while conns of it live. NULL on failure: tls_error_text has the words.
# ALPN of a link context is "spokes/1" (required); of a visitor's "http/1.1" (chosen when offered, ignored when not).
# It has no certificate: each conn is given its own.
cdef SSL_CTX *tls_server_context(bint for_links) noexcept nogil
# count keys of TICKET_KEY_BYTES; until then it has one of its own, which ends with it.
cdef void tls_set_ticket_keys(SSL_CTX *context, const uint8_t *keys, int count) noexcept nogil
# "" = the system's authorities; for links: TLS 1.3, ALPN spokes/1
cdef SSL_CTX *tls_client_context(const char *ca_file) noexcept nogil
cdef void tls_context_free(SSL_CTX *context) noexcept nogil
cdef bint client_ask_worker(SSL *ssl, uint8_t worker) noexcept nogil         # of the server; before the handshake
cdef bint client_prepare(SSL_CTX *context, SSL *ssl, bint has_pin) noexcept nogil     # authorities, ALPN, a session
cdef bint is_client_context(SSL_CTX *context) noexcept nogil
