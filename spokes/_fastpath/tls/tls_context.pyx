"""TLS contexts: what all conns of one kind share; the keys of tickets; and the sessions that a client keeps to resume.

Owns: protocol versions, cipher suites, ALPN, ticket keys, the sessions of a client's context.
Bound: SESSION_COUNT_MAX sessions per client context, TICKET_KEY_COUNT_MAX ticket keys.
Fails: NULL with words of tls_error_text.
Source: RFC 8446 (TLS 1.3), RFC 7301 (ALPN), RFC 5077 (tickets), RFC 6066 §8 (OCSP); Mozilla's server side TLS
guidelines 5.7, intermediate profile.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, strcmp, strlen

from spokes._fastpath.tls.certificate cimport certificate_staple
from spokes._fastpath.tls.openssl cimport (
    CRYPTO_EX_DATA, CRYPTO_RWLOCK, CRYPTO_THREAD_lock_free, CRYPTO_THREAD_lock_new, CRYPTO_THREAD_read_lock,
    CRYPTO_THREAD_unlock, CRYPTO_THREAD_write_lock, ERR_clear_error, EVP_CIPHER, EVP_CIPHER_CTX, EVP_CIPHER_fetch,
    EVP_DecryptInit_ex, EVP_EncryptInit_ex, EVP_MAC_CTX, EVP_MAC_CTX_set_params, OPENSSL_cleanse, OPENSSL_memdup,
    OSSL_MAC_PARAM_DIGEST, OSSL_MAC_PARAM_KEY, OSSL_PARAM, OSSL_PARAM_construct_end, OSSL_PARAM_construct_octet_string,
    OSSL_PARAM_construct_utf8_string, RAND_bytes, SSL, SSL_AD_NO_APPLICATION_PROTOCOL, SSL_CLIENT_HELLO_ERROR,
    SSL_CLIENT_HELLO_SUCCESS, SSL_CTX, SSL_CTX_free, SSL_CTX_get0_param, SSL_CTX_get_ex_data, SSL_CTX_get_ex_new_index,
    SSL_CTX_load_verify_file, SSL_CTX_new, SSL_CTX_sess_set_new_cb, SSL_CTX_set1_groups_list, SSL_CTX_set_alpn_protos,
    SSL_CTX_set_alpn_select_cb, SSL_CTX_set_cipher_list, SSL_CTX_set_ciphersuites, SSL_CTX_set_client_hello_cb,
    SSL_CTX_set_default_verify_paths, SSL_CTX_set_ex_data, SSL_CTX_set_min_proto_version, SSL_CTX_set_mode,
    SSL_CTX_set_num_tickets, SSL_CTX_set_options, SSL_CTX_set_session_cache_mode, SSL_CTX_set_timeout,
    SSL_CTX_set_tlsext_status_cb, SSL_CTX_set_tlsext_ticket_key_evp_cb, SSL_CTX_set_verify, SSL_METHOD,
    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_NO_AUTO_CHAIN,
    SSL_MODE_RELEASE_BUFFERS, SSL_OP_CIPHER_SERVER_PREFERENCE, SSL_OP_NO_COMPRESSION, SSL_OP_NO_RENEGOTIATION,
    SSL_OP_PRIORITIZE_CHACHA, SSL_SESSION, SSL_SESSION_free, SSL_SESSION_is_resumable, SSL_SESSION_up_ref,
    SSL_SESS_CACHE_CLIENT, SSL_SESS_CACHE_NO_INTERNAL, SSL_SESS_CACHE_OFF, SSL_TLSEXT_ERR_ALERT_FATAL,
    SSL_TLSEXT_ERR_NOACK, SSL_TLSEXT_ERR_OK, SSL_VERIFY_PEER, SSL_client_hello_get0_ext, SSL_get_SSL_CTX,
    SSL_set_alpn_protos, SSL_version, SSL_set_session, SSL_set_tlsext_status_ocsp_resp, TLS1_2_VERSION, TLS1_3_VERSION,
    TLSEXT_TYPE_application_layer_protocol_negotiation, TLS_client_method, TLS_server_method,
    X509_VERIFY_PARAM_set_flags, X509_V_FLAG_PARTIAL_CHAIN,
)
from spokes._fastpath.tls.tls_words cimport tls_note_error, tls_note_words

cdef extern from "stdio.h" nogil:
    int snprintf(char *dst, size_t n, const char *format, ...)

cdef enum:
    SESSION_COUNT_MAX = 64              # per client context; the one used longest ago makes room
    TICKET_COUNT_LINK = 1               # a client keeps one session per server
    TICKET_COUNT_VISITOR = 2            # browsers open several conns; libssl's default
    TICKET_NAME_BYTES = 16
    TICKET_SECRET_BYTES = 32
    TICKET_IV_BYTES = 16
    SESSION_LIFETIME_S = 86400          # RFC 8446 §4.6.1 allows seven times as much

# The first measured fastest with AES instructions; a client without them may put ChaCha first.
cdef const char *CIPHERS_TLS13 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# TLS 1.2: forward secrecy and authenticated encryption only.
cdef const char *CIPHERS_TLS12 = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
cdef const char *GROUPS = b"X25519:P-256:P-384"
ALPN_LINK = b"\x08spokes/1"
cdef const unsigned char *ALPN_VISITOR = b"\x08http/1.1"
cdef const unsigned char *ALPN_BY_AUTHORITY = b"\x08spokes/1\x0bspokes-ca/1"

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

cdef struct ServerState:                # what a server context carries besides
    CRYPTO_RWLOCK *lock
    int ticket_key_count
    uint8_t ticket_keys[TICKET_KEY_COUNT_MAX * TICKET_KEY_BYTES]

cdef int client_state_index = -1        # of a context's ex_data
cdef int server_state_index = -1
cdef EVP_CIPHER *ticket_cipher = NULL   # fetched at import: a look-up for each ticket costs more than sealing it


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
    cdef TlsConn *conn = conn_of(ssl)
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


cdef void session_offer(SSL *ssl, ClientState *state, const TlsConn *conn) noexcept nogil:
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


# Contexts -------------------------------------------------------------------------------------------------------------

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
        tls_note_error(NULL, "no memory for a TLS context")
        return NULL
    if (
        not SSL_CTX_set_min_proto_version(context, version_min)
        or not SSL_CTX_set_ciphersuites(context, CIPHERS_TLS13)
        or not SSL_CTX_set_cipher_list(context, CIPHERS_TLS12)
        or not SSL_CTX_set1_groups_list(context, GROUPS)
    ):
        tls_note_error(NULL, "the TLS library has none of the cipher suites or groups wanted")
        SSL_CTX_free(context)
        return NULL
    SSL_CTX_set_mode(
        context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
    )
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION)
    return context


cdef bint context_carry(SSL_CTX *context, int index, void *state, CRYPTO_RWLOCK *lock) noexcept nogil:
    """The state is the context's, and freed with it. False: no memory, and neither is there any more."""
    if state != NULL and lock != NULL and SSL_CTX_set_ex_data(context, index, state) == 1:
        return True
    CRYPTO_THREAD_lock_free(lock)
    free(state)
    tls_note_words("no memory for a TLS context")
    SSL_CTX_free(context)
    return False


