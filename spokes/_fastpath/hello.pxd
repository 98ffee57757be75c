# The first flight of a TLS visitor, sans-io: server name and ALPN of a ClientHello, read without answering it.
from spokes._fastpath.types cimport uint8_t, uint16_t, uint32_t

cdef enum:
    HELLO_BYTES_MAX = 16384             # all records of a ClientHello together
    HELLO_RECORD_COUNT_MAX = 64         # a ClientHello in more records is refused: each look walks all of them again

cdef struct Hello:
    uint8_t name_bytes                  # 0 = no server name
    char name[256]                      # canonical: lower case, no trailing dot, checked to be a host name
    uint8_t has_link_alpn               # "spokes/1" is offered
    uint8_t has_acme_alpn               # "acme-tls/1" is offered
    uint8_t has_tls13                   # supported_versions names TLS 1.3

# 1 done, 0 while incomplete, RC_PROTO when this is no ClientHello, RC_TOO_LARGE past HELLO_BYTES_MAX or
# HELLO_RECORD_COUNT_MAX. The answer is the same however the bytes arrive; what follows the ClientHello is ignored.
# A ClientHello may span several TLS records and handshake fragments (RFC 8446 §5.1).
cdef int hello_parse(Hello *out, const uint8_t *src, size_t src_bytes) noexcept nogil
