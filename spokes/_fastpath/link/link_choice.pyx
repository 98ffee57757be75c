"""Which of a tunnel's links carries a new stream."""
from spokes._fastpath.link.link_state cimport BUSY_BYTES_PER_S


cdef bint link_is_busy(Link *link) noexcept nogil:
    return link.busy_rate >= BUSY_BYTES_PER_S and link.loop.now_ms - link.busy_since_ms < 3000


cdef Link *link_pick(Tunnel *tunnel, Loop *loop) noexcept nogil:
    """Least busy first (in classes, so that noise does not spread streams), then fewest streams."""
    cdef Link *link = <Link *>tunnel.links[loop.index]
    cdef Link *best = NULL
    while link != NULL:
        if not link.draining and not link.down and link.stream_count < link.stream_count_max:
            if best == NULL or link_is_better(link, best):
                best = link
        link = link.next
    return best


cdef bint link_is_better(Link *link, Link *other) noexcept nogil:
    cdef bint busy = link_is_busy(link)
    if busy != link_is_busy(other):
        return not busy
    return link.stream_count < other.stream_count
