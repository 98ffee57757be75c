"""TLS by libssl between buffers: contexts, handshakes, records, pins and resumption; no socket is touched here.

Owns: every call into libssl on the data path, and the sessions a client context keeps for resumption.
Bound: SESSION_COUNT_MAX sessions per client context; an idle conn holds no record buffer.
Fails: RC_TLS with words of tls_error_text, RC_PIN, RC_EOF; never raises, except from the test doors at the end.
Source: RFC 8446 (TLS 1.3), RFC 7301 (ALPN); OpenSSL 3.0 manual, also built against 3.2 and later.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, strcmp, strlen

from spokes._fastpath.types cimport RC_AGAIN, RC_EOF, RC_PIN, RC_TLS, uint8_t, uint64_t

cdef extern from *:
    """
    #include <stdio.h>
    #include <openssl/bio.h>
    #include <openssl/crypto.h>
    #include <openssl/err.h>
    #include <openssl/evp.h>
    #include <openssl/pem.h>
    #include <openssl/ssl.h>
    #include <openssl/x509.h>
    #include <openssl/x509_vfy.h>
    #include <openssl/x509v3.h>

    /* Cython has no thread-local storage. One buffer a thread: a worker asks for the words right after a failure. */
    static _Thread_local char spokes_tls_words[256] = "";
    """
    char spokes_tls_words[256]
    int snprintf(char *dst, size_t dst_bytes, const char *format, ...) nogil

    ctypedef struct BIO
    ctypedef struct BIO_METHOD
    ctypedef struct CRYPTO_EX_DATA
    ctypedef struct CRYPTO_RWLOCK
    ctypedef struct EVP_MD
    ctypedef struct EVP_PKEY
    ctypedef struct SSL_METHOD
    ctypedef struct SSL_SESSION
    ctypedef struct X509
    ctypedef struct X509_PUBKEY
    ctypedef struct X509_VERIFY_PARAM

    int BIO_TYPE_SOURCE_SINK, BIO_CTRL_FLUSH, BIO_CTRL_EOF
    int BIO_get_new_index() nogil
    BIO_METHOD *BIO_meth_new(int type, const char *name) nogil
    int BIO_meth_set_read(BIO_METHOD *method, int (*read)(BIO *, char *, int) noexcept nogil) nogil
    int BIO_meth_set_write(BIO_METHOD *method, int (*write)(BIO *, const char *, int) noexcept nogil) nogil
    int BIO_meth_set_ctrl(BIO_METHOD *method, long (*ctrl)(BIO *, int, long, void *) noexcept nogil) nogil
    int BIO_meth_set_create(BIO_METHOD *method, int (*create)(BIO *) noexcept nogil) nogil
    int BIO_meth_set_destroy(BIO_METHOD *method, int (*destroy)(BIO *) noexcept nogil) nogil
    BIO *BIO_new(const BIO_METHOD *method) nogil
    BIO *BIO_new_mem_buf(const void *src, int src_bytes) nogil
    int BIO_free(BIO *bio) nogil
    void *BIO_get_data(BIO *bio) nogil
    void BIO_set_data(BIO *bio, void *data) nogil
    void BIO_set_init(BIO *bio, int init) nogil
    void BIO_clear_retry_flags(BIO *bio) nogil
    void BIO_set_retry_read(BIO *bio) nogil
    void BIO_set_retry_write(BIO *bio) nogil

    void ERR_clear_error() nogil
    unsigned long ERR_peek_last_error() nogil
    int ERR_GET_LIB(unsigned long code) nogil
    int ERR_GET_REASON(unsigned long code) nogil
    int ERR_LIB_SSL, ERR_LIB_PEM, SSL_R_CERTIFICATE_VERIFY_FAILED, PEM_R_NO_START_LINE
    const char *ERR_reason_error_string(unsigned long code) nogil

    CRYPTO_RWLOCK *CRYPTO_THREAD_lock_new() nogil
    int CRYPTO_THREAD_write_lock(CRYPTO_RWLOCK *lock) nogil
    int CRYPTO_THREAD_unlock(CRYPTO_RWLOCK *lock) nogil
    void CRYPTO_THREAD_lock_free(CRYPTO_RWLOCK *lock) nogil
    int CRYPTO_memcmp(const void *a, const void *b, size_t n) nogil
    void OPENSSL_free(void *block) nogil
    int EVP_Digest(const void *src, size_t src_bytes, unsigned char *dst, unsigned int *dst_bytes, const EVP_MD *md,
                   void *engine) nogil
    const EVP_MD *EVP_sha256() nogil
    void EVP_PKEY_free(EVP_PKEY *key) nogil

    X509 *PEM_read_bio_X509(BIO *bio, X509 **out, int (*password)(char *, int, int, void *) noexcept nogil,
                            void *arg) nogil
    EVP_PKEY *PEM_read_bio_PrivateKey(BIO *bio, EVP_PKEY **out,
                                      int (*password)(char *, int, int, void *) noexcept nogil, void *arg) nogil
    void X509_free(X509 *certificate) nogil
    X509_PUBKEY *X509_get_X509_PUBKEY(const X509 *certificate) nogil
    int i2d_X509_PUBKEY(const X509_PUBKEY *key, unsigned char **out) nogil
    long X509_V_OK
    const char *X509_verify_cert_error_string(long code) nogil
    int X509_VERIFY_PARAM_set1_ip_asc(X509_VERIFY_PARAM *param, const char *ip) nogil
    unsigned int X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
    unsigned long X509_V_FLAG_PARTIAL_CHAIN

    const SSL_METHOD *TLS_server_method() nogil
    const SSL_METHOD *TLS_client_method() nogil
    SSL_CTX *SSL_CTX_new(const SSL_METHOD *method) nogil
    void SSL_CTX_free(SSL_CTX *context) nogil
    int TLS1_2_VERSION, TLS1_3_VERSION
    int SSL_CTX_set_min_proto_version(SSL_CTX *context, int version) nogil
    int SSL_CTX_set_ciphersuites(SSL_CTX *context, const char *names) nogil
    int SSL_CTX_set_cipher_list(SSL_CTX *context, const char *names) nogil
    long SSL_MODE_RELEASE_BUFFERS, SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
    long SSL_MODE_NO_AUTO_CHAIN
    long SSL_CTX_set_mode(SSL_CTX *context, long mode) nogil
    uint64_t SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_COMPRESSION, SSL_OP_CIPHER_SERVER_PREFERENCE, SSL_OP_PRIORITIZE_CHACHA
    uint64_t SSL_CTX_set_options(SSL_CTX *context, uint64_t options) nogil
    long SSL_SESS_CACHE_OFF, SSL_SESS_CACHE_CLIENT, SSL_SESS_CACHE_NO_INTERNAL
    long SSL_CTX_set_session_cache_mode(SSL_CTX *context, long mode) nogil
    int SSL_CTX_set_session_id_context(SSL_CTX *context, const unsigned char *src, unsigned int src_bytes) nogil
    int SSL_CTX_set_num_tickets(SSL_CTX *context, size_t count) nogil
    int SSL_CTX_use_certificate(SSL_CTX *context, X509 *certificate) nogil
    long SSL_CTX_add0_chain_cert(SSL_CTX *context, X509 *certificate) nogil
    int SSL_CTX_use_PrivateKey(SSL_CTX *context, EVP_PKEY *key) nogil
    int SSL_CTX_check_private_key(const SSL_CTX *context) nogil
    int SSL_CTX_load_verify_file(SSL_CTX *context, const char *path) nogil
    int SSL_CTX_set_default_verify_paths(SSL_CTX *context) nogil
    X509_VERIFY_PARAM *SSL_CTX_get0_param(SSL_CTX *context) nogil
    int X509_VERIFY_PARAM_set_flags(X509_VERIFY_PARAM *param, unsigned long flags) nogil
    int SSL_VERIFY_NONE, SSL_VERIFY_PEER
    void SSL_CTX_set_verify(SSL_CTX *context, int mode, void *callback) nogil
    int SSL_CTX_set_alpn_protos(SSL_CTX *context, const unsigned char *protocols, unsigned int n) nogil
    void SSL_CTX_set_alpn_select_cb(SSL_CTX *context, int (*select)(
        SSL *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *) noexcept nogil,
        void *arg) nogil
    void SSL_CTX_set_client_hello_cb(SSL_CTX *context, int (*hello)(SSL *, int *, void *) noexcept nogil,
                                     void *arg) nogil
    int SSL_client_hello_get0_ext(SSL *ssl, unsigned int type, const unsigned char **out, size_t *out_bytes) nogil
    int SSL_CLIENT_HELLO_SUCCESS, SSL_CLIENT_HELLO_ERROR, SSL_AD_NO_APPLICATION_PROTOCOL
    unsigned int TLSEXT_TYPE_application_layer_protocol_negotiation
    int SSL_TLSEXT_ERR_OK, SSL_TLSEXT_ERR_NOACK, SSL_TLSEXT_ERR_ALERT_FATAL
    void SSL_CTX_sess_set_new_cb(SSL_CTX *context, int (*keep)(SSL *, SSL_SESSION *) noexcept nogil) nogil
    int SSL_CTX_get_ex_new_index(long argl, void *argp, void *new_func, void *dup_func, void (*free_func)(
        void *, void *, CRYPTO_EX_DATA *, int, long, void *) noexcept nogil) nogil
    int SSL_CTX_set_ex_data(SSL_CTX *context, int index, void *data) nogil
    void *SSL_CTX_get_ex_data(const SSL_CTX *context, int index) nogil

    SSL *SSL_new(SSL_CTX *context) nogil
    void SSL_free(SSL *ssl) nogil
    SSL_CTX *SSL_get_SSL_CTX(const SSL *ssl) nogil
    void SSL_set_bio(SSL *ssl, BIO *rbio, BIO *wbio) nogil
    BIO *SSL_get_rbio(const SSL *ssl) nogil
    void SSL_set_accept_state(SSL *ssl) nogil
    void SSL_set_connect_state(SSL *ssl) nogil
    int SSL_is_server(const SSL *ssl) nogil
    int SSL_is_init_finished(const SSL *ssl) nogil
    long SSL_set_tlsext_host_name(SSL *ssl, const char *name) nogil
    int SSL_set1_host(SSL *ssl, const char *name) nogil
    void SSL_set_hostflags(SSL *ssl, unsigned int flags) nogil
    X509_VERIFY_PARAM *SSL_get0_param(SSL *ssl) nogil
    void SSL_set_verify(SSL *ssl, int mode, void *callback) nogil
    int SSL_get_verify_mode(const SSL *ssl) nogil
    long SSL_get_verify_result(const SSL *ssl) nogil
    int SSL_set_session(SSL *ssl, SSL_SESSION *session) nogil
    void SSL_SESSION_free(SSL_SESSION *session) nogil
    int SSL_SESSION_up_ref(SSL_SESSION *session) nogil
    int SSL_SESSION_is_resumable(const SSL_SESSION *session) nogil
    int SSL_session_reused(const SSL *ssl) nogil
    int SSL_do_handshake(SSL *ssl) nogil
    int SSL_read(SSL *ssl, void *dst, int dst_bytes) nogil
    int SSL_write(SSL *ssl, const void *src, int src_bytes) nogil
    int SSL_shutdown(SSL *ssl) nogil
    int SSL_SENT_SHUTDOWN, SSL_RECEIVED_SHUTDOWN
    int SSL_get_shutdown(const SSL *ssl) nogil
    void SSL_set_shutdown(SSL *ssl, int mode) nogil
    int SSL_pending(const SSL *ssl) nogil
    int SSL_version(const SSL *ssl) nogil
    int SSL_KEY_UPDATE_NOT_REQUESTED
    int SSL_key_update(SSL *ssl, int kind) nogil
    int SSL_ERROR_ZERO_RETURN, SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE
    int SSL_get_error(const SSL *ssl, int rc) nogil
    void SSL_get0_alpn_selected(const SSL *ssl, const unsigned char **out, unsigned int *out_bytes) nogil
    X509 *SSL_get0_peer_certificate(const SSL *ssl) nogil

cdef enum:
    SESSION_COUNT_MAX = 64              # per client context; the one used longest ago makes room
    TICKET_COUNT_LINK = 1               # a client keeps one session per server
    TICKET_COUNT_VISITOR = 2            # browsers open several conns; libssl's default
    RECORDS_PER_KEY_MAX = 1 << 24       # RFC 8446 §5.5: AES-GCM is good for 2^24.5 full records under one key
    PEM_BYTES_MAX = 1 << 20
    READ_BYTES_MAX = 1 << 30            # libssl counts in int
    RECORD_BYTES_WORTH = 4096           # a shorter record is not made just because tx is nearly full

# The first measured fastest with AES instructions; a client without them may put ChaCha first.
cdef const char *CIPHERS_TLS13 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# TLS 1.2: forward secrecy and authenticated encryption only.
cdef const char *CIPHERS_TLS12 = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
cdef const unsigned char *ALPN_LINK = b"\x08spokes/1"           # as on the wire: length, name
cdef const unsigned char *ALPN_VISITOR = b"\x08http/1.1"
cdef enum:
    ALPN_WIRE_BYTES = 9                 # both names have eight letters

cdef struct Conn:                       # what we keep beside an SSL; owned by its BIO
    TlsIo *io                           # only during a call
    uint64_t record_count               # written under the present key
    uint8_t has_ended                   # no more rx will come
    uint8_t has_failed                  # RC_TLS was answered, and is for ever; libssl itself may say "again" after it
    uint8_t has_pin
    char *name                          # a client's server name, behind this struct; NULL at a server

cdef struct SessionSlot:
    SSL_SESSION *session                # NULL: free
    uint64_t used                       # the context's clock at its last use
    uint8_t has_pin                     # made without verification: never offered where a certificate is to be verified
    char *name

cdef struct ClientState:                # what a client context carries besides
    CRYPTO_RWLOCK *lock                 # contexts are shared between workers
    uint8_t wants_authorities           # the system's, not read yet
    uint64_t clock
    SessionSlot slots[SESSION_COUNT_MAX]


# Words ----------------------------------------------------------------------------------------------------------------

cdef void note_words(const char *words) noexcept nogil:
    snprintf(spokes_tls_words, sizeof(spokes_tls_words), "%s", words)
    ERR_clear_error()


cdef void note_error(SSL *ssl, const char *otherwise) noexcept nogil:
    """Keep the words of libssl's last error: the queue is shared with the conn that is served next."""
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


