"""Certificates: kept as DER; those used last also as libssl wants them, which takes several times as much.

Owns: DER of chain, key and OCSP response of each certificate, and the list of those that are parsed.
Bound: PEM_BYTES_MAX and CERTIFICATE_COUNT_MAX a pair, CERTIFICATE_PARSED_MAX parsed ones.
Fails: NULL or False with words of tls_error_text.
Measured: a P-256 leaf with its key takes 0.7 KB as DER and 6.9 KB parsed; to parse it took 0.3 ms of a thread on a busy
machine, which the first handshake under a name pays.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from spokes._fastpath.base.types cimport atomic_add, atomic_sub, atomic_sub_acq
from spokes._fastpath.tls.openssl cimport (
    BIO, CRYPTO_RWLOCK, BIO_free, BIO_new_mem_buf, CRYPTO_THREAD_lock_new, CRYPTO_THREAD_read_lock,
    CRYPTO_THREAD_unlock, CRYPTO_THREAD_write_lock, ERR_GET_LIB, ERR_GET_REASON, ERR_LIB_PEM, ERR_clear_error,
    ERR_peek_last_error, EVP_PKEY_EC, EVP_PKEY_RSA, EVP_PKEY_free, EVP_PKEY_get_base_id, OPENSSL_cleanse, OPENSSL_free,
    PEM_R_NO_START_LINE, PEM_read_bio, PEM_read_bio_PrivateKey, SSL_R_PRIVATE_KEY_MISMATCH, SSL_free, SSL_new,
    SSL_use_cert_and_key, X509_free, d2i_PrivateKey, d2i_X509, i2d_PrivateKey, sk_X509_new_null, sk_X509_pop_free,
    sk_X509_push,
)
from spokes._fastpath.tls.tls_words cimport tls_note_error, tls_note_words

cdef extern from "string.h" nogil:
    int strcmp(const char *a, const char *b)
    int strncmp(const char *a, const char *b, size_t n)
    const char *strstr(const char *where, const char *what)

cdef enum:
    PEM_BYTES_MAX = 1 << 20
    STAPLE_BYTES_MAX = 16384

cdef CRYPTO_RWLOCK *lock = CRYPTO_THREAD_lock_new()     # of the process, as the list
cdef Certificate *newest = NULL
cdef Certificate *oldest = NULL
cdef uint64_t parsed_count = 0          # atomic, for those who only read it
cdef uint8_t *known_tail = NULL         # of the chain that was found good last, behind its leaf
cdef size_t known_tail_bytes = 0
cdef uint64_t certificates_live = 0     # atomic; of the process, so that a reference that was forgotten is seen

if lock == NULL:
    raise ImportError("no memory for a lock")


# --- from PEM to DER --------------------------------------------------------------------------------------------------

cdef struct Der:
    unsigned char *src                  # libcrypto's
    long bytes


cdef int refuse_password(char *dst, int dst_bytes, int is_writing, void *arg) noexcept nogil:
    """Without it libcrypto would ask for the password of an encrypted key on the terminal."""
    return -1


cdef bint is_certificate(const char *block_name) noexcept nogil:
    return strstr(block_name, b"CERTIFICATE") != NULL and strncmp(block_name, b"CERTIFICATE REQ", 15) != 0


cdef uint32_t read_chain(const uint8_t *pem, size_t pem_bytes, Der *chain) noexcept nogil:
    """How many certificates there are, the leaf first; 0 = refused."""
    cdef BIO *bio = BIO_new_mem_buf(pem, <int>pem_bytes)
    cdef char *name = NULL
    cdef char *header = NULL
    cdef Der der
    cdef uint32_t count = 0
    cdef unsigned long code
    if bio == NULL:
        tls_note_words("no memory for a certificate")
        return 0
    while PEM_read_bio(bio, &name, &header, &der.src, &der.bytes) == 1:
        if is_certificate(name) and count < CERTIFICATE_COUNT_MAX:
            chain[count] = der
            der.src = NULL
            count += 1
        elif is_certificate(name):
            count += 1
        OPENSSL_free(name)
        OPENSSL_free(header)
        OPENSSL_free(der.src)
    BIO_free(bio)
    code = ERR_peek_last_error()
    if count == 0:
        tls_note_words("no certificate found in the chain")
    elif count > CERTIFICATE_COUNT_MAX:
        drop_chain(chain, CERTIFICATE_COUNT_MAX)
        tls_note_words("the chain has more certificates than twelve")
        count = 0
    elif ERR_GET_LIB(code) != ERR_LIB_PEM or ERR_GET_REASON(code) != PEM_R_NO_START_LINE:
        drop_chain(chain, count)
        tls_note_words("a certificate of the chain cannot be read")
        count = 0
    ERR_clear_error()
    return count


cdef void drop_chain(Der *chain, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        OPENSSL_free(chain[i].src)
        chain[i].src = NULL


cdef int read_plain_key(const uint8_t *pem, size_t pem_bytes, Der *out) noexcept nogil:
    """A key whose block says its type is taken as it is, which is several times as fast; 0 = of another form."""
    cdef BIO *bio = BIO_new_mem_buf(pem, <int>pem_bytes)
    cdef char *name = NULL
    cdef char *header = NULL
    cdef int kind = 0
    if bio == NULL:
        return 0
    while kind == 0 and PEM_read_bio(bio, &name, &header, &out.src, &out.bytes) == 1:
        if header[0] == 0:              # else it is locked with a password
            if strcmp(name, b"EC PRIVATE KEY") == 0:
                kind = EVP_PKEY_EC
            elif strcmp(name, b"RSA PRIVATE KEY") == 0:
                kind = EVP_PKEY_RSA
        if kind == 0:
            OPENSSL_cleanse(out.src, <size_t>out.bytes)
            OPENSSL_free(out.src)
        OPENSSL_free(name)
        OPENSSL_free(header)
    BIO_free(bio)
    ERR_clear_error()
    return kind


cdef int read_key(const uint8_t *pem, size_t pem_bytes, Der *out) noexcept nogil:
    """The key's type, 0 = refused."""
    cdef BIO *bio = BIO_new_mem_buf(pem, <int>pem_bytes)
    cdef EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, refuse_password, NULL) if bio != NULL else NULL
    cdef int kind
    BIO_free(bio)
    if key == NULL:
        tls_note_words("no usable private key found (a key with a password cannot be used)")
        return 0
    kind = EVP_PKEY_get_base_id(key)
    out.src = NULL
    out.bytes = i2d_PrivateKey(key, &out.src)
    EVP_PKEY_free(key)
    if out.bytes <= 0:
        tls_note_words("the private key is of a kind not used here")
        return 0
    return kind


