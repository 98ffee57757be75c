"""Memory and kernel buffers taken back from streams that stand still, first of whoever holds most."""
from spokes._fastpath.base.buf cimport (
    SHARE_VISITOR, Pool, holder_streams, pool_kernel_is_full, pool_kernel_share_passed,
)
from spokes._fastpath.base.reason cimport REASON_LIMIT
from spokes._fastpath.base.types cimport RC_GONE, atomic_get, uint32_t
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.link.link_state cimport (
    QUEUE_COUNT, QUEUE_CREDIT, QUEUE_WAITING, STREAM_STALL_MS_MAX, STREAM_STALL_MS_MIN,
)
from spokes._fastpath.link.stream cimport stream_gone, stream_reset
from spokes._fastpath.link.stream_credit cimport link_must_wait, queue_add, queue_remove, visitor_holds_more

cdef enum:
    RELIEF_INTERVAL_MS = 200            # between two searches for streams to end for want of memory …
    RELIEF_COUNT_MAX = 1024             # … which go through so many of those that wait


cdef bint stream_is_slow(const Stream *stream) noexcept nogil:
    """Its owner would need ten seconds for what waits, or has taken nothing for as long."""
    cdef uint32_t now_ms = <uint32_t>stream.link.loop.now_ms
    cdef uint64_t watched_ms = <uint32_t>(now_ms - stream.waiting_since_ms)
    if <uint32_t>(now_ms - stream.taken_ms) >= STREAM_STALL_MS_MAX:
        return True
    return watched_ms >= STREAM_STALL_MS_MIN \
        and stream.end.rx.bytes * watched_ms > <uint64_t>stream.waiting_taken * STREAM_STALL_MS_MAX


cdef void stream_reclaim(Stream *stream) noexcept nogil:
    stream.link.loop.stats.streams_reclaimed += 1
    stream_reset(stream, REASON_LIMIT)
    stream_gone(stream, RC_GONE)


cdef void link_relieve(Link *link) noexcept nogil:
    """Take memory back from slow readers: where the link must wait, of all; else of visitors above their share."""
    cdef Loop *loop = link.loop
    cdef Stream *stream
    cdef uint32_t count = link.queues[QUEUE_WAITING].count
    cdef uint32_t _i
    if loop.now_ms - link.relief_ms < RELIEF_INTERVAL_MS:
        return
    link.relief_ms = loop.now_ms
    if count > RELIEF_COUNT_MAX:
        count = RELIEF_COUNT_MAX
    for _i in range(count):
        stream = link.queues[QUEUE_WAITING].first
        if stream == NULL or link.down:
            return
        queue_remove(stream, QUEUE_WAITING)     # the next search begins where this one ends
        queue_add(stream, QUEUE_WAITING)
        if stream_is_slow(stream) and (visitor_holds_more(stream, SHARE_VISITOR) or link_must_wait(link)):
            stream_reclaim(stream)


cdef bint kernel_share_passed(const Stream *stream) noexcept nogil:
    cdef Pool *pool = &stream.link.loop.pool
    if stream.tunnel != NULL and pool_kernel_share_passed(pool, atomic_get(&stream.tunnel.stream_count)):
        return True
    return stream.holder != NULL and pool_kernel_share_passed(pool, holder_streams(atomic_get(stream.holder)))


cdef bint stream_stands_still(const Stream *stream, int which, bint of_holder) noexcept nogil:
    """Of whoever passes their share as stream_is_slow does: half a window that took five seconds waits for credit. Of
    others not before it has carried nothing for all of that time."""
    cdef uint32_t now_ms = <uint32_t>stream.link.loop.now_ms
    if which == QUEUE_CREDIT:
        return <uint32_t>(now_ms - stream.credit_since_ms) >= STREAM_STALL_MS_MAX // (2 if of_holder else 1)
    return stream_is_slow(stream) if of_holder else <uint32_t>(now_ms - stream.taken_ms) >= STREAM_STALL_MS_MAX


cdef uint64_t link_relieve_kernel(Link *link, uint64_t count_max) noexcept nogil:
    """Where the other end reads nothing, bytes stand in the buffers of the visitor's conn here; where no credit comes,
    in those of the source's."""
    cdef Stream *stream
    cdef uint64_t ended = 0
    cdef uint32_t count
    cdef bint of_holder
    cdef int which
    for which in range(QUEUE_WAITING, QUEUE_COUNT):
        count = link.queues[which].count
        if count > RELIEF_COUNT_MAX:
            count = RELIEF_COUNT_MAX
        while count > 0 and ended < count_max and not link.down:
            count -= 1
            stream = link.queues[which].first
            if stream == NULL:
                break
            queue_remove(stream, which)         # the next search begins where this one ends
            queue_add(stream, which)
            of_holder = kernel_share_passed(stream)
            if (of_holder or pool_kernel_is_full(&link.loop.pool)) and stream_stands_still(stream, which, of_holder):
                stream_reclaim(stream)
                ended += 1
    return ended