# The BIO: libssl's view of a TlsIo ------------------------------------------------------------------------------------

cdef int bio_create(BIO *bio) noexcept nogil:
    BIO_set_init(bio, 1)
    return 1


cdef int bio_destroy(BIO *bio) noexcept nogil:
    free(BIO_get_data(bio))
    BIO_set_data(bio, NULL)
    return 1


cdef int bio_read(BIO *bio, char *dst, int dst_bytes) noexcept nogil:
    cdef Conn *conn = <Conn *>BIO_get_data(bio)
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
    cdef Conn *conn = <Conn *>BIO_get_data(bio)
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
        return (<Conn *>BIO_get_data(bio)).has_ended
    return 0


cdef BIO_METHOD *bio_method = NULL      # made at import, never freed
cdef int client_state_index = -1        # of a context's ex_data


cdef inline Conn *conn_of(SSL *ssl) noexcept nogil:
    return <Conn *>BIO_get_data(SSL_get_rbio(ssl))


# Sessions a client keeps ----------------------------------------------------------------------------------------------

cdef void slot_clear(SessionSlot *slot) noexcept nogil:
    SSL_SESSION_free(slot.session)
    free(slot.name)
    slot.session = NULL
    slot.name = NULL


cdef void client_state_free(void *parent, void *data, CRYPTO_EX_DATA *ex_data, int index, long argl,
                            void *argp) noexcept nogil:
    """With the context's last reference, which a conn may hold longer than its owner."""
    cdef ClientState *state = <ClientState *>data
    cdef int i
    if state == NULL:
        return
    for i in range(SESSION_COUNT_MAX):
        slot_clear(&state.slots[i])
    CRYPTO_THREAD_lock_free(state.lock)
    free(state)


