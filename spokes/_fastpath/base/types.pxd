# Words every module of the engine shares: integer types, return codes, the few libc calls used by several modules.
# Returns: > 0 progress, 0 not now, < 0 one of these codes or -errno.
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    RC_AGAIN = 0            # not now: more bytes, room or time needed
    # Below the range of -errno (-1 … -4095), so that one int can carry either.
    RC_EOF = -5001          # the peer ended in order
    RC_PROTO = -5002        # bytes that break the protocol
    RC_LIMIT = -5003        # a configured bound was reached
    RC_MEMORY = -5004       # the buffer pool or the heap is at its limit
    RC_TLS = -5005          # libssl refused; tls.pyx has the words
    RC_PIN = -5006          # the peer's key is not the pinned one or not trusted
    RC_TIMEOUT = -5007      # a deadline passed
    RC_LOCAL = -5008        # we closed it
    RC_DEAD = -5009         # silence for longer than the link allows
    RC_GONE = -5010         # the other end of the flow went away
    RC_TOO_LARGE = -5011    # head or line over its limit (431)
    RC_UNSUPPORTED = -5012  # well-formed, but not something we do (501)
    RC_TARGET = -5013       # a request target over its limit (414)
    RC_VERSION = -5014      # another major version of HTTP (505)

cdef extern from *:
    """
    #define atomic_get(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define atomic_set(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define atomic_set_seq(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define atomic_get_seq(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define atomic_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
    #define atomic_sub(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_RELAXED)
    #define atomic_sub_acq(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_ACQ_REL)
    #define atomic_or(p, v) __atomic_fetch_or((p), (v), __ATOMIC_ACQ_REL)
    #define atomic_and(p, v) __atomic_fetch_and((p), (v), __ATOMIC_ACQ_REL)
    #define atomic_swap(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
    #define atomic_cas(p, expected, v) \
        __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)
    """
    uint64_t atomic_get(uint64_t *p) noexcept nogil
    void atomic_set(uint64_t *p, uint64_t v) noexcept nogil
    uint64_t atomic_get_seq(uint64_t *p) noexcept nogil
    void atomic_set_seq(uint64_t *p, uint64_t v) noexcept nogil
    uint64_t atomic_add(uint64_t *p, uint64_t v) noexcept nogil
    uint64_t atomic_sub(uint64_t *p, uint64_t v) noexcept nogil
    uint64_t atomic_sub_acq(uint64_t *p, uint64_t v) noexcept nogil
    uint64_t atomic_or(uint64_t *p, uint64_t v) noexcept nogil
    uint64_t atomic_and(uint64_t *p, uint64_t v) noexcept nogil
    uint64_t atomic_swap(uint64_t *p, uint64_t v) noexcept nogil
    bint atomic_cas(uint64_t *p, uint64_t *expected, uint64_t v) noexcept nogil
