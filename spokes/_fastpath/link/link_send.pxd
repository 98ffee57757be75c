# Frames of a link's own: each is queued whole; what cannot be queued ends the link.
from spokes._fastpath.base.types cimport uint32_t, uint8_t
from spokes._fastpath.link.link_state cimport Link

cdef uint8_t *link_put(Link *link, uint8_t type, uint8_t flags, uint32_t stream, uint32_t length) noexcept nogil
cdef void link_append(Link *link, const uint8_t *header, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef void link_ping(Link *link) noexcept nogil
cdef void link_probe(Link *link) noexcept nogil             # PING now; ops.pong follows if the peer is there
cdef void link_control(Link *link, uint8_t flags, const uint8_t *src, uint32_t src_bytes) noexcept nogil
cdef void link_drain(Link *link) noexcept nogil