cdef SessionSlot *session_find(ClientState *state, const char *name, bint has_pin) noexcept nogil:
    cdef SessionSlot *slot
    cdef int i
    for i in range(SESSION_COUNT_MAX):
        slot = &state.slots[i]
        if slot.session != NULL and slot.has_pin == has_pin and strcmp(slot.name, name) == 0:
            return slot
    return NULL


cdef int session_keep(SSL *ssl, SSL_SESSION *session) noexcept nogil:
    """libssl's callback for a new ticket. 1: the reference is ours now."""
    cdef ClientState *state = <ClientState *>SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), client_state_index)
    cdef Conn *conn = conn_of(ssl)
    cdef SessionSlot *slot
    cdef size_t name_bytes
    cdef char *name
    cdef int i
    if state == NULL or conn.name == NULL:
        return 0
    name_bytes = strlen(conn.name) + 1
    name = <char *>malloc(name_bytes)
    if name == NULL:
        return 0
    memcpy(name, conn.name, name_bytes)
    CRYPTO_THREAD_write_lock(state.lock)
    slot = session_find(state, conn.name, conn.has_pin)
    if slot == NULL:
        slot = &state.slots[0]
        for i in range(1, SESSION_COUNT_MAX):
            if state.slots[i].used < slot.used:
                slot = &state.slots[i]
    slot_clear(slot)
    state.clock += 1
    slot.session = session
    slot.used = state.clock
    slot.has_pin = conn.has_pin
    slot.name = name
    CRYPTO_THREAD_unlock(state.lock)
    return 1


