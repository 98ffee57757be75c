"""UDP services at a client: one socket per stream.

Owns: the socket, one reference to the upstream. Bound: a flow keeps one datagram of UDP_KEPT_BYTES_MAX until it is
answered. Fails: what cannot be delivered is dropped and counted. Only the first datagram to an upstream of several
addresses is sent again, to the next one, where an address refuses it.
"""
from libc.errno cimport EADDRNOTAVAIL, EAGAIN, EINTR, EMSGSIZE, ENOBUFS, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from spokes._fastpath.base.net cimport (
    AF_UNIX, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, close, connect, recv, send, sockaddr, socket,
)
from spokes._fastpath.base.poller cimport EPOLLIN, poller_add
from spokes._fastpath.base.reason cimport REASON_GONE, REASON_INTERNAL, REASON_NO_SERVICE
from spokes._fastpath.base.timer cimport timer_set
from spokes._fastpath.base.types cimport atomic_get, atomic_set, uint32_t, uint64_t
from spokes._fastpath.flow.fault cimport fault_of_dial, fault_reason
from spokes._fastpath.flow.own_address cimport address_forget, address_is_loop, address_note, address_tell_loop
from spokes._fastpath.flow.udp_listener cimport discard_on_data, nothing, port_idle_ms
from spokes._fastpath.flow.udp_state cimport UDP_BATCH, UDP_KEPT_BYTES_MAX, Peer
from spokes._fastpath.flow.upstream cimport upstream_note_fault
from spokes._fastpath.io.conn cimport conn_close
from spokes._fastpath.io.conn_life cimport conn_new
from spokes._fastpath.io.conn_state cimport ROLE_UDP, RX_BYTES, End, EndOps
from spokes._fastpath.link.link_datagrams cimport stream_datagram
from spokes._fastpath.link.stream cimport stream_close
from spokes._fastpath.route.outcome cimport FAULT_LOOP, FAULT_NAME, outcome_answered, outcome_fault, outcome_is_loop
from spokes._fastpath.route.site cimport upstream_hold, upstream_release

cdef enum:
    WATCH_MS_MAX = 10000


