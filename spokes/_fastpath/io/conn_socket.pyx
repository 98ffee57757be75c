"""A conn's socket: reads and writes of what goes over the wire, and what it does once a system call has failed."""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memset

from spokes._fastpath.base.buf cimport chain_drop, chain_iov, iovec
from spokes._fastpath.base.net cimport SOL_SOCKET, SO_RCVBUF, recv, send, setsockopt
from spokes._fastpath.base.types cimport RC_EOF, uint32_t
from spokes._fastpath.io.conn_state cimport ROLE_UPSTREAM, SO_BUF_LOCK
from spokes._fastpath.io.loop cimport conn_mark_dirty
from spokes._fastpath.io.tune cimport tune_unsent

cdef extern from "sys/socket.h" nogil:
    cdef struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int fd, const msghdr *msg, int flags)

cdef enum:
    IOV_COUNT = 20                      # blocks sent by one call
    VISITOR_UNSENT_BYTES = 131072       # of a visitor that reads …
    LOCAL_RECEIVE_BYTES_PROVEN = 4194304    # … and of this as much as rmem_max allows


cdef void conn_fail(Conn *conn, int rc) noexcept nogil:
    if conn.error == 0:
        conn.error = rc
    conn.writable = 0
    conn.readable = 1                   # so that its reader reads and finds the error
    conn_mark_dirty(conn)


cdef void conn_prove(Conn *conn, size_t bytes) noexcept nogil:
    cdef int any_size = 0
    cdef int receive_bytes = LOCAL_RECEIVE_BYTES_PROVEN
    if bytes < conn.unproven_bytes:
        conn.unproven_bytes -= <uint32_t>bytes
        return
    conn.unproven_bytes = 0
    if conn.role == ROLE_VISITOR:
        tune_unsent(conn.fd, VISITOR_UNSENT_BYTES)
    elif conn.role == ROLE_UPSTREAM:
        # By itself it would not grow where the kernel has given out a part of its memory (tcp_mem's first number).
        setsockopt(conn.fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes))
        setsockopt(conn.fd, SOL_SOCKET, SO_BUF_LOCK, &any_size, sizeof(any_size))


cdef ssize_t conn_recv_raw(Conn *conn, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    cdef ssize_t n
    while True:
        n = recv(conn.fd, dst, dst_bytes, 0)
        if n > 0:
            # A short read has emptied the socket; the next byte is a new edge. After RDHUP the EOF is still to be read.
            if <size_t>n < dst_bytes and not conn.rdhup:
                conn.readable = 0
            if conn.unproven_bytes > 0 and conn.role == ROLE_UPSTREAM:
                conn_prove(conn, n)
            return n
        if n == 0:
            conn.readable = 0
            return RC_EOF
        if errno == EAGAIN:
            conn.readable = 0
            return 0
        if errno != EINTR:
            conn.readable = 0
            return -errno


cdef ssize_t conn_send_chain(Conn *conn, Chain *chain, const uint8_t *more, size_t more_bytes) noexcept nogil:
    """One sendmsg of the chain and then `more`; what went out is dropped. Bytes of `more` sent, -1: failed."""
    cdef iovec iov[IOV_COUNT + 1]
    cdef msghdr msg
    cdef ssize_t n
    cdef size_t total = 0
    cdef size_t queued = chain.bytes
    cdef int i
    cdef int count = chain_iov(chain, iov, IOV_COUNT)
    for i in range(count):
        total += iov[i].iov_len
    if more_bytes > 0 and total == queued:
        iov[count].iov_base = <void *>more
        iov[count].iov_len = more_bytes
        total += more_bytes
        count += 1
    if count == 1:                      # the common case, and the cheaper call
        n = send(conn.fd, iov[0].iov_base, total, send_flags(conn))
    else:
        memset(&msg, 0, sizeof(msg))
        msg.msg_iov = iov
        msg.msg_iovlen = count
        n = sendmsg(conn.fd, &msg, send_flags(conn))
    n = conn_wrote(conn, n, total)
    if n <= 0:
        return n
    if <size_t>n <= queued:
        chain_drop(&conn.loop.pool, chain, n)
        return 0
    chain_drop(&conn.loop.pool, chain, queued)
    return n - queued
