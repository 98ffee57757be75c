# Conns that close in order: what waits is sent, what comes is dropped, and the peer's end is awaited for a while.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.io.conn_state cimport Conn

# Send what waits, half-close, discard input for a while, close; no callback.
cdef void conn_linger(Conn *conn) noexcept nogil
# The same with a TLS alert to a peer that has sent its ClientHello and got nothing yet.
cdef void conn_alert(Conn *conn, uint8_t description) noexcept nogil
# To one that has had its time: closed at once, what the kernel does not take of it is lost.
cdef void conn_alert_last(Conn *conn, uint8_t description) noexcept nogil
