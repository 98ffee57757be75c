# A conn's socket: reads and writes of what goes over the wire, and what it does once a system call has failed.
from libc.errno cimport EAGAIN, EINTR, errno

from spokes._fastpath.base.buf cimport Chain
from spokes._fastpath.base.net cimport MSG_EOR, MSG_NOSIGNAL
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.io.conn_state cimport ROLE_VISITOR, Conn

cdef void conn_fail(Conn *conn, int rc) noexcept nogil
cdef void conn_prove(Conn *conn, size_t bytes) noexcept nogil       # it has carried so much towards its visitor

cdef inline void conn_sent(Conn *conn, ssize_t bytes) noexcept nogil:
    if conn.unproven_bytes > 0 and bytes > 0 and conn.role == ROLE_VISITOR:
        conn_prove(conn, bytes)

cdef inline ssize_t conn_wrote(Conn *conn, ssize_t n, size_t asked) noexcept nogil:
    """What a write to the socket came to: bytes that went out, 0 where it takes none now, -1 where it failed."""
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            conn_fail(conn, -errno)
            return -1
        n = 0
    if <size_t>n < asked:
        conn.writable = 0
    conn_sent(conn, n)
    return n

cdef ssize_t conn_recv_raw(Conn *conn, uint8_t *dst, size_t dst_bytes) noexcept nogil   # past TLS and a kept error

cdef inline int send_flags(const Conn *conn) noexcept nogil:
    """On a slow link every write is a piece of its own to the kernel: what it may append to another one, up to 64 KiB,
    it takes whatever TCP_NOTSENT_LOWAT says."""
    return MSG_NOSIGNAL | MSG_EOR if conn.on_slow_line else MSG_NOSIGNAL

cdef ssize_t conn_send_chain(Conn *conn, Chain *chain, const uint8_t *more, size_t more_bytes) noexcept nogil