cdef void session_offer(SSL *ssl, ClientState *state, const Conn *conn) noexcept nogil:
    cdef SSL_SESSION *session = NULL
    cdef SessionSlot *slot
    CRYPTO_THREAD_write_lock(state.lock)
    slot = session_find(state, conn.name, conn.has_pin)
    if slot != NULL:
        if SSL_SESSION_is_resumable(slot.session):
            state.clock += 1
            slot.used = state.clock
            session = slot.session
            SSL_SESSION_up_ref(session)
        else:
            slot_clear(slot)            # libssl marks a session so after a fatal alert
            slot.used = 0
    CRYPTO_THREAD_unlock(state.lock)
    if session != NULL:
        SSL_set_session(ssl, session)   # takes its own reference; without it the handshake is a full one
        SSL_SESSION_free(session)


# Contexts -------------------------------------------------------------------------------------------------------------

cdef int refuse_password(char *dst, int dst_bytes, int is_writing, void *arg) noexcept nogil:
    """Without it libssl would ask for the password of an encrypted key on the terminal."""
    return -1


cdef int require_alpn(SSL *ssl, int *alert, void *arg) noexcept nogil:
    """A hello without the extension never reaches the ALPN callback."""
    cdef const unsigned char *src = NULL
    cdef size_t src_bytes = 0
    if SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &src, &src_bytes):
        return SSL_CLIENT_HELLO_SUCCESS
    alert[0] = SSL_AD_NO_APPLICATION_PROTOCOL
    return SSL_CLIENT_HELLO_ERROR


