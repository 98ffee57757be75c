"""Listening sockets: accepting in batches, pausing where the kernel has no descriptor or memory left.

Bound: ACCEPT_BATCH conns of one socket in one pass.
Fails: what cannot be accepted now waits in the kernel's queue; a conn that cannot be served is closed alone.
"""
from libc.errno cimport EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno

from spokes._fastpath.base.address cimport Address, address_read
from spokes._fastpath.base.net cimport (
    SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, close, sockaddr, sockaddr_storage, socklen_t,
)
from spokes._fastpath.base.poller cimport EPOLLIN, poller_add, poller_remove
from spokes._fastpath.base.timer cimport timer_set
from spokes._fastpath.core.visitor cimport (
    LISTENER_UDP, hello_ready, visitor_admit, visitor_begin, visitor_closed, visitor_release,
)
from spokes._fastpath.flow.udp_listener cimport udp_listen, udp_listener_id
from spokes._fastpath.io.conn cimport Conn, conn_close, conn_hold
from spokes._fastpath.io.conn_life cimport conn_new, conn_watch
from spokes._fastpath.io.conn_state cimport ROLE_LISTENER, ROLE_UDP, ROLE_VISITOR, Loop
from spokes._fastpath.io.tune cimport tune_listener
from spokes._fastpath.link.tunnel_slots cimport address_holder

cdef enum:
    ACCEPT_BATCH = 64
    ACCEPT_PAUSE_MS = 100


cdef void listener_pause(Worker *worker, Conn *listener) noexcept nogil:
    """Out of descriptors or kernel memory: what waits stays in the kernel's queue for a while."""
    if listener.end.paused:
        return
    listener.end.paused = 1
    poller_remove(worker.loop.epoll_fd, listener.fd)
    listener.next_deferred = worker.listeners_paused
    worker.listeners_paused = listener
    worker.loop.stats.accept_paused_total += 1
    timer_set(&worker.loop.wheel, &worker.accept_timer, worker.loop.now_ms + ACCEPT_PAUSE_MS)


cdef void listeners_resume(void *owner) noexcept nogil:
    cdef Worker *worker = <Worker *>owner
    cdef Conn *listener
    while worker.listeners_paused != NULL:
        listener = worker.listeners_paused
        worker.listeners_paused = listener.next_deferred
        listener.end.paused = 0
        if not listener.closed:
            poller_add(worker.loop.epoll_fd, listener.fd, EPOLLIN, listener)


cdef void listener_ready(Conn *listener) noexcept nogil:
    cdef Worker *worker = <Worker *>listener.loop
    cdef Loop *loop = listener.loop
    cdef sockaddr_storage address
    cdef Address peer
    cdef socklen_t n
    cdef Conn *conn
    cdef int fd, _i
    for _i in range(ACCEPT_BATCH):
        n = sizeof(address)
        fd = accept4(listener.fd, <sockaddr *>&address, &n, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            if errno == EAGAIN:
                return
            if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                listener_pause(worker, listener)
                return
            continue                    # ECONNABORTED and the like concern that conn alone
        address_read(&peer, &address)
        if not visitor_admit(worker.shared, &peer):
            loop.stats.visitors_refused += 1
            close(fd)
            continue
        conn = conn_new(loop, fd, ROLE_VISITOR, hello_ready)
        if conn == NULL:
            visitor_release(worker.shared, &peer)
            close(fd)
            continue
        conn.on_close = visitor_closed
        conn.port = listener.port
        conn.tag = listener.tag
        conn.peer = peer
        conn_hold(conn, address_holder(&loop.pool, &peer))
        loop.stats.visitors_total += 1
        loop.stats.visitors_open += 1
        if conn_watch(conn) < 0:
            conn_close(conn, True)
            continue
        conn.readable = 1               # the first bytes are often there already
        visitor_begin(conn)


cdef void listener_add(Worker *worker, int fd, uint8_t kind, uint16_t port, uint64_t id) noexcept nogil:
    cdef Loop *loop = &worker.loop
    cdef Conn *conn
    if kind == LISTENER_UDP:
        udp_listen(loop, fd, port, id)
        return
    conn = conn_new(loop, fd, ROLE_LISTENER, listener_ready)
    if conn == NULL:
        close(fd)
        return
    conn.tag = kind
    conn.port = port
    conn.extra = <void *>id
    tune_listener(conn.fd)
    poller_add(loop.epoll_fd, conn.fd, EPOLLIN, conn)


cdef void listener_remove(Worker *worker, uint64_t id) noexcept nogil:
    cdef Conn *conn = worker.loop.conns
    listeners_resume(worker)
    while conn != NULL:
        if (conn.role == ROLE_LISTENER and <uint64_t>conn.extra == id) or (
                conn.role == ROLE_UDP and udp_listener_id(conn) == id):
            conn_close(conn, False)
            return
        conn = conn.next
