"""A rate per address in a table of fixed size: token buckets in two rows, each with a hash of its own.

An address has a bucket in both rows and is refused when both are used up, so that one flooding address uses up others
only where it meets them twice. IPv6 counts by /64, which one subscriber has.
Bound: 2 × THROTTLE_BUCKETS numbers. Source: GCRA (ATM Forum TM 4.0, 4.4.2) for a bucket, the count-min sketch (Cormode
and Muthukrishnan, 2005) for the rows.
"""
from libc.string cimport memcpy

from spokes._fastpath.base.types cimport atomic_cas, atomic_get


cdef uint64_t bucket_of(const Throttle *throttle, const Address *peer, int row) noexcept nogil:
    """splitmix64's mix over the address and the seed."""
    cdef uint64_t h
    memcpy(&h, peer.ip, 8)
    h ^= throttle.seed + <uint64_t>(2 * row + (peer.family == 6)) * 0x9E3779B97F4A7C15u
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBu
    return (h ^ (h >> 31)) % THROTTLE_BUCKETS


cdef bint prefix_holds(const Prefix *prefix, const Address *peer) noexcept nogil:
    cdef int whole = prefix.bits // 8
    cdef int i
    if prefix.family != peer.family:
        return False
    for i in range(whole):
        if prefix.ip[i] != peer.ip[i]:
            return False
    return prefix.bits % 8 == 0 or (prefix.ip[whole] ^ peer.ip[whole]) >> (8 - prefix.bits % 8) == 0


cdef bint throttle_exempts(const Throttle *throttle, const Address *peer) noexcept nogil:
    cdef uint32_t i
    for i in range(throttle.prefix_count):
        if prefix_holds(&throttle.prefixes[i], peer):
            return True
    return False


cdef bint throttle_admit(Throttle *throttle, const Address *peer, uint64_t now_ms) noexcept nogil:
    cdef uint64_t now_us = now_ms * 1000
    cdef uint64_t before, after
    cdef uint64_t *due[2]
    cdef int row
    if throttle.interval_us == 0 or throttle_exempts(throttle, peer):
        return True
    for row in range(2):
        due[row] = &throttle.due_us[row][bucket_of(throttle, peer, row)]
    if atomic_get(due[0]) > now_us + throttle.burst_us and atomic_get(due[1]) > now_us + throttle.burst_us:
        return False
    for row in range(2):
        before = atomic_get(due[row])
        while True:
            after = (before if before > now_us else now_us) + throttle.interval_us
            if atomic_cas(due[row], &before, after):
                break
    return True