cdef int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_bytes, const unsigned char *src,
                     unsigned int src_bytes, void *arg) noexcept nogil:
    """Finds ours in the client's list, which libssl has checked to be well-formed. arg: not NULL for links."""
    cdef const unsigned char *wanted = ALPN_LINK if arg != NULL else ALPN_VISITOR
    cdef unsigned int i = 0
    while i < src_bytes:
        if i + ALPN_WIRE_BYTES <= src_bytes and memcmp(src + i, wanted, ALPN_WIRE_BYTES) == 0:
            out[0] = src + i + 1
            out_bytes[0] = ALPN_WIRE_BYTES - 1
            return SSL_TLSEXT_ERR_OK
        i += 1 + <unsigned int>src[i]
    return SSL_TLSEXT_ERR_ALERT_FATAL if arg != NULL else SSL_TLSEXT_ERR_NOACK


cdef SSL_CTX *context_new(const SSL_METHOD *method, int version_min) noexcept nogil:
    """What all contexts share."""
    cdef SSL_CTX *context = SSL_CTX_new(method)
    if context == NULL:
        note_error(NULL, "no memory for a TLS context")
        return NULL
    if (
        not SSL_CTX_set_min_proto_version(context, version_min)
        or not SSL_CTX_set_ciphersuites(context, CIPHERS_TLS13)
        or not SSL_CTX_set_cipher_list(context, CIPHERS_TLS12)
    ):
        note_error(NULL, "the TLS library has none of the cipher suites wanted")
        SSL_CTX_free(context)
        return NULL
    SSL_CTX_set_mode(
        context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
    )
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION)
    return context


cdef bint use_chain(SSL_CTX *context, BIO *pem) noexcept nogil:
    """The leaf, then what leads to its authority; text around the blocks is skipped."""
    cdef X509 *certificate = PEM_read_bio_X509(pem, NULL, refuse_password, NULL)
    cdef unsigned long code
    cdef int rc
    if certificate == NULL:
        note_words("no certificate found in the chain")
        return False
    rc = SSL_CTX_use_certificate(context, certificate)
    X509_free(certificate)              # the context took its own reference
    if rc != 1:
        note_error(NULL, "certificate refused")
        return False
    while True:
        certificate = PEM_read_bio_X509(pem, NULL, refuse_password, NULL)
        if certificate == NULL:
            break
        if SSL_CTX_add0_chain_cert(context, certificate) != 1:
            X509_free(certificate)
            note_error(NULL, "certificate of the chain refused")
            return False
    code = ERR_peek_last_error()
    if ERR_GET_LIB(code) != ERR_LIB_PEM or ERR_GET_REASON(code) != PEM_R_NO_START_LINE:
        note_words("a certificate of the chain cannot be read")
        return False
    ERR_clear_error()
    return True


cdef bint use_key(SSL_CTX *context, BIO *pem) noexcept nogil:
    cdef EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, refuse_password, NULL)
    cdef int rc
    if key == NULL:
        note_words("no usable private key found (a key with a password cannot be used)")
        return False
    rc = SSL_CTX_use_PrivateKey(context, key)
    EVP_PKEY_free(key)
    if rc != 1 or SSL_CTX_check_private_key(context) != 1:
        note_words("the private key does not belong to the certificate")
        return False
    return True


