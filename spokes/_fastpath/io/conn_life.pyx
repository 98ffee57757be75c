"""Conns that begin, and conns that travel to another worker as a copy of their own."""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from spokes._fastpath.base.buf cimport slab_get
from spokes._fastpath.base.poller cimport EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, poller_add, poller_remove
from spokes._fastpath.base.timer cimport timer_clear
from spokes._fastpath.io.conn cimport conn_flush
from spokes._fastpath.io.conn_kind cimport conn_kind
from spokes._fastpath.io.conn_state cimport PROOF_BYTES, ROLE_VISITOR
from spokes._fastpath.io.loop cimport conn_list, conn_unlist


cdef Conn *conn_new(Loop *loop, int fd, uint8_t role, conn_fn on_ready) noexcept nogil:
    cdef Conn *conn = <Conn *>slab_get(&loop.conns_slab)
    if conn == NULL:
        return NULL
    conn.end.kind = &conn_kind
    conn.fd = fd
    conn.role = role
    conn.on_ready = on_ready
    conn.on_flush = conn_flush
    conn.loop = loop
    conn.writable = 1
    if role == ROLE_VISITOR:
        conn.unproven_bytes = PROOF_BYTES
    conn_list(conn)
    return conn


cdef int conn_watch(Conn *conn) noexcept nogil:
    return poller_add(conn.loop.epoll_fd, conn.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, conn)


cdef Conn *conn_detach(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    cdef Conn *copy = <Conn *>malloc(sizeof(Conn))
    if copy == NULL:
        return NULL
    poller_remove(loop.epoll_fd, conn.fd)
    timer_clear(&loop.wheel, &conn.timer)
    conn_unlist(conn)
    memcpy(copy, conn, sizeof(Conn))
    copy.loop = NULL
    copy.worker_next = 0
    copy.next_deferred = NULL
    conn.closed = 1
    conn.next_deferred = loop.deferred
    loop.deferred = conn
    return copy


cdef Conn *conn_attach(Conn *copy, Loop *loop) noexcept nogil:
    cdef Conn *conn = <Conn *>slab_get(&loop.conns_slab)
    if conn == NULL:
        return NULL
    memcpy(conn, copy, sizeof(Conn))
    free(copy)
    conn.loop = loop
    conn.readable = conn.writable = 1   # the new epoll tells again, but what is ready now need not wait for it
    conn_list(conn)
    return conn