cdef uint8_t *key_of(const Certificate *certificate) noexcept nogil:
    cdef uint8_t *at = certificate.parts
    cdef uint32_t i
    for i in range(certificate.count):
        at += certificate.part_bytes[i]
    return at


cdef const uint8_t *certificate_staple(const Certificate *certificate) noexcept nogil:
    return key_of(certificate) + certificate.key_bytes


# --- parsed -----------------------------------------------------------------------------------------------------------

cdef void parsed_release(Parsed *parsed) noexcept nogil:
    if parsed == NULL or atomic_sub_acq(&parsed.references, 1) != 1:
        return
    X509_free(parsed.leaf)
    EVP_PKEY_free(parsed.key)
    sk_X509_pop_free(parsed.chain, X509_free)
    free(parsed)


cdef Parsed *parse(const Certificate *certificate, uint32_t count) noexcept nogil:
    """The key and the first so many certificates."""
    cdef Parsed *parsed = <Parsed *>calloc(1, sizeof(Parsed))
    cdef const unsigned char *at = certificate.parts
    cdef const unsigned char *following
    cdef X509 *one
    cdef uint32_t i
    if parsed == NULL:
        return NULL
    parsed.references = 1
    parsed.chain = sk_X509_new_null()
    for i in range(count):
        following = at + certificate.part_bytes[i]
        one = d2i_X509(NULL, &at, certificate.part_bytes[i])
        at = following
        if i == 0:
            parsed.leaf = one
        elif one != NULL and sk_X509_push(parsed.chain, one) <= 0:
            X509_free(one)
            one = NULL
        if one == NULL or parsed.chain == NULL:
            tls_note_words("a certificate of the chain cannot be read")
            parsed_release(parsed)
            return NULL
    at = key_of(certificate)
    parsed.key = d2i_PrivateKey(certificate.key_type, NULL, &at, certificate.key_bytes)
    if parsed.key == NULL:
        tls_note_error(NULL, "the private key cannot be read")
        parsed_release(parsed)
        return NULL
    return parsed


