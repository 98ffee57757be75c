"""The end of a link, and its tunnel's list of links.

Fails: a peer that breaks docs/protocol.md ends its link, no other.
"""
from libc.stdlib cimport free

from spokes._fastpath.base.buf cimport BLOCK_BYTES
from spokes._fastpath.base.types cimport (
    RC_EOF, RC_GONE, RC_LIMIT, RC_LOCAL, atomic_add, atomic_and, atomic_or, atomic_set, uint32_t, uint64_t, uint8_t,
)
from spokes._fastpath.io.conn cimport Conn, conn_close, conn_flush
from spokes._fastpath.io.conn_linger cimport conn_linger
from spokes._fastpath.link.backlog cimport Datagram, backlog_drop, backlog_first
from spokes._fastpath.link.link_send cimport link_control
from spokes._fastpath.link.link_state cimport LINK_BYE_MS, LINK_OUT_BYTES_MAX, LINK_OUT_RESERVE_BYTES, Stream
from spokes._fastpath.link.stream cimport stream_gone
from spokes._fastpath.link.stream_credit cimport stream_defer_free

cdef extern from "string.h" nogil:
    size_t strlen(const char *text)


cdef void link_bind(Link *link, Tunnel *tunnel) noexcept nogil:
    cdef uint32_t worker = link.loop.index
    cdef uint32_t i
    cdef Stream *stream
    if link.tunnel != NULL or link.down:
        return
    link.tunnel = tunnel
    link.prev = NULL
    link.next = <Link *>tunnel.links[worker]
    if link.next != NULL:
        link.next.prev = link
    tunnel.links[worker] = link
    atomic_or(&tunnel.worker_mask, <uint64_t>1 << worker)
    atomic_set(&tunnel.last_heard_ms, link.loop.wall_ms)
    atomic_add(&tunnel.stream_count, link.stream_count)
    for i in range(link.bucket_count):  # the peer's, that came before
        stream = link.buckets[i]
        while stream != NULL:
            stream.tunnel = tunnel
            atomic_add(&tunnel.held_bytes, <uint64_t>stream.held_blocks * BLOCK_BYTES)
            stream = stream.hash_next


cdef void link_unbind(Link *link) noexcept nogil:
    cdef Tunnel *tunnel = link.tunnel
    cdef uint32_t worker = link.loop.index
    if tunnel == NULL:
        return
    if link.prev != NULL:
        link.prev.next = link.next
    else:
        tunnel.links[worker] = link.next
    if link.next != NULL:
        link.next.prev = link.prev
    if tunnel.links[worker] == NULL:
        atomic_and(&tunnel.worker_mask, ~(<uint64_t>1 << worker))
    link.next = link.prev = NULL


cdef void link_fail(Link *link, int rc) noexcept nogil:
    cdef uint32_t i
    cdef Stream *stream
    if link.down:
        return
    link.down = 1
    link_unbind(link)
    for i in range(link.bucket_count):
        while link.buckets[i] != NULL:
            stream_gone(link.buckets[i], RC_GONE)
    while link.credits != NULL:
        stream = link.credits
        link.credits = stream.credit_next
        stream_defer_free(stream)
    link.loop.stats.links_open -= 1
    if rc != RC_LOCAL and rc != RC_EOF:
        link.loop.stats.errors_total += 1
    if link.closing:
        link.conn.end.owner = NULL
        conn_linger(link.conn)
    else:
        conn_close(link.conn, rc != RC_LOCAL and rc != RC_EOF)
    link.ops.down(link, rc)


cdef const char *bye_of(int rc) noexcept nogil:
    """The only control messages that the engine makes. The peer may come back: its pauses grow by themselves."""
    if rc == RC_LIMIT:
        return b'{"type":"bye","code":"SPK-LIMIT","reason":6,"message":"a limit of the link was passed","retry":true}'
    return b'{"type":"bye","code":"SPK-PROTOCOL","reason":7,"message":"the link protocol was broken","retry":true}'


cdef void link_refuse(Link *link, int rc) noexcept nogil:
    """The peer broke the protocol or a limit. It is told so where it can be reached and little waits; then it has
    LINK_BYE_MS to read it, so that nobody keeps conns and blocks by not reading."""
    cdef const char *bye = bye_of(rc)
    cdef Conn *conn = link.conn
    if link.broken == 0 and conn.error == 0 and not link.in_message \
            and conn.out.bytes + conn.tls.tx.bytes <= LINK_OUT_BYTES_MAX + LINK_OUT_RESERVE_BYTES:
        link_control(link, 0, <const uint8_t *>bye, <uint32_t>strlen(bye))
        link.closing = 1
        conn.span.linger_end_ms = link.loop.now_ms + LINK_BYE_MS
    link_fail(link, rc)


cdef void link_free(Link *link) noexcept nogil:
    cdef Datagram waiting
    free(link.buckets)
    while backlog_first(&link.backlog, &waiting):
        link.loop.stats.datagrams_dropped += 1
        backlog_drop(&link.backlog, &waiting)
    free(link)


cdef void link_close_soon(Link *link) noexcept nogil:
    """The link is gone for us; its conn lingers until the peer has read why."""
    if link.down:
        return
    link.closing = 1
    conn_flush(link.conn)
    link_fail(link, RC_LOCAL)
