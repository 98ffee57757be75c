# What a server shows for some names: a chain and its key, immutable and counted, shared by all workers.
from spokes._fastpath.base.types cimport uint8_t, uint32_t, uint64_t
from spokes._fastpath.tls.openssl cimport EVP_PKEY, SSL, SSL_CTX, X509, X509_STACK

cdef enum:
    CERTIFICATE_SCOPE_BYTES = 32
    CERTIFICATE_COUNT_MAX = 12          # of one chain, the leaf included
    CERTIFICATE_PARSED_MAX = 512        # kept as libssl wants them: those used last, of all engines together

cdef struct Parsed:                     # as libssl wants it, some 7 KB and more with each certificate of the chain
    uint64_t references                 # atomic
    X509 *leaf
    X509_STACK *chain
    EVP_PKEY *key

cdef struct Certificate:
    uint64_t references                 # atomic
    uint64_t coverage                   # of its names: the same number for the same names, over renewals and restarts
    uint8_t scope[CERTIFICATE_SCOPE_BYTES]      # SHA-256 of its names: sessions resume under the same ones alone
    int key_type                        # EVP_PKEY_EC, …
    uint32_t count                      # certificates of the chain
    uint32_t part_bytes[CERTIFICATE_COUNT_MAX]
    uint32_t key_bytes
    uint32_t staple_bytes               # 0 = there is none
    uint8_t *parts                      # DER, behind this struct: the chain, leaf first; the key; the OCSP response
    Parsed *parsed                      # under certificate.pyx's lock, as what follows; NULL = not now
    Certificate *newer
    Certificate *older

# With one reference; NULL: cannot be used, tls_error_text has the words. Text around the blocks of PEM is skipped.
# `context`: one of those that it will be used with; what that would refuse is refused here. NULL: by certificate_try.
cdef Certificate *certificate_new(SSL_CTX *context, const uint8_t *chain_pem, size_t chain_bytes,
                                  const uint8_t *key_pem, size_t key_bytes, const uint8_t *scope,
                                  const uint8_t *staple, size_t staple_bytes) noexcept nogil
# False: `context` would refuse it, tls_error_text has the words.
cdef bint certificate_try(const Certificate *certificate, SSL_CTX *context) noexcept nogil
cdef Certificate *certificate_hold(Certificate *certificate) noexcept nogil
cdef void certificate_release(Certificate *certificate) noexcept nogil
# The conn shows it from now on; libssl holds what it needs by itself. False: no memory.
cdef bint certificate_use(Certificate *certificate, SSL *ssl) noexcept nogil
cdef const uint8_t *certificate_staple(const Certificate *certificate) noexcept nogil   # staple_bytes of it

# Of this process, atomic: those that somebody holds, and those of them that are parsed.
cdef uint64_t certificates_live, parsed_count
