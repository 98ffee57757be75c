# Streams: finding, sending on and ending them.
from spokes._fastpath.base.types cimport uint16_t, uint32_t, uint8_t
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.link.link_state cimport Link, Stream

cdef Stream *stream_find(Link *link, uint32_t id) noexcept nogil
cdef size_t stream_room(Stream *stream) noexcept nogil
cdef void stream_write(Stream *stream, const uint8_t *src, size_t src_bytes) noexcept nogil   # src_bytes <= stream_room
# From a socket into frames without a copy; answers as conn_recv.
cdef ssize_t stream_read_from(Stream *stream, Conn *conn, size_t bytes_max) noexcept nogil
cdef void stream_wait_room(Stream *stream) noexcept nogil           # ops.room will be called
cdef void stream_fin(Stream *stream) noexcept nogil
cdef void stream_reset(Stream *stream, uint16_t reason) noexcept nogil
# The owner's last word; RESET unless both sides have ended.
cdef void stream_close(Stream *stream, uint16_t reason) noexcept nogil
cdef void stream_gone(Stream *stream, int rc) noexcept nogil
# As if the peer had reset it for that reason: the owner is told, and so is the peer.
cdef void stream_end(Stream *stream, uint16_t reason) noexcept nogil
