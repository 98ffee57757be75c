"""Conns to what finally answers: non-blocking connect, next address on failure, idle pool.

Owns: one reference to the upstream per conn. Bound: IDLE_COUNT_MAX idle conns a worker, IDLE_MS each.
Fails: ops.gone with -errno of the last address, or RC_TIMEOUT. A dial that fails or hangs is told to the control plane.
A byte or an EOF on an idle conn closes it: it was not asked for.
"""
from libc.errno cimport EAFNOSUPPORT, EAGAIN, EINPROGRESS, errno
from libc.stdlib cimport calloc, free

from spokes._fastpath.conn cimport (
    ROLE_UPSTREAM, conn_close, conn_mark_dirty, conn_new, conn_recv,
)
from spokes._fastpath.net cimport (
    AF_UNIX, IPPROTO_TCP, SO_ERROR, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, TCP_NODELAY, close, connect,
    getsockopt, setsockopt, sockaddr, socket, socklen_t,
)
from spokes._fastpath.poller cimport EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, poller_add
from spokes._fastpath.route cimport END_NEVER, upstream_hold, upstream_release
from spokes._fastpath.timer cimport timer_clear, timer_set
from spokes._fastpath.types cimport RC_TIMEOUT, atomic_get, atomic_set

cdef enum:
    POOLS = 64

cdef struct IdlePools:
    UpstreamConn *first[POOLS]
    uint64_t count


cdef void idle_remove(UpstreamConn *up) noexcept nogil:
    cdef Loop *loop = up.conn.loop
    cdef IdlePools *pools = <IdlePools *>loop.idle_upstreams
    if up.prev != NULL:
        up.prev.next = up.next
    else:
        pools.first[up.upstream.id % POOLS] = up.next
    if up.next != NULL:
        up.next.prev = up.prev
    up.next = up.prev = NULL
    up.idle = 0
    pools.count -= 1
    loop.stats.upstreams_idle -= 1


cdef void upstream_closed(Conn *conn) noexcept nogil:
    cdef UpstreamConn *up = <UpstreamConn *>conn.extra
    if up.idle:
        idle_remove(up)
    conn.loop.stats.upstreams_open -= 1
    upstream_release(up.upstream)
    free(up)
    conn.extra = NULL


cdef inline uint8_t upstream_at(const UpstreamConn *up) noexcept nogil:
    """The index of the address that is being tried."""
    return <uint8_t>((up.first + up.tried) % up.upstream.address_count)


cdef void upstream_note_fault(Loop *loop, Upstream *upstream, int rc) noexcept nogil:
    if loop.upstream_fault != NULL and loop.now_ms - atomic_get(&upstream.fault_ms) >= FAULT_INTERVAL_MS:
        atomic_set(&upstream.fault_ms, loop.now_ms)
        loop.upstream_fault(loop, upstream.id, rc)


cdef void upstream_tell(UpstreamConn *up, int rc) noexcept nogil:
    upstream_note_fault(up.conn.loop, up.upstream, rc)


