"""Datagrams of streams: sent at once while the link keeps up, else from a bounded backlog."""
from spokes._fastpath.base.types cimport uint64_t
from spokes._fastpath.io.loop cimport conn_mark_dirty
from spokes._fastpath.link.backlog cimport Datagram, backlog_drop, backlog_first, backlog_is_empty, backlog_push
from spokes._fastpath.link.frame cimport FRAME_DATAGRAM, FRAME_HEADER_BYTES, frame_put
from spokes._fastpath.link.link_send cimport link_append
from spokes._fastpath.link.stream_count cimport stream_count_in


cdef bint stream_datagram(Stream *stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    """Queue one datagram; where the link is behind, the oldest waiting ones are dropped. False: dropped."""
    cdef Link *link = stream.link
    cdef int dropped
    if link.down or stream.end.closed:
        return False
    stream_count_in(stream, src_bytes)
    if (backlog_is_empty(&link.backlog) and link.conn.writable
            and link.conn.out.bytes + FRAME_HEADER_BYTES + src_bytes < link.out_limit_bytes):
        datagram_put(link, stream.id, src, src_bytes)
        return True
    dropped = backlog_push(&link.backlog, stream.id, src, src_bytes)
    if dropped < 0:
        return False
    link.loop.stats.datagrams_dropped += <uint64_t>dropped
    if link.conn.writable:
        conn_mark_dirty(link.conn)
    return True


cdef void datagram_put(Link *link, uint32_t id, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    cdef uint8_t header[FRAME_HEADER_BYTES]
    frame_put(header, FRAME_DATAGRAM, 0, id, src_bytes)
    link_append(link, header, src, src_bytes)


cdef void link_send_backlog(Link *link) noexcept nogil:
    cdef Datagram oldest
    while link.conn.out.bytes < link.out_limit_bytes and backlog_first(&link.backlog, &oldest):
        datagram_put(link, oldest.stream, oldest.data, oldest.bytes)
        backlog_drop(&link.backlog, &oldest)