cdef void server_state_free(void *parent, void *data, CRYPTO_EX_DATA *ex_data, int index, long argl,
                            void *argp) noexcept nogil:
    cdef ServerState *state = <ServerState *>data
    if state == NULL:
        return
    CRYPTO_THREAD_lock_free(state.lock)
    OPENSSL_cleanse(state, sizeof(ServerState))
    free(state)


cdef int ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                    int is_sealing) noexcept nogil:
    """libssl's question for the key of a ticket. 1: here it is; 2: the same, and a new ticket is due; 0: none."""
    cdef ServerState *state = <ServerState *>SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), server_state_index)
    cdef uint8_t key[TICKET_KEY_BYTES]
    cdef OSSL_PARAM parameters[3]
    cdef int found = -1
    cdef int i, done
    CRYPTO_THREAD_read_lock(state.lock)
    for i in range(1 if is_sealing else state.ticket_key_count):
        if is_sealing or memcmp(state.ticket_keys + i * TICKET_KEY_BYTES, name, TICKET_NAME_BYTES) == 0:
            memcpy(key, state.ticket_keys + i * TICKET_KEY_BYTES, TICKET_KEY_BYTES)
            found = i
            break
    CRYPTO_THREAD_unlock(state.lock)
    if found < 0:
        return 0
    parameters[0] = OSSL_PARAM_construct_octet_string(
        OSSL_MAC_PARAM_KEY, key + TICKET_NAME_BYTES + TICKET_SECRET_BYTES, TICKET_SECRET_BYTES)
    parameters[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA256", 0)
    parameters[2] = OSSL_PARAM_construct_end()
    if is_sealing:
        memcpy(name, key, TICKET_NAME_BYTES)
        done = RAND_bytes(iv, TICKET_IV_BYTES) == 1 \
            and EVP_EncryptInit_ex(cipher, ticket_cipher, NULL, key + TICKET_NAME_BYTES, iv) == 1
    else:
        done = EVP_DecryptInit_ex(cipher, ticket_cipher, NULL, key + TICKET_NAME_BYTES, iv) == 1
    done = done and EVP_MAC_CTX_set_params(mac, parameters) == 1
    OPENSSL_cleanse(key, sizeof(key))
    if not done:
        return -1
    # A session of TLS 1.3 is offered once (RFC 8446, appendix C.4): whoever resumes gets the next ticket.
    return 2 if found > 0 or SSL_version(ssl) == TLS1_3_VERSION else 1


cdef int staple(SSL *ssl, void *arg) noexcept nogil:
    """A client asks for the certificate's state: the response that lay beside it."""
    cdef TlsConn *conn = conn_of(ssl)
    cdef unsigned char *copy
    if conn.certificate == NULL:
        return SSL_TLSEXT_ERR_NOACK
    copy = <unsigned char *>OPENSSL_memdup(certificate_staple(conn.certificate), conn.certificate.staple_bytes)
    if copy == NULL:
        return SSL_TLSEXT_ERR_NOACK
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, conn.certificate.staple_bytes)   # libssl's now
    return SSL_TLSEXT_ERR_OK


