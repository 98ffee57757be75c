# UDP services at a client: one socket per stream.
from spokes._fastpath.base.types cimport uint16_t, uint8_t
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.link.frame cimport Open
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.route.site cimport Upstream

cdef Upstream *udp_flow_upstream(Conn *conn) noexcept nogil         # NULL = not a client's flow
cdef void udp_flow_end(Conn *conn, uint16_t reason) noexcept nogil
# client: 0, or a reason to refuse
cdef int udp_serve(Loop *loop, Stream *stream, const Open *open, Upstream *upstream, uint8_t hops) noexcept nogil