cdef int upstream_dial(UpstreamConn *up) noexcept nogil:
    """Begin with the address that is next, or the first after it not to fail at once. 0 or -errno of the last.

    A Unix socket with a full backlog answers EAGAIN and forgets us, where TCP would try again by itself: then the conn
    is connecting without a descriptor until upstream_expired dials again."""
    cdef Upstream *upstream = up.upstream
    cdef Conn *conn = up.conn
    cdef uint64_t share_ms
    cdef int fd, rc
    cdef int on = 1
    cdef int last = -99                 # EADDRNOTAVAIL, when there is no address at all
    cdef uint8_t i
    while up.tried < upstream.address_count:
        i = upstream_at(up)
        fd = socket(upstream.addresses[i].ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if fd < 0:
            last = -errno               # a host without IPv6 has no such sockets
            if last != -EAFNOSUPPORT:
                return last
            up.tried += 1
            continue
        if upstream.addresses[i].ss_family != AF_UNIX:
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        rc = connect(fd, <const sockaddr *>&upstream.addresses[i], upstream.address_bytes[i])
        if rc == 0 or errno == EINPROGRESS:
            conn.fd = fd
            conn.connecting = rc != 0
            conn.readable = conn.rdhup = 0      # an address that failed before may have left them set
            conn.writable = rc == 0
            up.retry_ms = 0
            up.address_ms = up.deadline_ms
            if up.tried + 1 < upstream.address_count:
                share_ms = 0
                if up.deadline_ms > conn.loop.now_ms:
                    share_ms = (up.deadline_ms - conn.loop.now_ms) // (upstream.address_count - up.tried)
                up.address_ms = conn.loop.now_ms + (share_ms if share_ms < ADDRESS_MS else ADDRESS_MS)
            rc = poller_add(conn.loop.epoll_fd, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, conn)
            return rc
        last = -errno
        close(fd)
        if last == -EAGAIN and upstream.addresses[i].ss_family == AF_UNIX:
            up.retry_ms = BUSY_RETRY_MS if up.retry_ms == 0 else up.retry_ms * 2
            if up.retry_ms > BUSY_RETRY_MS_MAX:
                up.retry_ms = BUSY_RETRY_MS_MAX
            conn.fd = -1
            conn.connecting = 1
            conn.writable = 0
            return 0
        upstream_tell(up, last)
        up.tried += 1
    return last


cdef void upstream_failed(UpstreamConn *up, int rc) noexcept nogil:
    cdef Conn *conn = up.conn
    conn.error = rc
    conn.connecting = 0
    conn_mark_dirty(conn)               # the flush tells ops.gone


cdef void upstream_go_on(UpstreamConn *up, int rc) noexcept nogil:
    """A dial has begun, has succeeded at once, or no address was left."""
    if rc < 0:
        upstream_failed(up, rc)
    elif up.conn.connecting:
        upstream_await(up)
    else:
        upstream_connected(up)


cdef void upstream_next(UpstreamConn *up, int rc) noexcept nogil:
    """The address that is being tried has failed: the next one, or that was all."""
    cdef int dialled
    upstream_tell(up, rc)
    close(up.conn.fd)
    up.conn.fd = -1
    up.tried += 1
    if up.tried >= up.upstream.address_count:
        upstream_failed(up, rc)
        return
    dialled = upstream_dial(up)
    upstream_go_on(up, rc if dialled == -99 else dialled)


cdef void upstream_connecting(Conn *conn) noexcept nogil:
    """on_ready until the connection stands."""
    cdef UpstreamConn *up = <UpstreamConn *>conn.extra
    cdef int error = 0
    cdef socklen_t n = sizeof(error)
    if conn.error < 0 or not conn.connecting:
        conn_mark_dirty(conn)
        return
    if not conn.writable:
        return
    getsockopt(conn.fd, SOL_SOCKET, SO_ERROR, &error, &n)
    if error != 0:
        upstream_next(up, -error)
    else:
        upstream_connected(up)


cdef void upstream_connected(UpstreamConn *up) noexcept nogil:
    cdef Conn *conn = up.conn
    conn.connecting = 0
    if up.tried > 0:
        atomic_set(&up.upstream.first_address, upstream_at(up))
    timer_clear(&conn.loop.wheel, &conn.timer)
    conn.on_ready = up.ready
    conn_mark_dirty(conn)
    if conn.readable:
        up.ready(conn)


cdef void upstream_await(UpstreamConn *up) noexcept nogil:
    cdef Loop *loop = up.conn.loop
    cdef uint64_t due_ms = up.address_ms
    if up.retry_ms > 0:
        due_ms = loop.now_ms + up.retry_ms
    elif due_ms > loop.now_ms + FAULT_INTERVAL_MS:
        due_ms = loop.now_ms + FAULT_INTERVAL_MS
    timer_set(&loop.wheel, &up.conn.timer, due_ms)


cdef void upstream_expired(void *owner) noexcept nogil:
    cdef Conn *conn = <Conn *>owner
    cdef UpstreamConn *up = <UpstreamConn *>conn.extra
    cdef uint64_t now_ms = conn.loop.now_ms
    if up.idle:
        conn_close(conn, False)
    elif not conn.connecting:
        return
    elif now_ms >= up.deadline_ms:
        upstream_tell(up, RC_TIMEOUT)
        upstream_failed(up, RC_TIMEOUT)
    elif up.retry_ms > 0:
        upstream_go_on(up, upstream_dial(up))
    elif now_ms >= up.address_ms:
        upstream_next(up, RC_TIMEOUT)
    else:
        upstream_tell(up, RC_TIMEOUT)
        timer_set(&conn.loop.wheel, &conn.timer, up.address_ms)


cdef Conn *upstream_connect(Loop *loop, Upstream *upstream, const EndOps *ops, void *owner,
                            conn_fn ready) noexcept nogil:
    cdef UpstreamConn *up = <UpstreamConn *>calloc(1, sizeof(UpstreamConn))
    cdef Conn *conn
    cdef int rc
    if up == NULL:
        return NULL
    conn = conn_new(loop, -1, ROLE_UPSTREAM, upstream_connecting)
    if conn == NULL:
        free(up)
        return NULL
    up.conn = conn
    up.upstream = upstream_hold(upstream)
    up.ready = ready
    if upstream.address_count > 0:
        up.first = <uint8_t>(atomic_get(&upstream.first_address) % upstream.address_count)
    up.deadline_ms = loop.now_ms + CONNECT_MS
    conn.extra = up
    conn.on_close = upstream_closed
    conn.end.ops = ops
    conn.end.owner = owner
    conn.timer.fire = upstream_expired
    conn.timer.owner = conn
    loop.stats.upstreams_open += 1
    loop.stats.upstreams_total += 1
    rc = upstream_dial(up)
    if rc == 0 and not conn.connecting:
        conn.on_ready = ready           # a Unix socket: not before the caller has the conn
    else:
        upstream_go_on(up, rc)
    return conn


cdef Conn *upstream_take_idle(Loop *loop, Upstream *upstream, const EndOps *ops, void *owner,
                              conn_fn ready) noexcept nogil:
    cdef IdlePools *pools = <IdlePools *>loop.idle_upstreams
    cdef UpstreamConn *up
    cdef Conn *conn
    if pools == NULL:
        return NULL
    up = pools.first[upstream.id % POOLS]
    while up != NULL:
        conn = up.conn
        if up.upstream == upstream and not conn.readable and conn.error == 0 and not conn.rdhup:
            idle_remove(up)
            timer_clear(&loop.wheel, &conn.timer)
            up.reused = 1
            conn.end.ops = ops
            conn.end.owner = owner
            conn.on_ready = ready
            return conn
        up = up.next
    return NULL


cdef void idle_ready(Conn *conn) noexcept nogil:
    if conn.readable or conn.rdhup or conn.error < 0:
        conn_close(conn, False)


cdef void upstream_give_back(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    cdef UpstreamConn *up = <UpstreamConn *>conn.extra
    cdef IdlePools *pools = <IdlePools *>loop.idle_upstreams
    cdef UpstreamConn **first
    cdef uint8_t unasked
    # A read that was filled to the brim leaves `readable` set: one more read tells whether anything is there.
    if conn.readable and not conn.rdhup and conn_recv(conn, &unasked, 1) != 0:
        conn_close(conn, False)
        return
    if pools == NULL:
        pools = <IdlePools *>calloc(1, sizeof(IdlePools))
        loop.idle_upstreams = pools
    if pools == NULL or pools.count >= IDLE_COUNT_MAX or atomic_get(&up.upstream.end_ms) != END_NEVER \
            or conn.readable or conn.rdhup or conn.error < 0 \
            or conn.out.bytes > 0 or conn.end.rx.bytes > 0 or conn.end.fin:
        conn_close(conn, False)
        return
    conn.end.ops = NULL
    conn.end.owner = NULL
    conn.end.paused = conn.end.wants_room = 0
    conn.on_ready = idle_ready
    first = &pools.first[up.upstream.id % POOLS]
    up.next = first[0]
    up.prev = NULL
    if up.next != NULL:
        up.next.prev = up
    first[0] = up
    up.idle = 1
    pools.count += 1
    loop.stats.upstreams_idle += 1
    timer_set(&loop.wheel, &conn.timer, loop.now_ms + IDLE_MS)


cdef void upstream_clear(Loop *loop) noexcept nogil:
    free(loop.idle_upstreams)
    loop.idle_upstreams = NULL
