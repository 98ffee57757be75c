# How many TLS handshakes one address may begin: a rate in the long run, a burst at once.
from spokes._fastpath.base.address cimport Address
from spokes._fastpath.base.types cimport uint8_t, uint32_t, uint64_t

cdef enum:
    THROTTLE_BUCKETS = 16384
    THROTTLE_PREFIX_COUNT_MAX = 32

cdef struct Prefix:
    uint8_t family
    uint8_t bits
    uint8_t ip[16]

cdef struct Throttle:
    uint64_t interval_us                # between two in the long run; 0 = no limit
    uint64_t burst_us                   # how far ahead of that rate an address may be
    uint64_t seed                       # so that nobody can choose addresses that share a bucket with another's
    uint32_t prefix_count
    Prefix prefixes[THROTTLE_PREFIX_COUNT_MAX]  # addresses that are not counted
    uint64_t due_us[2][THROTTLE_BUCKETS]        # atomic: when the next one would be in time; rows differ in their hash

cdef bint throttle_exempts(const Throttle *throttle, const Address *peer) noexcept nogil
# False: refused, and not counted.
cdef bint throttle_admit(Throttle *throttle, const Address *peer, uint64_t now_ms) noexcept nogil