cdef SSL_CTX *tls_server_context(const uint8_t *chain_pem, size_t chain_bytes, const uint8_t *key_pem, size_t key_bytes,
                                 bint for_links) noexcept nogil:
    cdef SSL_CTX *context
    cdef BIO *chain = NULL
    cdef BIO *key = NULL
    cdef bint done = False
    ERR_clear_error()
    if chain_bytes > PEM_BYTES_MAX or key_bytes > PEM_BYTES_MAX:
        note_words("certificate or key is too large")
        return NULL
    context = context_new(TLS_server_method(), TLS1_3_VERSION if for_links else TLS1_2_VERSION)
    if context == NULL:
        return NULL
    SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA)
    # What is sent is what the operator gave; otherwise each handshake would search for a chain that is not there.
    SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN)
    # Tickets carry the session, so nothing is kept here for a visitor who may never return.
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF)
    SSL_CTX_set_num_tickets(context, TICKET_COUNT_LINK if for_links else TICKET_COUNT_VISITOR)
    SSL_CTX_set_session_id_context(context, ALPN_LINK if for_links else ALPN_VISITOR, ALPN_WIRE_BYTES)
    SSL_CTX_set_alpn_select_cb(context, select_alpn, <void *>ALPN_LINK if for_links else NULL)
    if for_links:
        SSL_CTX_set_client_hello_cb(context, require_alpn, NULL)
    chain = BIO_new_mem_buf(chain_pem, <int>chain_bytes)
    key = BIO_new_mem_buf(key_pem, <int>key_bytes)
    if chain == NULL or key == NULL:
        note_words("no memory for a certificate")
    else:
        done = use_chain(context, chain) and use_key(context, key)
    BIO_free(chain)
    BIO_free(key)
    if not done:
        SSL_CTX_free(context)
        return NULL
    return context


cdef SSL_CTX *tls_client_context(const char *ca_file) noexcept nogil:
    cdef ClientState *state
    cdef SSL_CTX *context
    ERR_clear_error()
    context = context_new(TLS_client_method(), TLS1_3_VERSION)
    if context == NULL:
        return NULL
    if ca_file[0] != 0:
        if SSL_CTX_load_verify_file(context, ca_file) != 1:
            note_words("no certificate authority can be read from the file given")
            SSL_CTX_free(context)
            return NULL
        # Whoever names a file trusts what is in it, be it an authority or just the server's own certificate.
        X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN)
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL)
    state = <ClientState *>calloc(1, sizeof(ClientState))
    if state != NULL:
        state.wants_authorities = ca_file[0] == 0
        state.lock = CRYPTO_THREAD_lock_new()
    if (
        state == NULL
        or state.lock == NULL
        or SSL_CTX_set_ex_data(context, client_state_index, state) != 1
    ):
        if state != NULL:
            CRYPTO_THREAD_lock_free(state.lock)
            free(state)
        note_words("no memory for a TLS context")
        SSL_CTX_free(context)
        return NULL
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL)
    SSL_CTX_sess_set_new_cb(context, session_keep)
    if SSL_CTX_set_alpn_protos(context, ALPN_LINK, ALPN_WIRE_BYTES) != 0:       # 0 is success, unlike its neighbours
        note_words("no memory for a TLS context")
        SSL_CTX_free(context)
        return NULL
    return context


cdef void tls_context_free(SSL_CTX *context) noexcept nogil:
    SSL_CTX_free(context)


# Connections ----------------------------------------------------------------------------------------------------------

cdef Conn *conn_new(const char *name, bint has_pin) noexcept nogil:
    cdef size_t name_bytes = strlen(name) + 1 if name != NULL else 0
    cdef Conn *conn = <Conn *>calloc(1, sizeof(Conn) + name_bytes)
    if conn == NULL:
        return NULL
    conn.has_pin = has_pin
    if name != NULL:
        conn.name = <char *>(conn + 1)
        memcpy(conn.name, name, name_bytes)
    return conn


cdef bint load_authorities(SSL_CTX *context, ClientState *state) noexcept nogil:
    """The system's, for the first conn that needs them: a client that pins is spared most of a megabyte."""
    cdef bint done = True
    CRYPTO_THREAD_write_lock(state.lock)
    if state.wants_authorities:
        done = SSL_CTX_set_default_verify_paths(context) == 1
        ERR_clear_error()               # some of the system's places may be empty
        state.wants_authorities = not done
    CRYPTO_THREAD_unlock(state.lock)
    return done


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


cdef SSL *tls_new(SSL_CTX *context, bint is_server, const char *server_name, bint has_pin) noexcept nogil:
    cdef ClientState *state
    cdef Conn *conn
    cdef BIO *bio
    cdef SSL *ssl
    ERR_clear_error()
    state = <ClientState *>SSL_CTX_get_ex_data(context, client_state_index)
    if is_server:
        server_name = NULL              # whom we serve is the visitor's word, not ours
    elif state == NULL or server_name == NULL or server_name[0] == 0:
        note_words("a client needs a client's context and the name of the server it calls")
        return NULL
    ssl = SSL_new(context)
    bio = BIO_new(bio_method)
    conn = conn_new(server_name, has_pin)
    if ssl == NULL or bio == NULL or conn == NULL:
        free(conn)
        BIO_free(bio)
        SSL_free(ssl)
        note_words("no memory for a TLS connection")
        return NULL
    BIO_set_data(bio, conn)             # freed with it
    SSL_set_bio(ssl, bio, bio)          # takes the one reference for both directions
    if is_server:
        SSL_set_accept_state(ssl)
        return ssl
    SSL_set_connect_state(ssl)
    if not expect_server(ssl, server_name, has_pin):
        note_error(ssl, "the server's name cannot be used")
        SSL_free(ssl)
        return NULL
    if not has_pin and not load_authorities(context, state):
        SSL_free(ssl)
        note_words("the system's certificate authorities cannot be read")
        return NULL
    session_offer(ssl, state, conn)
    return ssl