cdef SSL_CTX *tls_server_context(bint for_links) noexcept nogil:
    cdef SSL_CTX *context
    cdef ServerState *state
    ERR_clear_error()
    context = context_new(TLS_server_method(), TLS1_3_VERSION if for_links else TLS1_2_VERSION)
    if context == NULL:
        return NULL
    state = <ServerState *>calloc(1, sizeof(ServerState))
    if state != NULL:
        state.lock = CRYPTO_THREAD_lock_new()
        state.ticket_key_count = 1
    if not context_carry(context, server_state_index, state, state.lock if state != NULL else NULL):
        return NULL
    if RAND_bytes(state.ticket_keys, TICKET_KEY_BYTES) != 1:
        tls_note_words("the TLS library has no random bytes")
        SSL_CTX_free(context)
        return NULL
    SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA)
    # What is sent is what the operator gave; otherwise each handshake would search for a chain that is not there.
    SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN)
    # Tickets carry the session, so nothing is kept here for a visitor who may never return.
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF)
    SSL_CTX_set_timeout(context, SESSION_LIFETIME_S)
    SSL_CTX_set_num_tickets(context, TICKET_COUNT_LINK if for_links else TICKET_COUNT_VISITOR)
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ticket_key)
    SSL_CTX_set_tlsext_status_cb(context, staple)
    SSL_CTX_set_alpn_select_cb(context, select_alpn, <void *>ALPN_LINK if for_links else NULL)
    if for_links:
        SSL_CTX_set_client_hello_cb(context, require_alpn, NULL)
    return context


