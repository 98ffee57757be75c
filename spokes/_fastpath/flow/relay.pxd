# Raw flows: bytes between two ends, both ways, with half-close.
from spokes._fastpath.base.types cimport uint32_t, uint8_t
from spokes._fastpath.io.conn_state cimport End, Loop
from spokes._fastpath.link.frame cimport Open
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.route.site cimport Site, Upstream

# Join two open ends; bytes may wait in the rx of `downstream`, which leads to the visitor. `is_tls`: it has sent its
# ClientHello, and may be refused with a TLS alert.
cdef void relay_join(End *downstream, End *upstream, bint is_tls) noexcept nogil
# A stream to the tunnel that the route leads to, asked for as `open` says. 0, or a reason to refuse.
cdef int relay_to_tunnel(End *downstream, Loop *loop, const Site *site, const Open *open) noexcept nogil
# Of a stream whose other end is one.
cdef void relay_datagram(Stream *stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil
# `hops`: how often the flow of this stream has been here. 0, or a reason to refuse.
cdef int relay_to_upstream(Stream *downstream, Loop *loop, Upstream *upstream, uint8_t hops) noexcept nogil
