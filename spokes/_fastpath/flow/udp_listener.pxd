# UDP services at a server: one socket per public port, and a stream per peer.
from spokes._fastpath.base.types cimport uint16_t, uint64_t, uint8_t
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport End, Loop

cdef size_t discard_on_data(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef void nothing(End *end) noexcept nogil
cdef uint64_t port_idle_ms(Loop *loop, uint16_t port) noexcept nogil
cdef void udp_listen(Loop *loop, int fd, uint16_t port, uint64_t id) noexcept nogil     # server: a bound socket
cdef void udp_take_over(Loop *loop, Conn *conn) noexcept nogil      # server: the socket moves to the links' worker
cdef uint64_t udp_listener_id(Conn *conn) noexcept nogil            # 0 = not a listener
