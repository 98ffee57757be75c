"""Frames of a link's own: each is queued whole; what cannot be queued ends the link."""
from libc.errno cimport ENOMEM

from spokes._fastpath.base.buf cimport Chain, chain_append, chain_reserve
from spokes._fastpath.base.types cimport RC_LIMIT
from spokes._fastpath.io.loop cimport conn_mark_dirty
from spokes._fastpath.link.frame cimport (
    FRAME_CONTROL, FRAME_CONTROL_MORE, FRAME_DRAIN, FRAME_HEADER_BYTES, FRAME_PING, frame_put, put_u64,
)
from spokes._fastpath.link.link_state cimport LINK_OUT_BYTES_LIMIT


cdef void link_break(Link *link, int rc) noexcept nogil:
    """The link cannot go on, but somebody is using it just now: the flush ends it."""
    if link.conn.error == 0:
        link.conn.error = rc
    conn_mark_dirty(link.conn)


cdef uint8_t *link_put(Link *link, uint8_t type, uint8_t flags, uint32_t stream, uint32_t length) noexcept nogil:
    """A whole small frame's place at the end of what waits; the caller fills it. NULL: out of memory, the link ends."""
    cdef uint8_t *place
    if link.down:
        return NULL
    place = chain_reserve(&link.loop.pool, &link.conn.out, FRAME_HEADER_BYTES + length)
    if place == NULL:
        link_break(link, -ENOMEM)
        return NULL
    if link.conn.out.bytes > LINK_OUT_BYTES_LIMIT:
        link_break(link, RC_LIMIT)
    frame_put(place, type, flags, stream, length)
    conn_mark_dirty(link.conn)
    return place + FRAME_HEADER_BYTES


cdef void link_append(Link *link, const uint8_t *header, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """A whole frame that may be larger than a block."""
    cdef Chain *out = &link.conn.out
    if chain_append(&link.loop.pool, out, header, FRAME_HEADER_BYTES, True) < FRAME_HEADER_BYTES \
            or chain_append(&link.loop.pool, out, src, src_bytes, True) < src_bytes:
        link_break(link, -ENOMEM)       # half a frame cannot be taken back
    elif out.bytes > LINK_OUT_BYTES_LIMIT:
        link_break(link, RC_LIMIT)
    conn_mark_dirty(link.conn)


cdef void link_ping(Link *link) noexcept nogil:
    cdef uint8_t *place = link_put(link, FRAME_PING, 0, 0, 8)
    if place != NULL:
        link.ping_sent_us = link.loop.now_us
        put_u64(place, link.ping_sent_us)


cdef void link_probe(Link *link) noexcept nogil:
    if not link.down:
        link.pong_wanted = 1
        link_ping(link)


cdef void link_control(Link *link, uint8_t flags, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    cdef uint8_t header[FRAME_HEADER_BYTES]
    if link.down:
        return
    frame_put(header, FRAME_CONTROL, flags, 0, src_bytes)
    link.in_message = flags & FRAME_CONTROL_MORE
    link_append(link, header, src, src_bytes)


cdef void link_drain(Link *link) noexcept nogil:
    if not link.draining:
        link.draining = 1
        link_put(link, FRAME_DRAIN, 0, 0, 0)
