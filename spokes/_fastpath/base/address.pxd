# Addresses of visitors.
from spokes._fastpath.base.types cimport uint8_t, uint16_t, uint32_t

cdef struct Address:                    # of a visitor; 20 bytes
    uint8_t family                      # 0, 4 or 6
    uint8_t unused
    uint16_t port
    uint8_t ip[16]

cdef inline uint32_t fnv1a(uint32_t h, const uint8_t *src, int src_bytes) noexcept nogil:
    cdef int i
    for i in range(src_bytes):
        h = (h ^ src[i]) * 16777619u
    return h

cdef inline uint32_t address_hash(const Address *address, uint32_t seed) noexcept nogil:
    """Of who is told apart: IPv6 by its /64, which one subscriber has."""
    cdef uint32_t h = fnv1a(2166136261u ^ seed ^ address.family, address.ip, 8)
    return h ^ (h >> 15)

cdef size_t address_text(char *dst, const Address *address) noexcept nogil   # at most 46 bytes, not terminated
cdef void address_read(Address *out, const void *sockaddr_any) noexcept nogil