cdef void tls_free(SSL *ssl) noexcept nogil:
    if ssl == NULL:
        return
    # Freed without a closing alert, libssl would forbid to resume the session, and a link that broke with its TCP
    # connection is just the one that resumes. A session spoilt by a fatal alert is marked so already.
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
    SSL_free(ssl)


cdef int fail(Conn *conn, const char *words) noexcept nogil:
    conn.has_failed = 1
    note_words(words)
    return RC_TLS


cdef bint begin(Conn *conn, TlsIo *io) noexcept nogil:
    """Before each call into libssl; False when the conn is past use."""
    if conn.has_failed:
        note_words("the connection had failed before")
        return False
    if ERR_peek_last_error() != 0:      # left by somebody else on this thread; clearing costs more than looking
        ERR_clear_error()
    conn.io = io
    return True


cdef int end(Conn *conn, SSL *ssl, int rc) noexcept nogil:
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
    note_error(ssl, "the connection failed without a reason")
    return RC_TLS


cdef int tls_handshake(SSL *ssl, TlsIo *io) noexcept nogil:
    cdef Conn *conn = conn_of(ssl)
    cdef int rc
    if not begin(conn, io):
        return RC_TLS
    rc = end(conn, ssl, SSL_do_handshake(ssl))
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
    cdef Conn *conn = conn_of(ssl)
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
    cdef Conn *conn = conn_of(ssl)
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
    cdef Conn *conn = conn_of(ssl)
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
    cdef Conn *conn = conn_of(ssl)
    cdef int rc
    if conn.has_failed or not SSL_is_init_finished(ssl):
        return 1                        # there is nothing to close in order
    begin(conn, io)
    rc = SSL_shutdown(ssl)              # 0: sent, the peer's is not here yet
    rc = end(conn, ssl, rc if rc != 0 else 1)
    return RC_TLS if rc == RC_EOF else rc


cdef int module_init() noexcept nogil:
    global bio_method, client_state_index
    client_state_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, client_state_free)
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "spokes buffers")
    if client_state_index < 0 or bio_method == NULL:
        return -1
    BIO_meth_set_create(bio_method, bio_create)
    BIO_meth_set_destroy(bio_method, bio_destroy)
    BIO_meth_set_read(bio_method, bio_read)
    BIO_meth_set_write(bio_method, bio_write)
    BIO_meth_set_ctrl(bio_method, bio_ctrl)
    return 0


if module_init() != 0:
    raise ImportError("libssl cannot be initialised")


# Test doors: the functions above with Python answers ------------------------------------------------------------------

CODES = {"AGAIN": RC_AGAIN, "EOF": RC_EOF, "PIN": RC_PIN, "TLS": RC_TLS}
RECORD_BYTES_MAX = TLS_RECORD_BYTES_MAX
RECORD_OVERHEAD_BYTES = TLS_RECORD_OVERHEAD_BYTES


class TlsFailure(Exception):
    """`code` is one of CODES; the text is what tls_error_text says."""

    def __init__(self, code):
        super().__init__(tls_error_text().decode("ascii") if code == RC_TLS else "")
        self.code = code


cdef class TlsContext:
    """A context of one of three kinds: `links`, `visitors` (both with a chain and a key) or `client`."""
    cdef SSL_CTX *context
    cdef readonly bint is_server

    def __init__(self, str kind not None, *, bytes chain_pem=b"", bytes key_pem=b"", str ca_file=""):
        cdef bytes path = ca_file.encode()
        self.is_server = kind != "client"
        if self.is_server:
            self.context = tls_server_context(chain_pem, len(chain_pem), key_pem, len(key_pem), kind == "links")
        else:
            self.context = tls_client_context(path)
        if self.context == NULL:
            raise TlsFailure(RC_TLS)

    def __dealloc__(self):
        tls_context_free(self.context)