cdef void unlink(Certificate *certificate) noexcept nogil:
    global newest, oldest
    if certificate.newer != NULL:
        certificate.newer.older = certificate.older
    else:
        newest = certificate.older
    if certificate.older != NULL:
        certificate.older.newer = certificate.newer
    else:
        oldest = certificate.newer
    certificate.newer = certificate.older = NULL


cdef void link_newest(Certificate *certificate) noexcept nogil:
    global newest, oldest
    certificate.older = newest
    certificate.newer = NULL
    if newest != NULL:
        newest.newer = certificate
    newest = certificate
    if oldest == NULL:
        oldest = certificate


cdef Parsed *forget(Certificate *certificate) noexcept nogil:
    """Under the lock: what the caller releases once it has let go of the lock."""
    cdef Parsed *parsed = certificate.parsed
    if parsed != NULL:
        unlink(certificate)
        certificate.parsed = NULL
        atomic_sub(&parsed_count, 1)
    return parsed


cdef Parsed *parsed_hold(Certificate *certificate) noexcept nogil:
    """With a reference; parsed again where it is not among those used last."""
    cdef Parsed *parsed
    cdef Parsed *made
    cdef Parsed *left = NULL
    CRYPTO_THREAD_write_lock(lock)
    parsed = certificate.parsed
    if parsed != NULL:
        atomic_add(&parsed.references, 1)
        if newest != certificate:
            unlink(certificate)
            link_newest(certificate)
    CRYPTO_THREAD_unlock(lock)
    if parsed != NULL:
        return parsed
    made = parse(certificate, certificate.count)        # without the lock: others go on
    if made == NULL:
        return NULL
    CRYPTO_THREAD_write_lock(lock)
    if certificate.parsed == NULL:
        atomic_add(&made.references, 1)
        certificate.parsed = made
        link_newest(certificate)
        atomic_add(&parsed_count, 1)
        if parsed_count > CERTIFICATE_PARSED_MAX:
            left = forget(oldest)
    CRYPTO_THREAD_unlock(lock)
    parsed_release(left)
    return made


cdef bint certificate_use(Certificate *certificate, SSL *ssl) noexcept nogil:
    cdef Parsed *parsed = parsed_hold(certificate)
    cdef bint done
    if parsed == NULL:
        return False
    done = SSL_use_cert_and_key(ssl, parsed.leaf, parsed.key, parsed.chain, 1) == 1
    parsed_release(parsed)
    if not done:
        tls_note_error(NULL, "certificate refused")
    return done


# --- life -------------------------------------------------------------------------------------------------------------

cdef Certificate *assemble(const Der *chain, uint32_t count, const Der *key, int key_type, const uint8_t *scope,
                           const uint8_t *staple, size_t staple_bytes) noexcept nogil:
    cdef size_t part_bytes = key.bytes + staple_bytes
    cdef Certificate *certificate
    cdef uint8_t *at
    cdef uint32_t i
    for i in range(count):
        part_bytes += chain[i].bytes
    certificate = <Certificate *>calloc(1, sizeof(Certificate) + part_bytes)
    if certificate == NULL:
        tls_note_words("no memory for a certificate")
        return NULL
    certificate.references = 1
    certificate.key_type = key_type
    certificate.count = count
    certificate.key_bytes = <uint32_t>key.bytes
    certificate.staple_bytes = <uint32_t>staple_bytes
    memcpy(certificate.scope, scope, CERTIFICATE_SCOPE_BYTES)
    memcpy(&certificate.coverage, scope, sizeof(certificate.coverage))
    certificate.coverage |= 1           # 0 is for visitors without TLS
    certificate.parts = at = <uint8_t *>(certificate + 1)
    for i in range(count):
        certificate.part_bytes[i] = <uint32_t>chain[i].bytes
        memcpy(at, chain[i].src, chain[i].bytes)
        at += chain[i].bytes
    memcpy(at, key.src, key.bytes)
    if staple_bytes:
        memcpy(at + key.bytes, staple, staple_bytes)
    return certificate


cdef size_t tail_bytes(const Certificate *certificate) noexcept nogil:
    """Of the chain behind the leaf."""
    return key_of(certificate) - certificate.parts - certificate.part_bytes[0]


