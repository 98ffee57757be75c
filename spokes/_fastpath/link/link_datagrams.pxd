# Datagrams of streams: sent at once while the link keeps up, else from a bounded backlog.
from spokes._fastpath.base.types cimport uint32_t, uint8_t
from spokes._fastpath.link.link_state cimport Link, Stream

cdef bint stream_datagram(Stream *stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil
cdef void link_send_backlog(Link *link) noexcept nogil
