"""Conns to what finally answers: non-blocking connect, next address on failure, idle pool.

Owns: one reference to the upstream per conn. Bound: IDLE_COUNT_MAX idle conns a worker, IDLE_MS each, less where the
upstream says or shows that it keeps them for less.
Fails: ops.gone with -errno of the last address, or RC_TIMEOUT. A dial that fails or hangs is told to the control plane.
A byte or an EOF on an idle conn closes it: it was not asked for. The time of the EOF is the upstream's idle time-out.
Source: RFC 9112, section 9.3.1 (a close may cross a request) and 9.5 (Keep-Alive's parameter is no promise).
"""
from libc.errno cimport EAFNOSUPPORT, EAGAIN, EINPROGRESS, errno
from libc.stdlib cimport calloc, free

from spokes._fastpath.base.net cimport (
    AF_INET, AF_INET6, AF_UNIX, IPPROTO_TCP, MSG_PEEK, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, SO_ERROR,
    TCP_NODELAY, close, connect, getsockopt, recv, setsockopt, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage,
    socket, socklen_t,
)
from spokes._fastpath.base.poller cimport EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, poller_add
from spokes._fastpath.base.timer cimport timer_clear, timer_set
from spokes._fastpath.base.types cimport RC_TIMEOUT, atomic_get, atomic_set
from spokes._fastpath.flow.fault cimport fault_of_dial
from spokes._fastpath.flow.own_address cimport address_forget, address_note
from spokes._fastpath.io.conn cimport conn_close, conn_recv, conn_serve
from spokes._fastpath.io.conn_life cimport conn_new
from spokes._fastpath.io.conn_state cimport PROOF_BYTES, ROLE_UPSTREAM
from spokes._fastpath.io.loop cimport conn_mark_dirty
from spokes._fastpath.io.tune cimport PathState, path_state, tune_local_upstream
from spokes._fastpath.route.outcome cimport FAULT_NAME, outcome_fault
from spokes._fastpath.route.site cimport upstream_hold, upstream_release
from spokes._fastpath.route.tunnel cimport END_NEVER

cdef enum:
    POOLS = 64

cdef struct IdlePools:
    UpstreamConn *first[POOLS]
    uint64_t count


cdef void idle_remove(UpstreamConn *upstream_conn) noexcept nogil:
    cdef Loop *loop = upstream_conn.conn.loop
    cdef IdlePools *pools = <IdlePools *>loop.idle_upstreams
    if upstream_conn.phase.place.prev != NULL:
        upstream_conn.phase.place.prev.phase.place.next = upstream_conn.phase.place.next
    else:
        pools.first[upstream_conn.upstream.id % POOLS] = upstream_conn.phase.place.next
    if upstream_conn.phase.place.next != NULL:
        upstream_conn.phase.place.next.phase.place.prev = upstream_conn.phase.place.prev
    upstream_conn.phase.place.next = upstream_conn.phase.place.prev = NULL
    upstream_conn.idle = 0
    pools.count -= 1
    loop.stats.upstreams_idle -= 1


# --- dialling ---------------------------------------------------------------------------------------------------------

cdef inline uint8_t upstream_at(const UpstreamConn *upstream_conn) noexcept nogil:
    """The index of the address that is being tried."""
    return <uint8_t>((upstream_conn.first + upstream_conn.tried) % upstream_conn.upstream.address_count)


cdef void upstream_closed(Conn *conn) noexcept nogil:
    cdef UpstreamConn *upstream_conn = <UpstreamConn *>conn.extra
    address_forget(upstream_conn.noted)
    if upstream_conn.idle:
        idle_remove(upstream_conn)
    conn.loop.stats.upstreams_open -= 1
    upstream_release(upstream_conn.upstream)
    free(upstream_conn)
    conn.extra = NULL


cdef void upstream_note_fault(Loop *loop, Upstream *upstream, int rc) noexcept nogil:
    """Tell the control plane, once in FAULT_INTERVAL_MS."""
    if loop.upstream_fault != NULL and loop.now_ms - atomic_get(&upstream.fault_ms) >= FAULT_INTERVAL_MS:
        atomic_set(&upstream.fault_ms, loop.now_ms)
        loop.upstream_fault(loop, upstream.id, rc)


