# Datagrams that wait for a link: a bounded queue that forgets the oldest.
from spokes._fastpath.base.types cimport uint8_t, uint32_t

cdef enum:
    DATAGRAM_BACKLOG_BYTES = 131072     # per link, 8 bytes of each datagram for its record

cdef struct Backlog:
    uint8_t *records                    # stream (4), bytes (4), payload; NULL while nothing waits
    uint32_t head
    uint32_t tail

cdef struct Datagram:                   # one record; its data stays the backlog's
    const uint8_t *data
    uint32_t bytes
    uint32_t stream

cdef inline bint backlog_is_empty(const Backlog *backlog) noexcept nogil:
    return backlog.tail == 0

# How many older ones were dropped for it; -1: this one is, it is too large or the heap is out.
cdef int backlog_push(Backlog *backlog, uint32_t stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil
cdef bint backlog_first(Backlog *backlog, Datagram *out) noexcept nogil     # the oldest; False: none
cdef void backlog_drop(Backlog *backlog, const Datagram *oldest) noexcept nogil
cdef void backlog_clear(Backlog *backlog) noexcept nogil