cdef void tls_set_ticket_keys(SSL_CTX *context, const uint8_t *keys, int count) noexcept nogil:
    cdef ServerState *state = <ServerState *>SSL_CTX_get_ex_data(context, server_state_index)
    CRYPTO_THREAD_write_lock(state.lock)
    memcpy(state.ticket_keys, keys, <size_t>count * TICKET_KEY_BYTES)
    state.ticket_key_count = count
    CRYPTO_THREAD_unlock(state.lock)


cdef SSL_CTX *tls_client_context(const char *ca_file) noexcept nogil:
    cdef ClientState *state
    cdef SSL_CTX *context
    ERR_clear_error()
    context = context_new(TLS_client_method(), TLS1_3_VERSION)
    if context == NULL:
        return NULL
    if ca_file[0] != 0:
        if SSL_CTX_load_verify_file(context, ca_file) != 1:
            tls_note_words("no certificate authority can be read from the file given")
            SSL_CTX_free(context)
            return NULL
        # Whoever names a file trusts what is in it, be it an authority or just the server's own certificate.
        X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN)
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL)
    state = <ClientState *>calloc(1, sizeof(ClientState))
    if state != NULL:
        state.wants_authorities = ca_file[0] == 0
        state.lock = CRYPTO_THREAD_lock_new()
    if not context_carry(context, client_state_index, state, state.lock if state != NULL else NULL):
        return NULL
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL)
    SSL_CTX_sess_set_new_cb(context, session_keep)
    if SSL_CTX_set_alpn_protos(context, ALPN_LINK, ALPN_WIRE_BYTES) != 0:       # 0 is success, unlike its neighbours
        tls_note_words("no memory for a TLS context")
        SSL_CTX_free(context)
        return NULL
    return context


cdef void tls_context_free(SSL_CTX *context) noexcept nogil:
    SSL_CTX_free(context)


cdef bint is_client_context(SSL_CTX *context) noexcept nogil:
    return SSL_CTX_get_ex_data(context, client_state_index) != NULL


cdef bint client_prepare(SSL_CTX *context, SSL *ssl, bint has_pin) noexcept nogil:
    """False: its authorities cannot be read, or no memory."""
    cdef ClientState *state = <ClientState *>SSL_CTX_get_ex_data(context, client_state_index)
    if not has_pin and not load_authorities(context, state):
        tls_note_words("the system's certificate authorities cannot be read")
        return False
    # 0 is success, unlike its neighbours.
    if not has_pin and SSL_set_alpn_protos(ssl, ALPN_BY_AUTHORITY, ALPN_BY_AUTHORITY_WIRE_BYTES) != 0:
        tls_note_words("no memory for a TLS connection")
        return False
    session_offer(ssl, state, conn_of(ssl))
    return True


cdef bint client_ask_worker(SSL *ssl, uint8_t worker) noexcept nogil:
    """For links between nodes: docs/protocol.md, "Links between nodes"."""
    cdef char protocols[ALPN_OF_WORKER_WIRE_BYTES + 1]
    snprintf(protocols, sizeof(protocols), b"\x08spokes/1\x11spokes-worker/%03u", <unsigned>worker)
    if SSL_set_alpn_protos(ssl, <const unsigned char *>protocols, ALPN_OF_WORKER_WIRE_BYTES) == 0:  # 0 is success
        return True
    tls_note_words("no memory for a TLS connection")
    return False


cdef int module_init() noexcept nogil:
    global client_state_index, server_state_index, ticket_cipher
    client_state_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, client_state_free)
    server_state_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, server_state_free)
    ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL)
    return 0 if client_state_index >= 0 and server_state_index >= 0 and ticket_cipher != NULL else -1


if module_init() != 0:
    raise ImportError("libssl cannot be initialised")