cdef void upstream_tell(UpstreamConn *upstream_conn, int rc) noexcept nogil:
    upstream_note_fault(upstream_conn.conn.loop, upstream_conn.upstream, rc)


cdef bint is_local(sockaddr_storage *address) noexcept nogil:
    cdef uint8_t *ip = (<sockaddr_in6 *>address).sin6_addr.s6_addr
    cdef int i
    if address.ss_family == AF_INET:
        return (<uint8_t *>&(<sockaddr_in *>address).sin_addr)[0] == 127
    for i in range(15):
        if ip[i] != 0:
            return False
    return address.ss_family == AF_INET6 and ip[15] == 1


cdef uint64_t address_deadline_ms(const UpstreamConn *upstream_conn) noexcept nogil:
    """Until when the address that is being tried may be silent: ADDRESS_MS, or its share of the time that is left."""
    cdef const UpstreamDial *dial = &upstream_conn.phase.dial
    cdef uint64_t now_ms = upstream_conn.conn.loop.now_ms
    cdef uint64_t left_ms = dial.deadline_ms - now_ms if dial.deadline_ms > now_ms else 0
    cdef int address_count = upstream_conn.upstream.address_count - upstream_conn.tried
    if address_count <= 1:
        return dial.deadline_ms
    return now_ms + min(left_ms // address_count, <uint64_t>ADDRESS_MS)


cdef int upstream_dial(UpstreamConn *upstream_conn) noexcept nogil:
    """Begin with the address that is next, or the first after it not to fail at once. 0 or -errno of the last.

    A Unix socket with a full backlog answers EAGAIN once, where TCP would try again by itself: then the conn is
    connecting without a descriptor until upstream_expired dials again."""
    cdef Upstream *upstream = upstream_conn.upstream
    cdef Conn *conn = upstream_conn.conn
    cdef int fd, rc
    cdef int on = 1
    cdef int last = -99                 # EADDRNOTAVAIL, when there is no address at all
    cdef uint8_t i
    while upstream_conn.tried < upstream.address_count:
        i = upstream_at(upstream_conn)
        fd = socket(upstream.addresses[i].ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if fd < 0:
            last = -errno               # a host without IPv6 has no such sockets
            if last != -EAFNOSUPPORT:
                return last
            upstream_conn.tried += 1
            continue
        if upstream.addresses[i].ss_family != AF_UNIX:
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        conn.unproven_bytes = 0
        if is_local(&upstream.addresses[i]) and tune_local_upstream(fd, conn.loop.stats.upstreams_open):
            conn.unproven_bytes = PROOF_BYTES
        rc = connect(fd, <const sockaddr *>&upstream.addresses[i], upstream.address_bytes[i])
        if rc == 0 or errno == EINPROGRESS:
            conn.fd = fd
            conn.connecting = rc != 0
            conn.readable = conn.rdhup = 0      # an address that failed before may have left them set
            conn.writable = rc == 0
            upstream_conn.retry_ms = 0
            upstream_conn.phase.dial.address_ms = address_deadline_ms(upstream_conn)
            upstream_conn.noted = address_note(conn.loop, fd, &upstream.addresses[i], upstream_conn.hops, False)
            rc = poller_add(conn.loop.epoll_fd, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, conn)
            return rc
        last = -errno
        close(fd)
        if last == -EAGAIN and upstream.addresses[i].ss_family == AF_UNIX:
            upstream_conn.retry_ms = BUSY_RETRY_MS if upstream_conn.retry_ms == 0 else upstream_conn.retry_ms * 2
            if upstream_conn.retry_ms > BUSY_RETRY_MS_MAX:
                upstream_conn.retry_ms = BUSY_RETRY_MS_MAX
            conn.fd = -1
            conn.connecting = 1
            conn.writable = 0
            return 0
        upstream_tell(upstream_conn, last)
        upstream_conn.tried += 1
    return last


cdef void upstream_failed(UpstreamConn *upstream_conn, int rc) noexcept nogil:
    cdef Conn *conn = upstream_conn.conn
    upstream_conn.fault = fault_of_dial(rc)
    if upstream_conn.upstream.address_count == 0:
        upstream_conn.fault = FAULT_NAME
        upstream_tell(upstream_conn, rc)           # its name may have an address by now
    outcome_fault(&upstream_conn.upstream.outcomes, upstream_conn.fault, conn.loop.wall_ms)
    conn.error = rc
    conn.connecting = 0
    conn_mark_dirty(conn)               # the flush tells ops.gone


cdef void upstream_go_on(UpstreamConn *upstream_conn, int rc) noexcept nogil:
    """A dial has begun, has succeeded at once, or no address was left."""
    if rc < 0:
        upstream_failed(upstream_conn, rc)
    elif upstream_conn.conn.connecting:
        upstream_await(upstream_conn)
    else:
        upstream_connected(upstream_conn)


cdef void upstream_next(UpstreamConn *upstream_conn, int rc) noexcept nogil:
    """The address that is being tried has failed: the next one, or that was all."""
    cdef int dialled
    upstream_tell(upstream_conn, rc)
    address_forget(upstream_conn.noted)
    upstream_conn.noted = NULL
    close(upstream_conn.conn.fd)
    upstream_conn.conn.fd = -1
    upstream_conn.tried += 1
    if upstream_conn.tried >= upstream_conn.upstream.address_count:
        upstream_failed(upstream_conn, rc)
        return
    dialled = upstream_dial(upstream_conn)
    upstream_go_on(upstream_conn, rc if dialled == -99 else dialled)


cdef void upstream_connecting(Conn *conn) noexcept nogil:
    """on_ready until the connection stands."""
    cdef UpstreamConn *upstream_conn = <UpstreamConn *>conn.extra
    cdef int error = 0
    cdef socklen_t n = sizeof(error)
    if conn.error < 0 or not conn.connecting:
        conn_mark_dirty(conn)
        return
    if not conn.writable:
        return
    getsockopt(conn.fd, SOL_SOCKET, SO_ERROR, &error, &n)
    if error != 0:
        upstream_next(upstream_conn, -error)
    else:
        upstream_connected(upstream_conn)


cdef void upstream_connected(UpstreamConn *upstream_conn) noexcept nogil:
    cdef Conn *conn = upstream_conn.conn
    conn.connecting = 0
    if upstream_conn.tried > 0:
        atomic_set(&upstream_conn.upstream.first_address, upstream_at(upstream_conn))
    timer_clear(&conn.loop.wheel, &conn.timer)
    conn.on_ready = conn_serve
    conn_mark_dirty(conn)
    if conn.readable:
        conn_serve(conn)


cdef void upstream_await(UpstreamConn *upstream_conn) noexcept nogil:
    cdef Loop *loop = upstream_conn.conn.loop
    cdef uint64_t due_ms = upstream_conn.phase.dial.address_ms
    if upstream_conn.retry_ms > 0:
        due_ms = loop.now_ms + upstream_conn.retry_ms
    elif due_ms > loop.now_ms + FAULT_INTERVAL_MS:
        due_ms = loop.now_ms + FAULT_INTERVAL_MS
    timer_set(&loop.wheel, &upstream_conn.conn.timer, due_ms)


cdef void upstream_expired(void *owner) noexcept nogil:
    cdef Conn *conn = <Conn *>owner
    cdef UpstreamConn *upstream_conn = <UpstreamConn *>conn.extra
    cdef uint64_t now_ms = conn.loop.now_ms
    if upstream_conn.idle:
        conn_close(conn, False)
    elif not conn.connecting:
        return
    elif now_ms >= upstream_conn.phase.dial.deadline_ms:
        upstream_tell(upstream_conn, RC_TIMEOUT)
        upstream_failed(upstream_conn, RC_TIMEOUT)
    elif upstream_conn.retry_ms > 0:
        upstream_go_on(upstream_conn, upstream_dial(upstream_conn))
    elif now_ms >= upstream_conn.phase.dial.address_ms:
        upstream_next(upstream_conn, RC_TIMEOUT)
    else:
        upstream_tell(upstream_conn, RC_TIMEOUT)
        timer_set(&conn.loop.wheel, &conn.timer, upstream_conn.phase.dial.address_ms)


cdef Conn *upstream_connect(Loop *loop, Upstream *upstream, const EndOps *ops, void *owner) noexcept nogil:
    return upstream_connect_raw(loop, upstream, ops, owner, 0)


cdef Conn *upstream_connect_raw(Loop *loop, Upstream *upstream, const EndOps *ops, void *owner,
                                uint8_t hops) noexcept nogil:
    cdef UpstreamConn *upstream_conn = <UpstreamConn *>calloc(1, sizeof(UpstreamConn))
    cdef Conn *conn
    cdef int rc
    if upstream_conn == NULL:
        return NULL
    conn = conn_new(loop, -1, ROLE_UPSTREAM, upstream_connecting)
    if conn == NULL:
        free(upstream_conn)
        return NULL
    upstream_conn.conn = conn
    upstream_conn.upstream = upstream_hold(upstream)
    if upstream.address_count > 0:
        upstream_conn.first = <uint8_t>(atomic_get(&upstream.first_address) % upstream.address_count)
    upstream_conn.idle_timeout_ms = IDLE_UNSAID
    upstream_conn.hops = hops
    upstream_conn.phase.dial.deadline_ms = loop.now_ms + CONNECT_MS
    conn.extra = upstream_conn
    conn.on_close = upstream_closed
    conn.end.ops = ops
    conn.end.owner = owner
    conn.timer.fire = upstream_expired
    conn.timer.owner = conn
    loop.stats.upstreams_open += 1
    loop.stats.upstreams_total += 1
    rc = upstream_dial(upstream_conn)
    if rc == 0 and not conn.connecting:
        conn.on_ready = conn_serve           # a Unix socket: not before the caller has the conn
    else:
        upstream_go_on(upstream_conn, rc)
    return conn


# --- idle conns -------------------------------------------------------------------------------------------------------

cdef uint64_t acked_bytes(const Conn *conn) noexcept nogil:
    """Bytes sent that the other end's kernel has acknowledged; 0 where that is unknown (a Unix socket)."""
    cdef PathState path
    return path.acked_bytes if path_state(conn.fd, &path) else 0


cdef bint upstream_unheard(const Conn *conn) noexcept nogil:
    cdef const UpstreamConn *upstream_conn = <const UpstreamConn *>conn.extra
    return upstream_conn.mark.acked_bytes != 0 and acked_bytes(conn) == upstream_conn.mark.acked_bytes


cdef uint64_t idle_timeout_ms(const UpstreamConn *upstream_conn) noexcept nogil:
    """The upstream's, as it says or as it was seen; IDLE_UNSAID where neither is known."""
    cdef Upstream *upstream = upstream_conn.upstream
    cdef uint64_t timeout_ms = upstream_conn.idle_timeout_ms
    cdef uint64_t learned_ms = atomic_get(&upstream.idle_learned_ms)
    if learned_ms > 0 and learned_ms < timeout_ms \
            and upstream_conn.conn.loop.now_ms < atomic_get(&upstream.idle_learned_until_ms):
        timeout_ms = learned_ms
    return timeout_ms


cdef uint64_t idle_usable_ms(const UpstreamConn *upstream_conn) noexcept nogil:
    """How long this conn may be idle: our time, or the upstream's less what two clocks and a path may differ by."""
    cdef uint64_t timeout_ms = idle_timeout_ms(upstream_conn)
    cdef uint64_t margin_ms = timeout_ms // 4
    if margin_ms > IDLE_MARGIN_MS_MAX:
        margin_ms = IDLE_MARGIN_MS_MAX
    return timeout_ms - margin_ms if timeout_ms - margin_ms < IDLE_MS else IDLE_MS


cdef void idle_learn(UpstreamConn *upstream_conn) noexcept nogil:
    """Note how long the upstream keeps idle conns: it has closed one."""
    cdef Upstream *upstream = upstream_conn.upstream
    cdef uint64_t now_ms = upstream_conn.conn.loop.now_ms
    cdef uint64_t idle_ms = now_ms - upstream_conn.mark.idle_since_ms
    if idle_ms < LEARNED_MS_MIN:
        atomic_set(&upstream.closes_early_until_ms, now_ms + CLOSES_EARLY_KEEP_MS)
        return
    if idle_ms < atomic_get(&upstream.idle_learned_ms) or now_ms >= atomic_get(&upstream.idle_learned_until_ms):
        atomic_set(&upstream.idle_learned_ms, idle_ms)
    atomic_set(&upstream.idle_learned_until_ms, now_ms + LEARNED_KEEP_MS)


cdef bint idle_is_quiet(const Conn *conn) noexcept nogil:
    """Neither a byte nor an end waits in the kernel, whatever events are still to be read."""
    cdef uint8_t byte
    return recv(conn.fd, &byte, 1, MSG_PEEK) < 0 and errno == EAGAIN


cdef Conn *upstream_take_idle(Loop *loop, Upstream *upstream, const EndOps *ops, void *owner,
                              bint for_once) noexcept nogil:
    cdef IdlePools *pools = <IdlePools *>loop.idle_upstreams
    cdef UpstreamConn *upstream_conn
    cdef UpstreamConn *following
    cdef Conn *conn
    cdef uint64_t idle_ms
    if pools == NULL or (for_once and loop.now_ms < atomic_get(&upstream.closes_early_until_ms)):
        return NULL
    upstream_conn = pools.first[upstream.id % POOLS]
    while upstream_conn != NULL:
        conn = upstream_conn.conn
        following = upstream_conn.phase.place.next
        idle_ms = loop.now_ms - upstream_conn.mark.idle_since_ms
        if upstream_conn.upstream == upstream and not conn.readable and conn.error == 0 and not conn.rdhup \
                and idle_ms < idle_usable_ms(upstream_conn):
            if for_once:
                if idle_ms >= IDLE_FRESH_MS and idle_timeout_ms(upstream_conn) == IDLE_UNSAID:
                    return NULL         # the most recent one is first: the others have been idle for longer
                if not idle_is_quiet(conn):
                    conn.readable = 1   # its event, which is on its way, closes it
                    upstream_conn = following
                    continue
            idle_remove(upstream_conn)
            upstream_conn.mark.acked_bytes = acked_bytes(conn) if for_once else 0
            timer_clear(&loop.wheel, &conn.timer)
            upstream_conn.reused = 1
            conn.end.ops = ops
            conn.end.owner = owner
            conn.on_ready = conn_serve
            return conn
        upstream_conn = following
    return NULL


cdef void idle_ready(Conn *conn) noexcept nogil:
    if conn.readable or conn.rdhup or conn.error < 0:
        if conn.rdhup or conn.error < 0:
            idle_learn(<UpstreamConn *>conn.extra)
        conn_close(conn, False)


cdef void upstream_says_keep_alive(Conn *conn, int32_t keep_alive_s) noexcept nogil:
    cdef UpstreamConn *upstream_conn = <UpstreamConn *>conn.extra
    if keep_alive_s >= 0:
        upstream_conn.idle_timeout_ms = <uint32_t>keep_alive_s * 1000


cdef void upstream_give_back(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    cdef UpstreamConn *upstream_conn = <UpstreamConn *>conn.extra
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
    upstream_conn.mark.idle_since_ms = loop.now_ms
    if idle_usable_ms(upstream_conn) == 0 or pools == NULL or pools.count >= IDLE_COUNT_MAX \
            or atomic_get(&upstream_conn.upstream.end_ms) != END_NEVER or conn.readable or conn.rdhup \
            or conn.error < 0 or conn.out.bytes > 0 or conn.end.rx.bytes > 0 or conn.end.fin:
        conn_close(conn, False)
        return
    conn.end.ops = NULL
    conn.end.owner = NULL
    conn.end.paused = conn.end.wants_room = 0
    conn.on_ready = idle_ready
    first = &pools.first[upstream_conn.upstream.id % POOLS]
    upstream_conn.phase.place.next = first[0]
    upstream_conn.phase.place.prev = NULL
    if upstream_conn.phase.place.next != NULL:
        upstream_conn.phase.place.next.phase.place.prev = upstream_conn
    first[0] = upstream_conn
    upstream_conn.idle = 1
    pools.count += 1
    loop.stats.upstreams_idle += 1
    timer_set(&loop.wheel, &conn.timer, loop.now_ms + idle_usable_ms(upstream_conn))


cdef void upstream_clear(Loop *loop) noexcept nogil:
    free(loop.idle_upstreams)
    loop.idle_upstreams = NULL
