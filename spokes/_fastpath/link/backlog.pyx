"""Datagrams that wait for a link, first in, first out; where there is no room the oldest go.

Owns: its memory, only while something waits. Bound: DATAGRAM_BACKLOG_BYTES.
Fails: a datagram is dropped, as UDP may.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

cdef enum:
    RECORD_BYTES = 8


cdef int backlog_push(Backlog *backlog, uint32_t stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    cdef uint32_t needed = RECORD_BYTES + src_bytes
    cdef uint8_t *place
    cdef Datagram oldest
    cdef int dropped = 0
    if needed > DATAGRAM_BACKLOG_BYTES:
        return -1
    if backlog.records == NULL:
        backlog.records = <uint8_t *>malloc(DATAGRAM_BACKLOG_BYTES)
        if backlog.records == NULL:
            return -1
    while backlog.tail + needed > DATAGRAM_BACKLOG_BYTES:
        if backlog.head > 0:
            memmove(backlog.records, backlog.records + backlog.head, backlog.tail - backlog.head)
            backlog.tail -= backlog.head
            backlog.head = 0
            continue
        # A quarter at once, whole records, so that the move above stays rare.
        while backlog.head < DATAGRAM_BACKLOG_BYTES // 4 and backlog.head < backlog.tail:
            record_read(backlog, &oldest)
            backlog.head += RECORD_BYTES + oldest.bytes
            dropped += 1
    place = backlog.records + backlog.tail
    memcpy(place, &stream, 4)
    memcpy(place + 4, &src_bytes, 4)
    memcpy(place + RECORD_BYTES, src, src_bytes)
    backlog.tail += needed
    return dropped


cdef void record_read(const Backlog *backlog, Datagram *out) noexcept nogil:
    memcpy(&out.stream, backlog.records + backlog.head, 4)
    memcpy(&out.bytes, backlog.records + backlog.head + 4, 4)
    out.data = backlog.records + backlog.head + RECORD_BYTES


cdef bint backlog_first(Backlog *backlog, Datagram *out) noexcept nogil:
    if backlog.head >= backlog.tail:
        return False
    record_read(backlog, out)
    return True


cdef void backlog_drop(Backlog *backlog, const Datagram *oldest) noexcept nogil:
    backlog.head += RECORD_BYTES + oldest.bytes
    if backlog.head >= backlog.tail:
        backlog_clear(backlog)


cdef void backlog_clear(Backlog *backlog) noexcept nogil:
    free(backlog.records)
    backlog.records = NULL
    backlog.head = backlog.tail = 0
