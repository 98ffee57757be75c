# The one canonical form of a host: lower case, no port, no trailing dot, IPv6 literals in brackets (RFC 5952).
# Each writes into dst (HOST_SIZE_BYTES, 0-terminated) and answers the length or RC_PROTO.
from spokes._fastpath.base.types cimport int32_t, uint8_t

cdef enum:
    HOST_BYTES_MAX = 253
    HOST_SIZE_BYTES = 256
    PORT_NONE = -1

# A host name alone: letters, digits, "-", "_", "."; labels of 1 to 63 that neither start nor end with "-".
cdef ssize_t canonical_name(char *dst, const uint8_t *src, size_t src_bytes) noexcept nogil

# host[:port] without userinfo; the port into *port, PORT_NONE when it is absent or empty.
cdef ssize_t canonical_authority(char *dst, const uint8_t *src, size_t src_bytes, int32_t *port) noexcept nogil

# The same for who does not ask for the port.
cdef ssize_t canonical_host(char *dst, const uint8_t *src, size_t src_bytes) noexcept nogil
