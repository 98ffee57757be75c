# What is used of libssl and libcrypto: OpenSSL 3.0 and later; declarations alone.
from spokes._fastpath.base.types cimport uint64_t

cdef extern from "openssl/ssl.h" nogil:
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass

cdef extern from *:
    """
    #include <stdio.h>
    #include <openssl/bio.h>
    #include <openssl/core_names.h>
    #include <openssl/crypto.h>
    #include <openssl/err.h>
    #include <openssl/evp.h>
    #include <openssl/params.h>
    #include <openssl/pem.h>
    #include <openssl/rand.h>
    #include <openssl/ssl.h>
    #include <openssl/x509.h>
    #include <openssl/x509_vfy.h>
    #include <openssl/x509v3.h>
    typedef STACK_OF(X509) X509_STACK;
    """
    int snprintf(char *dst, size_t dst_bytes, const char *format, ...) nogil

    ctypedef struct BIO
    ctypedef struct BIO_METHOD
    ctypedef struct CRYPTO_EX_DATA
    ctypedef struct CRYPTO_RWLOCK
    ctypedef struct EVP_CIPHER
    ctypedef struct EVP_CIPHER_CTX
    ctypedef struct EVP_MAC_CTX
    ctypedef struct EVP_MD
    ctypedef struct EVP_PKEY
    ctypedef struct SSL_METHOD
    ctypedef struct SSL_SESSION
    ctypedef struct X509
    ctypedef struct X509_PUBKEY
    ctypedef struct X509_STACK
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
    int ERR_LIB_SSL, ERR_LIB_PEM, SSL_R_CERTIFICATE_VERIFY_FAILED, SSL_R_PRIVATE_KEY_MISMATCH, PEM_R_NO_START_LINE
    const char *ERR_reason_error_string(unsigned long code) nogil

    CRYPTO_RWLOCK *CRYPTO_THREAD_lock_new() nogil
    int CRYPTO_THREAD_read_lock(CRYPTO_RWLOCK *lock) nogil
    int CRYPTO_THREAD_write_lock(CRYPTO_RWLOCK *lock) nogil
    int CRYPTO_THREAD_unlock(CRYPTO_RWLOCK *lock) nogil
    void CRYPTO_THREAD_lock_free(CRYPTO_RWLOCK *lock) nogil
    int CRYPTO_memcmp(const void *a, const void *b, size_t n) nogil
    void OPENSSL_free(void *block) nogil
    void OPENSSL_cleanse(void *block, size_t n) nogil
    void *OPENSSL_memdup(const void *src, size_t n) nogil
    int RAND_bytes(unsigned char *dst, int n) nogil
    EVP_CIPHER *EVP_CIPHER_fetch(void *libctx, const char *name, const char *properties) nogil
    int EVP_EncryptInit_ex(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, void *engine, const unsigned char *key,
                           const unsigned char *iv) nogil
    int EVP_DecryptInit_ex(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, void *engine, const unsigned char *key,
                           const unsigned char *iv) nogil
    ctypedef struct OSSL_PARAM:
        pass
    OSSL_PARAM OSSL_PARAM_construct_octet_string(const char *name, void *src, size_t src_bytes) nogil
    OSSL_PARAM OSSL_PARAM_construct_utf8_string(const char *name, char *text, size_t text_bytes) nogil
    OSSL_PARAM OSSL_PARAM_construct_end() nogil
    const char *OSSL_MAC_PARAM_KEY
    const char *OSSL_MAC_PARAM_DIGEST
    int EVP_MAC_CTX_set_params(EVP_MAC_CTX *context, const OSSL_PARAM *parameters) nogil
    int EVP_Digest(const void *src, size_t src_bytes, unsigned char *dst, unsigned int *dst_bytes, const EVP_MD *md,
                   void *engine) nogil
    const EVP_MD *EVP_sha256() nogil
    void EVP_PKEY_free(EVP_PKEY *key) nogil

    int PEM_read_bio(BIO *bio, char **name, char **header, unsigned char **der, long *der_bytes) nogil
    EVP_PKEY *PEM_read_bio_PrivateKey(BIO *bio, EVP_PKEY **out,
                                      int (*password)(char *, int, int, void *) noexcept nogil, void *arg) nogil
    int i2d_PrivateKey(const EVP_PKEY *key, unsigned char **out) nogil
    EVP_PKEY *d2i_PrivateKey(int type, EVP_PKEY **out, const unsigned char **src, long src_bytes) nogil
    int EVP_PKEY_EC, EVP_PKEY_RSA
    int EVP_PKEY_get_base_id(const EVP_PKEY *key) nogil
    int EVP_PKEY_up_ref(EVP_PKEY *key) nogil
    X509 *d2i_X509(X509 **out, const unsigned char **src, long src_bytes) nogil
    void X509_free(X509 *certificate) nogil
    X509_STACK *sk_X509_new_null() nogil
    int sk_X509_push(X509_STACK *stack, X509 *certificate) nogil
    void sk_X509_pop_free(X509_STACK *stack, void (*free)(X509 *)) nogil
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

    long SSL_CTX_set_timeout(SSL_CTX *context, long timeout_s) nogil
    int SSL_CTX_set1_groups_list(SSL_CTX *context, const char *names) nogil
    int SSL_CTX_set_tlsext_ticket_key_evp_cb(SSL_CTX *context, int (*key)(
        SSL *, unsigned char *, unsigned char *, EVP_CIPHER_CTX *, EVP_MAC_CTX *, int) noexcept nogil) nogil
    long SSL_CTX_set_tlsext_status_cb(SSL_CTX *context, int (*status)(SSL *, void *) noexcept nogil) nogil
    long SSL_set_tlsext_status_ocsp_resp(SSL *ssl, unsigned char *response, long response_bytes) nogil

    SSL *SSL_new(SSL_CTX *context) nogil
    int SSL_use_cert_and_key(SSL *ssl, X509 *leaf, EVP_PKEY *key, X509_STACK *chain, int replaces) nogil
    int SSL_set_session_id_context(SSL *ssl, const unsigned char *src, unsigned int src_bytes) nogil
    int SSL_set_alpn_protos(SSL *ssl, const unsigned char *protocols, unsigned int n) nogil
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
