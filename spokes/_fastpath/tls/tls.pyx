"""TLS by libssl between buffers: handshakes, records and pins; no socket is touched here.

Owns: every call into libssl for a conn. Bound: an idle conn holds no record buffer.
Fails: RC_TLS with words of tls_error_text, RC_PIN, RC_EOF; never raises.
Source: RFC 8446 (TLS 1.3), RFC 7301 (ALPN); OpenSSL 3.0 manual, also built against 3.2 and later.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, strlen

from spokes._fastpath.base.types cimport RC_AGAIN, RC_EOF, RC_PIN, RC_TLS
from spokes._fastpath.tls.certificate cimport certificate_hold, certificate_release, certificate_use
from spokes._fastpath.tls.openssl cimport (
    BIO, BIO_CTRL_EOF, BIO_CTRL_FLUSH, BIO_METHOD, BIO_TYPE_SOURCE_SINK, BIO_clear_retry_flags, BIO_free, BIO_get_data,
    BIO_get_new_index, BIO_meth_new, BIO_meth_set_create, BIO_meth_set_ctrl, BIO_meth_set_destroy, BIO_meth_set_read,
    BIO_meth_set_write, BIO_new, BIO_set_data, BIO_set_init, BIO_set_retry_read, BIO_set_retry_write, CRYPTO_memcmp,
    ERR_clear_error, ERR_peek_last_error, EVP_Digest, EVP_sha256, OPENSSL_free, SSL_ERROR_WANT_READ,
    SSL_ERROR_WANT_WRITE, SSL_ERROR_ZERO_RETURN, SSL_KEY_UPDATE_NOT_REQUESTED, SSL_RECEIVED_SHUTDOWN, SSL_SENT_SHUTDOWN,
    SSL_VERIFY_NONE, SSL_do_handshake, SSL_free, SSL_get0_alpn_selected, SSL_get0_param, SSL_get0_peer_certificate,
    SSL_get_error, SSL_get_shutdown, SSL_get_verify_mode, SSL_get_verify_result, SSL_is_init_finished, SSL_is_server,
    SSL_key_update, SSL_new, SSL_pending, SSL_read, SSL_session_reused, SSL_set1_host, SSL_set_accept_state,
    SSL_set_bio, SSL_set_connect_state, SSL_set_hostflags, SSL_set_session_id_context, SSL_set_shutdown,
    SSL_set_tlsext_host_name, SSL_set_tlsext_status_ocsp_resp, SSL_set_verify, SSL_shutdown, SSL_version, SSL_write,
    TLS1_3_VERSION, X509, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, X509_VERIFY_PARAM_set1_ip_asc, X509_V_OK,
    X509_get_X509_PUBKEY, i2d_X509_PUBKEY,
)
from spokes._fastpath.tls.tls_context cimport (
    ALPN_LINK, ALPN_WIRE_BYTES, TlsConn, client_prepare, conn_of, is_client_context,
)
from spokes._fastpath.tls.tls_words cimport tls_note_error, tls_note_words

cdef enum:
    RECORDS_PER_KEY_MAX = 1 << 24       # RFC 8446 §5.5: AES-GCM is good for 2^24.5 full records under one key
    READ_BYTES_MAX = 1 << 30            # libssl counts in int
    RECORD_BYTES_WORTH = 4096           # a shorter record is not made just because tx is nearly full


# The BIO: libssl's view of a TlsIo ------------------------------------------------------------------------------------

cdef int bio_create(BIO *bio) noexcept nogil:
    BIO_set_init(bio, 1)
    return 1


cdef int bio_destroy(BIO *bio) noexcept nogil:
    cdef TlsConn *conn = <TlsConn *>BIO_get_data(bio)
    if conn != NULL:
        certificate_release(conn.certificate)
    free(conn)
    BIO_set_data(bio, NULL)
    return 1


cdef int bio_read(BIO *bio, char *dst, int dst_bytes) noexcept nogil:
    cdef TlsConn *conn = <TlsConn *>BIO_get_data(bio)
    cdef TlsIo *io = conn.io
    cdef size_t n
    BIO_clear_retry_flags(bio)
    if io == NULL or io.rx_taken == io.rx_bytes:
        if conn.has_ended:
            return 0
        BIO_set_retry_read(bio)
        return -1
    n = min(io.rx_bytes - io.rx_taken, <size_t>dst_bytes)
    memcpy(dst, io.rx + io.rx_taken, n)
    io.rx_taken += n
    return <int>n


cdef int bio_write(BIO *bio, const char *src, int src_bytes) noexcept nogil:
    cdef TlsConn *conn = <TlsConn *>BIO_get_data(bio)
    cdef TlsIo *io = conn.io
    cdef size_t n
    BIO_clear_retry_flags(bio)
    if io == NULL or io.tx_bytes == io.tx_size:
        BIO_set_retry_write(bio)
        return -1
    n = min(io.tx_size - io.tx_bytes, <size_t>src_bytes)
    memcpy(io.tx + io.tx_bytes, src, n)
    io.tx_bytes += n
    return <int>n


cdef long bio_ctrl(BIO *bio, int command, long number, void *pointer) noexcept nogil:
    if command == BIO_CTRL_FLUSH:
        return 1
    if command == BIO_CTRL_EOF:
        return (<TlsConn *>BIO_get_data(bio)).has_ended
    return 0


cdef BIO_METHOD *bio_method = NULL      # made at import, never freed
# Connections ----------------------------------------------------------------------------------------------------------

cdef TlsConn *conn_new(const char *name, bint has_pin) noexcept nogil:
    cdef size_t name_bytes = strlen(name) + 1 if name != NULL else 0
    cdef TlsConn *conn = <TlsConn *>calloc(1, sizeof(TlsConn) + name_bytes)
    if conn == NULL:
        return NULL
    conn.has_pin = has_pin
    if name != NULL:
        conn.name = <char *>(conn + 1)
        memcpy(conn.name, name, name_bytes)
    return conn


cdef bint expect_server(SSL *ssl, const char *name, bint has_pin) noexcept nogil:
    """Says whom we call, and how the other side is known to be it."""
    # A literal IP is verified as one and must not be sent as SNI (RFC 6066 §3).
    cdef bint is_ip = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1
    ERR_clear_error()                   # a name is no malformed IP
    if not is_ip:
        if SSL_set_tlsext_host_name(ssl, name) != 1 or SSL_set1_host(ssl, name) != 1:
            return False
        SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
    if has_pin:
        SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL)
    return True


cdef SSL *ssl_new(SSL_CTX *context, const char *server_name, bint has_pin) noexcept nogil:
    cdef SSL *ssl = SSL_new(context)
    cdef BIO *bio = BIO_new(bio_method)
    cdef TlsConn *conn = conn_new(server_name, has_pin)
    if ssl == NULL or bio == NULL or conn == NULL:
        free(conn)
        BIO_free(bio)
        SSL_free(ssl)
        tls_note_words("no memory for a TLS connection")
        return NULL
    BIO_set_data(bio, conn)             # freed with it
    SSL_set_bio(ssl, bio, bio)          # takes the one reference for both directions
    return ssl


cdef SSL *tls_new_server(SSL_CTX *context, Certificate *certificate, bint is_link) noexcept nogil:
    cdef uint8_t scope[CERTIFICATE_SCOPE_BYTES]
    cdef SSL *ssl
    ERR_clear_error()
    ssl = ssl_new(context, NULL, False)
    if ssl == NULL:
        return NULL
    SSL_set_accept_state(ssl)
    # A session is resumed under the names it was made under, and never as the other kind of conn.
    memcpy(scope, certificate.scope, sizeof(scope))
    scope[0] ^= is_link
    if not certificate_use(certificate, ssl) or SSL_set_session_id_context(ssl, scope, sizeof(scope)) != 1:
        SSL_free(ssl)
        return NULL
    if certificate.staple_bytes:
        conn_of(ssl).certificate = certificate_hold(certificate)
    return ssl


cdef SSL *tls_new_client(SSL_CTX *context, const char *server_name, bint has_pin) noexcept nogil:
    cdef SSL *ssl
    ERR_clear_error()
    if not is_client_context(context) or server_name == NULL or server_name[0] == 0:
        tls_note_words("a client needs a client's context and the name of the server it calls")
        return NULL
    ssl = ssl_new(context, server_name, has_pin)
    if ssl == NULL:
        return NULL
    SSL_set_connect_state(ssl)
    if not expect_server(ssl, server_name, has_pin):
        tls_note_error(ssl, "the server's name cannot be used")
        SSL_free(ssl)
        return NULL
    if not client_prepare(context, ssl, has_pin):
        SSL_free(ssl)
        return NULL
    return ssl


cdef void tls_free(SSL *ssl) noexcept nogil:
    if ssl == NULL:
        return
    # Freed without a closing alert, libssl would forbid to resume the session, and a link that broke with its TCP
    # connection is just the one that resumes. A session spoilt by a fatal alert is marked so already.
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
    SSL_free(ssl)


cdef int fail(TlsConn *conn, const char *words) noexcept nogil:
    conn.has_failed = 1
    tls_note_words(words)
    return RC_TLS


cdef bint begin(TlsConn *conn, TlsIo *io) noexcept nogil:
    """Before each call into libssl; False when the conn is past use."""
    if conn.has_failed:
        tls_note_words("the connection had failed before")
        return False
    if ERR_peek_last_error() != 0:      # left by somebody else on this thread; clearing costs more than looking
        ERR_clear_error()
    conn.io = io
    return True


cdef int end(TlsConn *conn, SSL *ssl, int rc) noexcept nogil:
    """After each call into libssl: rc if > 0, else RC_AGAIN, RC_EOF, or RC_TLS with its words kept."""
    cdef int error
    conn.io = NULL
    if rc > 0:
        return rc
    error = SSL_get_error(ssl, rc)
    if error == SSL_ERROR_WANT_READ or error == SSL_ERROR_WANT_WRITE:
        return RC_AGAIN
    if error == SSL_ERROR_ZERO_RETURN:
        return RC_EOF
    conn.has_failed = 1
    tls_note_error(ssl, "the connection failed without a reason")
    return RC_TLS


cdef int tls_handshake(SSL *ssl, TlsIo *io) noexcept nogil:
    cdef TlsConn *conn = conn_of(ssl)
    cdef int rc
    if not begin(conn, io):
        return RC_TLS
    rc = end(conn, ssl, SSL_do_handshake(ssl))
    if rc != RC_AGAIN and conn.certificate != NULL:
        certificate_release(conn.certificate)
        conn.certificate = NULL
        SSL_set_tlsext_status_ocsp_resp(ssl, NULL, 0)   # sent, or never asked for
    if rc == RC_EOF:
        return fail(conn, "the peer closed during the handshake")
    if rc <= 0 or SSL_is_server(ssl):
        return rc
    # A resumed session skips verification, so the answer of the one it stems from counts.
    if SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE and SSL_get_verify_result(ssl) != X509_V_OK:
        return fail(conn, "certificate verify failed (the session resumed was not verified)")
    if not tls_has_link_alpn(ssl):
        return fail(conn, "the server does not speak the link protocol (ALPN spokes/1)")
    return 1


cdef int tls_check_pin(SSL *ssl, const uint8_t *pin_sha256) noexcept nogil:
    cdef const X509 *certificate = SSL_get0_peer_certificate(ssl)     # of a resumed session too
    cdef unsigned char *der = NULL
    cdef unsigned char digest[32]
    cdef int der_bytes
    cdef int rc
    if certificate == NULL:
        return RC_PIN
    der_bytes = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der)
    if der_bytes <= 0:
        ERR_clear_error()
        return RC_PIN
    rc = EVP_Digest(der, <size_t>der_bytes, digest, NULL, EVP_sha256(), NULL)
    OPENSSL_free(der)
    if rc != 1 or CRYPTO_memcmp(digest, pin_sha256, sizeof(digest)) != 0:
        ERR_clear_error()
        return RC_PIN
    return 0


cdef bint tls_has_link_alpn(SSL *ssl) noexcept nogil:
    cdef const unsigned char *name = NULL
    cdef unsigned int name_bytes = 0
    SSL_get0_alpn_selected(ssl, &name, &name_bytes)
    return name_bytes == ALPN_WIRE_BYTES - 1 and memcmp(name, ALPN_LINK + 1, name_bytes) == 0


cdef bint tls_is_resumed(SSL *ssl) noexcept nogil:
    return SSL_session_reused(ssl) == 1


cdef bint tls_has_pending(SSL *ssl) noexcept nogil:
    return SSL_pending(ssl) > 0


cdef ssize_t tls_read(SSL *ssl, TlsIo *io, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    cdef TlsConn *conn = conn_of(ssl)
    # With nothing to read libssl would allocate a record buffer and free it again. Only where nothing else waits.
    if (
        io.rx_taken == io.rx_bytes
        and not conn.has_ended
        and SSL_is_init_finished(ssl)
        and SSL_pending(ssl) == 0
        and not SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN
    ):
        return RC_AGAIN
    if not begin(conn, io):
        return RC_TLS
    return end(conn, ssl, SSL_read(ssl, dst, <int>min(dst_bytes, <size_t>READ_BYTES_MAX)))


cdef int tls_end_of_input(SSL *ssl) noexcept nogil:
    cdef TlsConn *conn = conn_of(ssl)
    cdef uint8_t byte
    cdef int rc
    if not begin(conn, NULL):
        return RC_TLS
    conn.has_ended = 1
    rc = end(conn, ssl, SSL_read(ssl, &byte, 1))
    if rc > 0:
        return fail(conn, "the stream ended before it was read")
    return rc if rc != RC_AGAIN else fail(conn, "the stream was cut")


cdef ssize_t tls_write(SSL *ssl, TlsIo *io, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef TlsConn *conn = conn_of(ssl)
    cdef size_t taken = 0
    cdef size_t room
    cdef size_t n
    cdef int rc
    if not begin(conn, io):
        return RC_TLS
    while taken < src_bytes:
        # Room is made sure of first: libssl must never keep half a record, which would bind the caller to its bytes.
        n = min(src_bytes - taken, <size_t>TLS_RECORD_BYTES_MAX)
        room = io.tx_size - io.tx_bytes
        if room < n + TLS_RECORD_OVERHEAD_BYTES:
            if room <= TLS_RECORD_OVERHEAD_BYTES:
                break
            n = room - TLS_RECORD_OVERHEAD_BYTES
            if n < RECORD_BYTES_WORTH and io.tx_bytes > 0:
                break
        if conn.record_count >= RECORDS_PER_KEY_MAX:
            conn.record_count = 0
            if SSL_version(ssl) == TLS1_3_VERSION and not SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED):
                ERR_clear_error()       # one is under way already
        rc = SSL_write(ssl, src + taken, <int>n)
        if rc <= 0:
            rc = end(conn, ssl, rc)
            # What was taken is in tx; a failure is met again by the next call.
            return <ssize_t>taken if taken > 0 else (RC_TLS if rc == RC_EOF else rc)
        conn.record_count += 1
        taken += <size_t>rc
    conn.io = NULL
    return <ssize_t>taken


cdef int tls_shutdown(SSL *ssl, TlsIo *io) noexcept nogil:
    cdef TlsConn *conn = conn_of(ssl)
    cdef int rc
    if conn.has_failed or not SSL_is_init_finished(ssl):
        return 1                        # there is nothing to close in order
    begin(conn, io)
    rc = SSL_shutdown(ssl)              # 0: sent, the peer's is not here yet
    rc = end(conn, ssl, rc if rc != 0 else 1)
    return RC_TLS if rc == RC_EOF else rc


cdef int module_init() noexcept nogil:
    global bio_method
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "spokes buffers")
    if bio_method == NULL:
        return -1
    BIO_meth_set_create(bio_method, bio_create)
    BIO_meth_set_destroy(bio_method, bio_destroy)
    BIO_meth_set_read(bio_method, bio_read)
    BIO_meth_set_write(bio_method, bio_write)
    BIO_meth_set_ctrl(bio_method, bio_ctrl)
    return 0


if module_init() != 0:
    raise ImportError("libssl cannot be initialised")