cdef bint tail_is_known(const Certificate *certificate) noexcept nogil:
    """Is the chain behind the leaf the same as that of the last good one? Thousands come from one authority."""
    cdef bint known
    CRYPTO_THREAD_read_lock(lock)
    known = known_tail != NULL and known_tail_bytes == tail_bytes(certificate) \
        and memcmp(known_tail, certificate.parts + certificate.part_bytes[0], known_tail_bytes) == 0
    CRYPTO_THREAD_unlock(lock)
    return known


cdef void note_tail(const Certificate *certificate) noexcept nogil:
    global known_tail, known_tail_bytes
    cdef size_t size = tail_bytes(certificate)
    cdef uint8_t *copy = <uint8_t *>malloc(size)
    if size == 0 or copy == NULL:
        free(copy)
        return
    memcpy(copy, certificate.parts + certificate.part_bytes[0], size)
    CRYPTO_THREAD_write_lock(lock)
    free(known_tail)
    known_tail = copy
    known_tail_bytes = size
    CRYPTO_THREAD_unlock(lock)


cdef bint is_usable(const Certificate *certificate, SSL_CTX *context) noexcept nogil:
    """Tried as a conn would, and forgotten again: most names are not asked for at once."""
    cdef bint is_tail_known = tail_is_known(certificate)
    cdef Parsed *parsed = parse(certificate, 1 if is_tail_known else certificate.count)
    cdef SSL *ssl
    cdef bint done
    if parsed == NULL:
        return False
    ssl = SSL_new(context)
    done = ssl != NULL and SSL_use_cert_and_key(ssl, parsed.leaf, parsed.key, parsed.chain, 1) == 1
    SSL_free(ssl)
    parsed_release(parsed)
    if done and not is_tail_known:
        note_tail(certificate)
    return done


cdef Certificate *certificate_new(SSL_CTX *context, const uint8_t *chain_pem, size_t chain_bytes,
                                  const uint8_t *key_pem, size_t key_bytes, const uint8_t *scope,
                                  const uint8_t *staple, size_t staple_bytes) noexcept nogil:
    cdef Der chain[CERTIFICATE_COUNT_MAX]
    cdef Der key
    cdef uint32_t count
    cdef int key_type
    cdef Certificate *certificate = NULL
    ERR_clear_error()
    if chain_bytes > PEM_BYTES_MAX or key_bytes > PEM_BYTES_MAX or staple_bytes > STAPLE_BYTES_MAX:
        tls_note_words("certificate or key is too large")
        return NULL
    count = read_chain(chain_pem, chain_bytes, chain)
    if count == 0:
        return NULL
    key_type = read_plain_key(key_pem, key_bytes, &key)
    if key_type == 0:
        key_type = read_key(key_pem, key_bytes, &key)
    if key_type != 0:
        certificate = assemble(chain, count, &key, key_type, scope, staple, staple_bytes)
        OPENSSL_cleanse(key.src, <size_t>key.bytes)
        OPENSSL_free(key.src)
    drop_chain(chain, count)
    if certificate == NULL:
        return NULL
    atomic_add(&certificates_live, 1)
    if context != NULL and not certificate_try(certificate, context):
        certificate_release(certificate)
        return NULL
    return certificate


cdef bint certificate_try(const Certificate *certificate, SSL_CTX *context) noexcept nogil:
    ERR_clear_error()
    if is_usable(certificate, context):
        return True
    if ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_PRIVATE_KEY_MISMATCH:
        tls_note_words("the private key does not belong to the certificate")
    elif ERR_peek_last_error() != 0:
        tls_note_error(NULL, "certificate refused")
    return False


cdef Certificate *certificate_hold(Certificate *certificate) noexcept nogil:
    atomic_add(&certificate.references, 1)
    return certificate


cdef void certificate_release(Certificate *certificate) noexcept nogil:
    cdef Parsed *parsed
    if certificate == NULL or atomic_sub_acq(&certificate.references, 1) != 1:
        return
    CRYPTO_THREAD_write_lock(lock)
    parsed = forget(certificate)
    CRYPTO_THREAD_unlock(lock)
    parsed_release(parsed)
    OPENSSL_cleanse(key_of(certificate), certificate.key_bytes)
    atomic_sub(&certificates_live, 1)
    free(certificate)
