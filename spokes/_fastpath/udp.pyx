"""UDP services: at a server one socket per public port and a stream per peer; at a client one socket per stream.

Owns: the socket, its peers. Bound: UDP_PEER_COUNT_MAX peers a port, UDP_IDLE_MS each; a congested link drops its
oldest datagrams.
Fails: what cannot be delivered is dropped, as UDP may; nothing is retried.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from spokes._fastpath.conn cimport (
    ROLE_UDP, RX_BYTES, End, EndOps, address_read, conn_attach, conn_close, conn_hand_over, conn_new,
)
from spokes._fastpath.frame cimport REASON_GONE, REASON_INTERNAL, REASON_NO_SERVICE, SERVICE_UDP, Address
from spokes._fastpath.mux cimport Link, link_pick, stream_close, stream_datagram, stream_open
from spokes._fastpath.net cimport (
    AF_UNIX, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, close, connect, recv, recvfrom, send, sendto,
    sockaddr, sockaddr_storage, socket, socklen_t,
)
from spokes._fastpath.poller cimport EPOLLIN, poller_add
from spokes._fastpath.route cimport (
    ROUTE_UDP, TARGET_TUNNEL, TARGET_UPSTREAM, Service, Target, Tunnel, route_find_port,
)
from spokes._fastpath.timer cimport timer_set
from spokes._fastpath.types cimport atomic_get, uint8_t, uint32_t

cdef enum:
    PEER_BUCKETS = 256
    SWEEP_MS = 10000

cdef struct Peer:                       # server: one source address; client: one stream
    Peer *next
    Stream *stream
    Conn *conn
    uint64_t heard_ms                   # last datagram in either direction
    Address address
    socklen_t sockaddr_bytes
    sockaddr_storage sockaddr_raw

cdef struct Listener:                   # server, Conn.extra
    uint64_t id
    uint32_t peer_count
    Peer *peers[PEER_BUCKETS]


# --- server -----------------------------------------------------------------------------------------------------------

cdef uint32_t peer_bucket(const Address *address) noexcept nogil:
    cdef uint32_t h = 2166136261u ^ address.port
    cdef int i
    for i in range(16):
        h = (h ^ address.ip[i]) * 16777619u
    return (h ^ (h >> 16)) % PEER_BUCKETS


cdef void peer_forget(Peer *peer) noexcept nogil:
    cdef Listener *listener = <Listener *>peer.conn.extra
    cdef Peer **place = &listener.peers[peer_bucket(&peer.address)]
    while place[0] != peer:
        place = &place[0].next
    place[0] = peer.next
    listener.peer_count -= 1
    free(peer)


cdef size_t discard_take(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    return src_bytes                    # DATA on a UDP stream means nothing


cdef void nothing(End *end) noexcept nogil:
    pass


cdef void peer_eof(End *end) noexcept nogil:
    cdef Peer *peer = <Peer *>end.owner
    stream_close(<Stream *>end, REASON_GONE)
    peer_forget(peer)


cdef void peer_gone(End *end, int rc) noexcept nogil:
    peer_forget(<Peer *>end.owner)


cdef void peer_datagram(Stream *stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    cdef Peer *peer = <Peer *>stream.end.owner
    if peer == NULL:
        return
    peer.heard_ms = stream.link.loop.now_ms
    if sendto(peer.conn.fd, src, src_bytes, MSG_NOSIGNAL, <const sockaddr *>&peer.sockaddr_raw,
              peer.sockaddr_bytes) < 0:
        stream.link.loop.stats.datagrams_dropped += 1
    else:
        stream.link.loop.stats.datagrams_out += 1
        stream.link.loop.stats.bytes_out += src_bytes


cdef EndOps peer_ops
peer_ops.take = discard_take
peer_ops.eof = peer_eof
peer_ops.room = nothing
peer_ops.gone = peer_gone


cdef Peer *peer_find(Listener *listener, const Address *address) noexcept nogil:
    cdef Peer *peer = listener.peers[peer_bucket(address)]
    while peer != NULL and memcmp(&peer.address, address, sizeof(Address)) != 0:
        peer = peer.next
    return peer


cdef Peer *peer_new(Conn *conn, Link *link, Service *service, const Address *address) noexcept nogil:
    cdef Listener *listener = <Listener *>conn.extra
    cdef Peer *peer
    cdef Open open
    cdef uint32_t bucket = peer_bucket(address)
    if listener.peer_count >= UDP_PEER_COUNT_MAX:
        return NULL
    peer = <Peer *>calloc(1, sizeof(Peer))
    if peer == NULL:
        return NULL
    memset(&open, 0, sizeof(open))
    open.service = SERVICE_UDP
    open.port = conn.port
    open.visitor = address[0]
    peer.stream = stream_open(link, &open, service)
    if peer.stream == NULL:
        free(peer)
        return NULL
    peer.stream.end.ops = &peer_ops
    peer.stream.end.owner = peer
    peer.stream.on_datagram = peer_datagram
    peer.conn = conn
    peer.address = address[0]
    peer.next = listener.peers[bucket]
    listener.peers[bucket] = peer
    listener.peer_count += 1
    return peer


cdef bint has_link(Tunnel *tunnel, Loop *loop) noexcept nogil:
    cdef Link *link = <Link *>tunnel.links[loop.index]
    while link != NULL and link.draining:
        link = link.next
    return link != NULL


cdef void listener_ready(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    cdef Listener *listener = <Listener *>conn.extra
    cdef sockaddr_storage source
    cdef socklen_t source_bytes
    cdef Address address
    cdef Target *target
    cdef Link *link
    cdef Peer *peer
    cdef ssize_t n
    cdef int _i
    if conn.worker_next:
        return
    if listener.peer_count == 0:        # go where the links are before reading: what was read cannot go along
        target = route_find_port(loop.routes, ROUTE_UDP, conn.port)
        if target != NULL and target.kind == TARGET_TUNNEL and not has_link(target.tunnel, loop) \
                and conn_hand_over(conn, atomic_get(&target.tunnel.worker_mask)):
            return
    for _i in range(UDP_BATCH):
        source_bytes = sizeof(source)
        n = recvfrom(conn.fd, loop.rx, RX_BYTES, 0, <sockaddr *>&source, &source_bytes)
        if n < 0:
            return
        address_read(&address, &source)
        peer = peer_find(listener, &address)
        if peer == NULL:
            target = route_find_port(loop.routes, ROUTE_UDP, conn.port)
            if target == NULL or target.kind != TARGET_TUNNEL:
                loop.stats.datagrams_dropped += 1
                continue
            link = link_pick(target.tunnel, loop)
            if link == NULL:
                loop.stats.datagrams_dropped += 1
                # The socket follows the links, but not for a link that is only full: that would end every peer's flow.
                if not has_link(target.tunnel, loop) and conn_hand_over(conn, atomic_get(&target.tunnel.worker_mask)):
                    forget_peers(conn)
                    return
                continue
            conn.workers_tried = 0
            peer = peer_new(conn, link, target.service, &address)
            if peer == NULL:
                loop.stats.datagrams_dropped += 1
                continue
            peer.sockaddr_raw = source
            peer.sockaddr_bytes = source_bytes
        peer.heard_ms = loop.now_ms
        loop.stats.datagrams_in += 1
        loop.stats.bytes_in += n
        stream_datagram(peer.stream, loop.rx, <uint32_t>n)


cdef void forget_peers(Conn *conn) noexcept nogil:
    cdef Listener *listener = <Listener *>conn.extra
    cdef int i
    for i in range(PEER_BUCKETS):
        while listener.peers[i] != NULL:
            stream_close(listener.peers[i].stream, REASON_GONE)
            peer_forget(listener.peers[i])


cdef void listener_closed(Conn *conn) noexcept nogil:
    forget_peers(conn)
    free(conn.extra)
    conn.extra = NULL


cdef void sweep(void *owner) noexcept nogil:
    cdef Conn *conn = <Conn *>owner
    cdef Listener *listener = <Listener *>conn.extra
    cdef Peer *peer
    cdef Peer *following
    cdef int i
    for i in range(PEER_BUCKETS):
        peer = listener.peers[i]
        while peer != NULL:
            following = peer.next
            if conn.loop.now_ms - peer.heard_ms >= UDP_IDLE_MS:
                stream_close(peer.stream, REASON_GONE)
                peer_forget(peer)
            peer = following
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + SWEEP_MS)


cdef void listener_watch(Conn *conn) noexcept nogil:
    conn.on_ready = listener_ready
    conn.timer.fire = sweep
    conn.timer.owner = conn
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + SWEEP_MS)
    poller_add(conn.loop.epoll_fd, conn.fd, EPOLLIN, conn)     # level-triggered: a batch a pass


cdef void udp_listen(Loop *loop, int fd, uint16_t port, uint64_t id) noexcept nogil:
    cdef Conn *conn
    cdef Listener *listener = <Listener *>calloc(1, sizeof(Listener))
    if listener == NULL:
        close(fd)
        return
    conn = conn_new(loop, fd, ROLE_UDP, listener_ready)
    if conn == NULL:
        close(fd)
        free(listener)
        return
    listener.id = id
    conn.extra = listener
    conn.on_close = listener_closed
    conn.port = port
    listener_watch(conn)


cdef void udp_take_over(Loop *loop, Conn *copy) noexcept nogil:
    cdef Conn *conn = conn_attach(copy, loop)
    if conn == NULL:
        close(copy.fd)
        return
    listener_watch(conn)


cdef uint64_t udp_listener_id(Conn *conn) noexcept nogil:
    return (<Listener *>conn.extra).id if conn.role == ROLE_UDP and conn.on_close == listener_closed else 0


# --- client -----------------------------------------------------------------------------------------------------------

cdef void flow_datagram(Stream *stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    cdef Peer *flow = <Peer *>stream.end.owner
    if flow == NULL:
        return
    flow.heard_ms = stream.link.loop.now_ms
    if send(flow.conn.fd, src, src_bytes, MSG_NOSIGNAL) < 0:
        stream.link.loop.stats.datagrams_dropped += 1
    else:
        stream.link.loop.stats.datagrams_out += 1


cdef void flow_ready(Conn *conn) noexcept nogil:
    cdef Peer *flow = <Peer *>conn.extra
    cdef ssize_t n
    cdef int _i
    for _i in range(UDP_BATCH):
        n = recv(conn.fd, conn.loop.rx, RX_BYTES, 0)
        if n < 0:
            return                      # EAGAIN, or an ICMP answer about an earlier datagram
        flow.heard_ms = conn.loop.now_ms
        conn.loop.stats.datagrams_in += 1
        stream_datagram(flow.stream, conn.loop.rx, <uint32_t>n)


cdef void flow_end(Peer *flow) noexcept nogil:
    cdef Conn *conn = flow.conn
    conn.extra = NULL
    free(flow)
    conn_close(conn, False)


cdef void flow_eof(End *end) noexcept nogil:
    cdef Peer *flow = <Peer *>end.owner
    stream_close(<Stream *>end, REASON_GONE)
    flow_end(flow)


cdef void flow_gone(End *end, int rc) noexcept nogil:
    flow_end(<Peer *>end.owner)


cdef void flow_expired(void *owner) noexcept nogil:
    cdef Peer *flow = <Peer *>owner
    cdef Loop *loop = flow.conn.loop
    if loop.now_ms - flow.heard_ms < UDP_IDLE_MS:
        timer_set(&loop.wheel, &flow.conn.timer, flow.heard_ms + UDP_IDLE_MS)
        return
    stream_close(flow.stream, REASON_GONE)
    flow_end(flow)


cdef EndOps flow_ops
flow_ops.take = discard_take
flow_ops.eof = flow_eof
flow_ops.room = nothing
flow_ops.gone = flow_gone


cdef void flow_conn_ready(Conn *conn) noexcept nogil:
    if conn.extra != NULL:
        flow_ready(conn)


cdef int udp_serve(Loop *loop, Stream *stream, const Open *open) noexcept nogil:
    cdef Target *target = route_find_port(loop.routes, ROUTE_UDP, open.port)
    cdef Peer *flow
    cdef Conn *conn
    cdef int fd
    if target == NULL or target.kind != TARGET_UPSTREAM or target.upstream.address_count == 0 \
            or target.upstream.addresses[0].ss_family == AF_UNIX:
        return REASON_NO_SERVICE
    fd = socket(target.upstream.addresses[0].ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return REASON_INTERNAL
    flow = <Peer *>calloc(1, sizeof(Peer))
    conn = conn_new(loop, fd, ROLE_UDP, flow_conn_ready) if flow != NULL else NULL
    if conn == NULL:
        close(fd)
        free(flow)
        return REASON_INTERNAL
    flow.conn = conn
    flow.stream = stream
    flow.heard_ms = loop.now_ms
    conn.extra = flow
    if connect(fd, <const sockaddr *>&target.upstream.addresses[0], target.upstream.address_bytes[0]) < 0 \
            or poller_add(loop.epoll_fd, fd, EPOLLIN, conn) < 0:
        flow_end(flow)
        return REASON_INTERNAL
    stream.end.ops = &flow_ops
    stream.end.owner = flow
    stream.on_datagram = flow_datagram
    conn.timer.fire = flow_expired
    conn.timer.owner = flow
    timer_set(&loop.wheel, &conn.timer, loop.now_ms + UDP_IDLE_MS)
    return 0