cdef int flow_connect(Peer *flow) noexcept nogil:
    """To the address that is next, or the first after it that the kernel has a way to. 0 or -errno of the last."""
    cdef Upstream *upstream = flow.upstream
    cdef Conn *conn = flow.conn
    cdef int last = -99                 # EADDRNOTAVAIL, when there is none left
    cdef int fd
    cdef uint8_t i
    while flow.tried < upstream.address_count:
        i = <uint8_t>((flow.first + flow.tried) % upstream.address_count)
        fd = socket(upstream.addresses[i].ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if fd >= 0 and connect(fd, <const sockaddr *>&upstream.addresses[i], upstream.address_bytes[i]) == 0 \
                and poller_add(conn.loop.epoll_fd, fd, EPOLLIN, conn) == 0:
            if conn.fd >= 0:
                close(conn.fd)
            conn.fd = fd
            conn.error = 0
            address_forget(flow.noted)
            flow.noted = address_note(conn.loop, fd, &upstream.addresses[i], flow.hops, True)
            return 0
        last = -errno
        if fd >= 0:
            close(fd)
        flow.tried += 1
    return last


cdef void flow_forget_kept(Peer *flow) noexcept nogil:
    free(flow.kept)
    flow.kept = NULL


cdef void flow_keep(Peer *flow, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    """Keep the last datagram until an address has answered: it may have to go to another one."""
    flow_forget_kept(flow)
    if src_bytes == 0 or src_bytes > UDP_KEPT_BYTES_MAX:
        return
    flow.kept = <uint8_t *>malloc(src_bytes)
    if flow.kept != NULL:
        memcpy(flow.kept, src, src_bytes)
        flow.kept_bytes = src_bytes


cdef void flow_fault(Peer *flow, int rc) noexcept nogil:
    upstream_note_fault(flow.conn.loop, flow.upstream, rc)
    outcome_fault(&flow.upstream.outcomes, fault_of_dial(rc), flow.conn.loop.wall_ms)


cdef bint flow_next_address(Peer *flow, int rc) noexcept nogil:
    """Nobody takes datagrams at the address. While none has answered the others are tried in turn: True where one is
    left; when all have refused, the next datagram begins again with the first."""
    cdef bint is_left = False
    flow_fault(flow, rc)
    if not flow.answered and flow.upstream.address_count > 1:
        flow.tried += 1
        is_left = flow_connect(flow) == 0
        if not is_left:
            flow.tried = 0
            flow_connect(flow)
    flow.answered = 0
    return is_left


cdef void flow_refused(Peer *flow, int rc) noexcept nogil:
    """The last datagram was refused: send it to the next address."""
    if not flow_next_address(flow, rc) or flow.kept == NULL \
            or send(flow.conn.fd, flow.kept, flow.kept_bytes, MSG_NOSIGNAL) < 0:
        flow.conn.loop.stats.datagrams_dropped += 1


cdef void flow_in_loop(Peer *flow) noexcept nogil:
    """Count a loop: the flow came back and was ended there. The flows before it in the ring are part of it too."""
    address_tell_loop(flow.conn.loop, &flow.stream.visitor, True)
    if not outcome_is_loop(&flow.upstream.outcomes, flow.conn.loop.wall_ms):
        outcome_fault(&flow.upstream.outcomes, FAULT_LOOP, flow.conn.loop.wall_ms)


cdef void flow_datagram(Stream *stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    cdef Peer *flow = <Peer *>stream.end.owner
    cdef Loop *loop = stream.link.loop
    cdef int _i
    if flow == NULL:
        return
    flow.heard_ms = loop.now_ms
    if address_is_loop(flow.noted):
        flow_in_loop(flow)
    if not flow.answered and flow.upstream.address_count > 1:
        flow_keep(flow, src, src_bytes)
    for _i in range(2):                 # the first call may tell of an earlier datagram, and then has sent nothing
        if send(flow.conn.fd, src, src_bytes, MSG_NOSIGNAL) >= 0:
            loop.stats.datagrams_out += 1
            return
        if errno == EAGAIN or errno == EINTR or errno == EMSGSIZE or errno == ENOBUFS:
            break                       # says nothing of the service
        if _i == 0:
            flow_next_address(flow, -errno)
            loop.stats.datagrams_dropped += 1
    loop.stats.datagrams_dropped += 1


cdef void flow_answered(Peer *flow) noexcept nogil:
    flow.answered = 1
    flow_forget_kept(flow)
    if flow.tried > 0:
        flow.first = <uint8_t>((flow.first + flow.tried) % flow.upstream.address_count)
        flow.tried = 0
        atomic_set(&flow.upstream.first_address_udp, flow.first)


cdef void flow_ready(Conn *conn) noexcept nogil:
    cdef Peer *flow = <Peer *>conn.extra
    cdef ssize_t n
    cdef int rc = conn.error            # of the ICMP answer to an earlier datagram, where the event told it
    cdef int _i
    conn.error = 0
    if rc < 0:
        flow_refused(flow, rc)
    for _i in range(UDP_BATCH):
        n = recv(conn.fd, conn.loop.rx, RX_BYTES, 0)
        if n < 0:
            if errno == EAGAIN or errno == EINTR:
                return
            flow_refused(flow, -errno)
            continue
        flow.heard_ms = conn.loop.now_ms
        outcome_answered(&flow.upstream.outcomes, conn.loop.wall_ms)
        if not flow.answered:
            flow_answered(flow)
        conn.loop.stats.datagrams_in += 1
        if not stream_datagram(flow.stream, conn.loop.rx, <uint32_t>n):
            conn.loop.stats.datagrams_dropped += 1


cdef void flow_end(Peer *flow) noexcept nogil:
    cdef Conn *conn = flow.conn
    if address_forget(flow.noted):
        flow_in_loop(flow)
    conn.extra = NULL
    flow_forget_kept(flow)
    upstream_release(flow.upstream)
    free(flow)
    conn_close(conn, False)


cdef void flow_eof(End *end) noexcept nogil:
    cdef Peer *flow = <Peer *>end.owner
    stream_close(<Stream *>end, REASON_GONE)
    flow_end(flow)


cdef void flow_gone(End *end, int rc) noexcept nogil:
    flow_end(<Peer *>end.owner)


cdef void flow_watch(Peer *flow, uint64_t idle_ms) noexcept nogil:
    """Set the timer, to WATCH_MS_MAX at most: its rule's time may change."""
    cdef Loop *loop = flow.conn.loop
    cdef uint64_t due_ms = flow.heard_ms + idle_ms
    if due_ms > loop.now_ms + WATCH_MS_MAX:
        due_ms = loop.now_ms + WATCH_MS_MAX
    timer_set(&loop.wheel, &flow.conn.timer, due_ms)


cdef void flow_expired(void *owner) noexcept nogil:
    cdef Peer *flow = <Peer *>owner
    cdef Loop *loop = flow.conn.loop
    cdef uint64_t idle_ms = port_idle_ms(loop, flow.conn.port)
    if loop.now_ms - flow.heard_ms < idle_ms:
        flow_watch(flow, idle_ms)
        return
    stream_close(flow.stream, REASON_GONE)
    flow_end(flow)


cdef EndOps flow_ops
flow_ops.on_data = discard_on_data
flow_ops.eof = flow_eof
flow_ops.room = nothing
flow_ops.gone = flow_gone


cdef void flow_conn_ready(Conn *conn) noexcept nogil:
    if conn.extra != NULL:
        flow_ready(conn)


cdef Upstream *udp_flow_upstream(Conn *conn) noexcept nogil:
    return (<Peer *>conn.extra).upstream if conn.on_ready == flow_conn_ready and conn.extra != NULL else NULL


cdef void udp_flow_end(Conn *conn, uint16_t reason) noexcept nogil:
    cdef Peer *flow = <Peer *>conn.extra
    stream_close(flow.stream, reason)
    flow_end(flow)


cdef int udp_serve(Loop *loop, Stream *stream, const Open *open, Upstream *upstream, uint8_t hops) noexcept nogil:
    cdef Peer *flow
    cdef Conn *conn
    cdef int rc
    if upstream.addresses[0].ss_family == AF_UNIX:
        return REASON_NO_SERVICE
    if upstream.address_count == 0:
        upstream_note_fault(loop, upstream, -EADDRNOTAVAIL)     # its name may have an address by now
        outcome_fault(&upstream.outcomes, FAULT_NAME, loop.wall_ms)
        return fault_reason(FAULT_NAME)
    flow = <Peer *>calloc(1, sizeof(Peer))
    conn = conn_new(loop, -1, ROLE_UDP, flow_conn_ready) if flow != NULL else NULL
    if conn == NULL:
        free(flow)
        return REASON_INTERNAL
    flow.conn = conn
    flow.stream = stream
    flow.heard_ms = loop.now_ms
    flow.upstream = upstream_hold(upstream)
    flow.hops = hops + 1
    flow.first = <uint8_t>(atomic_get(&flow.upstream.first_address_udp) % flow.upstream.address_count)
    conn.extra = flow
    conn.port = open.visitor.port
    rc = flow_connect(flow)
    if rc < 0:
        flow_fault(flow, rc)
        flow_end(flow)
        return fault_reason(fault_of_dial(rc))
    stream.end.ops = &flow_ops
    stream.end.owner = flow
    stream.on_datagram = flow_datagram
    conn.timer.fire = flow_expired
    conn.timer.owner = flow
    flow_watch(flow, port_idle_ms(loop, open.visitor.port))
    return 0
