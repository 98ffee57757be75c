# The first flight of a TLS visitor, sans-io: server name and ALPN of a ClientHello, read without answering it.
from spokes._fastpath.base.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    HELLO_BYTES_MAX = 65536             # a ClientHello with its handshake header, in as many records as it likes

cdef struct Hello:
    uint8_t name_bytes                  # 0 = no server name
    char name[256]                      # canonical: lower case, no trailing dot, checked to be a host name
    uint8_t has_link_alpn               # "spokes/1" is offered
    uint8_t has_authority_alpn          # "spokes-ca/1" is: the link's peer trusts authorities, not our key
    uint8_t worker                      # of ours that a node's link wants: its number and 1; 0 = any
    uint8_t has_acme_alpn               # "acme-tls/1" is offered
    uint8_t has_tls13                   # supported_versions names TLS 1.3

cdef struct HelloWalk:                  # how far the records of a ClientHello have come; all zero at first
    uint32_t known                      # handshake bytes seen
    uint32_t message_bytes              # of the ClientHello with its header, once known >= 4
    uint16_t record_left                # bytes of the present record still to come
    uint8_t header_bytes                # of its header seen

# Read additional bytes, each once: 1 the ClientHello is whole, 0 it is not, RC_PROTO when this is none, RC_TOO_LARGE
# past HELLO_BYTES_MAX; both as soon as a header says so. The answer is the same however the bytes arrive; what follows
# the ClientHello is ignored. It may span several TLS records and handshake fragments (RFC 8446 §5.1): with a `message`
# (HELLO_BYTES_MAX) it is put together there.
cdef int hello_walk(HelloWalk *walk, const uint8_t *src, size_t src_bytes, uint8_t *message) noexcept nogil
# Read a whole one: 1 or RC_PROTO.
cdef int hello_read(Hello *out, const uint8_t *message, size_t message_bytes) noexcept nogil
# Between two reads a walk fits a word that its conn has to spare; 0 = nothing was seen yet.
cdef uint64_t hello_pack(const HelloWalk *walk) noexcept nogil
cdef void hello_unpack(HelloWalk *walk, uint64_t word) noexcept nogil
