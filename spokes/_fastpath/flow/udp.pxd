# UDP services: datagrams of a public port as streams per peer, and back.
from spokes._fastpath.base.types cimport uint16_t, uint64_t, uint8_t
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.link.frame cimport Open
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.route.site cimport Upstream

cdef enum:
    UDP_IDLE_MS = 60000                 # a peer that is silent in both directions is forgotten; where nobody said else
    UDP_PEER_COUNT_MAX = 4096           # a port
    UDP_KEPT_BYTES_MAX = 2048           # of a flow: its last datagram, until its upstream has answered
    UDP_BATCH = 64                      # datagrams of one socket in one pass

cdef void udp_listen(Loop *loop, int fd, uint16_t port, uint64_t id) noexcept nogil     # server: a bound socket
cdef void udp_take_over(Loop *loop, Conn *conn) noexcept nogil      # server: the socket moves to the links' worker
cdef uint64_t udp_listener_id(Conn *conn) noexcept nogil            # 0 = not a listener
cdef Upstream *udp_flow_upstream(Conn *conn) noexcept nogil         # NULL = not a client's flow
cdef void udp_flow_end(Conn *conn, uint16_t reason) noexcept nogil
# client: 0, or a reason to refuse
cdef int udp_serve(Loop *loop, Stream *stream, const Open *open, Upstream *upstream, uint8_t hops) noexcept nogil
