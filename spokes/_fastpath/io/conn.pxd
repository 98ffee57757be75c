# Conns: non-blocking reads and writes over a socket, plain or TLS.
from spokes._fastpath.base.buf cimport Chain
from spokes._fastpath.base.types cimport uint64_t, uint8_t
from spokes._fastpath.io.conn_state cimport Conn

# Read into dst: bytes (> 0), 0 not now, RC_EOF, RC_TLS or -errno.
cdef ssize_t conn_recv(Conn *conn, uint8_t *dst, size_t dst_bytes) noexcept nogil
cdef void conn_count(Conn *conn) noexcept nogil
cdef void conn_hold(Conn *conn, uint64_t *holder) noexcept nogil    # who its blocks are counted for; NULL: nobody
cdef size_t conn_room(Conn *conn) noexcept nogil
# All of it; src_bytes <= conn_room unless small.
cdef void conn_write(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef bint conn_takes_now(Conn *conn) noexcept nogil
# To the kernel at once, behind what waits: how many bytes of src it took. For plain conns, connected and writable.
cdef size_t conn_send_now(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef size_t conn_send_from(Conn *conn, Chain *chain) noexcept nogil     # the same from a chain, which drops it
cdef void conn_flush(Conn *conn) noexcept nogil
cdef void conn_fin(Conn *conn) noexcept nogil                       # half-close once everything is sent
cdef void conn_close(Conn *conn, bint abort) noexcept nogil         # now; no callback
cdef void conn_rx_keep(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil
# To the first worker of the mask that it has not tried, when this pass is over. False: it has been everywhere.
cdef bint conn_hand_over(Conn *conn, uint64_t worker_mask, uint64_t *workers_tried) noexcept nogil
cdef void conn_serve(Conn *conn) noexcept nogil                     # on_ready of a conn that is the end of a flow