cdef class TlsEnd:
    """One conn with a buffer on each side: `feed` and `take` move ciphertext, `read` and `write` plaintext."""
    cdef SSL *ssl
    cdef bytes rx                       # fed and not taken by libssl yet
    cdef bytearray tx
    cdef size_t tx_bytes
    cdef readonly TlsContext context

    def __init__(self, TlsContext context not None, *, str server_name="", bint has_pin=False, size_t tx_size=65536):
        cdef bytes name = server_name.encode()
        self.ssl = tls_new(context.context, context.is_server, name, has_pin)
        if self.ssl == NULL:
            raise TlsFailure(RC_TLS)
        self.context = context
        self.rx = b""
        self.tx = bytearray(tx_size)

    def __dealloc__(self):
        tls_free(self.ssl)

    cdef void begin(self, TlsIo *io) noexcept:
        io.rx = self.rx
        io.rx_bytes = len(self.rx)
        io.rx_taken = 0
        io.tx = <uint8_t *><char *>self.tx
        io.tx_size = len(self.tx)
        io.tx_bytes = self.tx_bytes

    cdef end(self, TlsIo *io, ssize_t rc):
        self.rx = self.rx[io.rx_taken:]
        self.tx_bytes = io.tx_bytes
        if rc < 0:
            raise TlsFailure(rc)
        return rc

    def feed(self, bytes ciphertext not None):
        self.rx += ciphertext

    def take(self, size_t n=1 << 30):
        """The oldest n bytes of ciphertext to send."""
        cdef bytes taken = bytes(self.tx[:min(n, self.tx_bytes)])
        self.tx_bytes -= len(taken)
        self.tx = self.tx[len(taken):] + bytearray(len(taken))
        return taken

    def trim(self):
        """Gives the empty buffers back, for measuring what libssl itself keeps."""
        self.tx = bytearray(0)

    @property
    def rx_bytes(self):
        return len(self.rx)

    def handshake(self):
        cdef TlsIo io
        cdef int rc
        self.begin(&io)
        with nogil:
            rc = tls_handshake(self.ssl, &io)
        return self.end(&io, rc) == 1

    def read(self, size_t n=TLS_RECORD_BYTES_MAX):
        cdef bytearray dst = bytearray(n)
        cdef uint8_t *dst_ptr = <uint8_t *><char *>dst
        cdef TlsIo io
        cdef ssize_t rc
        self.begin(&io)
        with nogil:
            rc = tls_read(self.ssl, &io, dst_ptr, n)
        return bytes(dst[:self.end(&io, rc)])

    def write(self, bytes plaintext not None):
        cdef const uint8_t *src = plaintext
        cdef size_t src_bytes = len(plaintext)
        cdef TlsIo io
        cdef ssize_t rc
        self.begin(&io)
        with nogil:
            rc = tls_write(self.ssl, &io, src, src_bytes)
        return self.end(&io, rc)

    def shutdown(self):
        cdef TlsIo io
        self.begin(&io)
        return self.end(&io, tls_shutdown(self.ssl, &io)) == 1

    def end_of_input(self):
        return tls_end_of_input(self.ssl)

    def check_pin(self, bytes pin_sha256 not None):
        if len(pin_sha256) != 32:
            raise ValueError("a pin is 32 bytes")
        return tls_check_pin(self.ssl, pin_sha256)

    def set_record_count(self, uint64_t record_count):
        """As if so many records had been written under the present key."""
        conn_of(self.ssl).record_count = record_count

    @property
    def is_resumed(self):
        return bool(tls_is_resumed(self.ssl))

    @property
    def has_link_alpn(self):
        return bool(tls_has_link_alpn(self.ssl))

    @property
    def has_pending(self):
        return bool(tls_has_pending(self.ssl))


def measure_one_way(TlsEnd source not None, TlsEnd target not None, size_t write_bytes, size_t total_bytes):
    """Moves total_bytes through tls_write, one buffer and tls_read; for timing, so without Python in between."""
    cdef size_t wire_size = write_bytes + (write_bytes // TLS_RECORD_BYTES_MAX + 2) * TLS_RECORD_OVERHEAD_BYTES
    cdef uint8_t *plain = <uint8_t *>calloc(1, write_bytes)
    cdef uint8_t *wire = <uint8_t *>malloc(wire_size)
    cdef uint8_t *got = <uint8_t *>malloc(write_bytes)
    cdef size_t sent = 0, received = 0
    cdef ssize_t rc = 1
    cdef TlsIo out, into
    with nogil:
        while sent < total_bytes and rc > 0:
            out.rx_bytes = out.rx_taken = out.tx_bytes = 0
            out.tx = wire
            out.tx_size = wire_size
            rc = tls_write(source.ssl, &out, plain, write_bytes)
            if rc <= 0:
                break
            sent += <size_t>rc
            into.rx = wire
            into.rx_bytes = out.tx_bytes
            into.rx_taken = into.tx_bytes = into.tx_size = 0
            while into.rx_taken < into.rx_bytes and rc > 0:
                rc = tls_read(target.ssl, &into, got, write_bytes)
                received += <size_t>rc if rc > 0 else 0
    free(plain)
    free(wire)
    free(got)
    if rc < 0:
        raise TlsFailure(rc)
    return received
