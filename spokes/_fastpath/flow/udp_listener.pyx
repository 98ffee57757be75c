"""UDP services at a server: one socket per public port, and a stream per peer.

Owns: the socket, its peers. Bound: udp_idle_ms of silence each; a congested link drops its oldest datagrams.
Fails: what cannot be delivered is dropped and counted, as UDP may.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from spokes._fastpath.base.address cimport Address, address_hash, address_read
from spokes._fastpath.base.net cimport close, sockaddr_storage, socklen_t
from spokes._fastpath.base.poller cimport EPOLLIN, poller_add
from spokes._fastpath.base.reason cimport REASON_GONE
from spokes._fastpath.base.timer cimport timer_set
from spokes._fastpath.base.types cimport uint32_t, uint64_t
from spokes._fastpath.flow.udp_peers cimport (
    is_crowded, peer_bucket, peer_enlist, peer_find, peer_forget, peer_heard, peer_to_evict,
)
from spokes._fastpath.flow.udp_socket cimport is_v6_socket, listener_recv, listener_send, tune_listening
from spokes._fastpath.flow.udp_state cimport PEER_BUCKETS, SHARES, UDP_BATCH, Listener, Local, Peer
from spokes._fastpath.io.conn cimport conn_hand_over
from spokes._fastpath.io.conn_life cimport conn_attach, conn_new
from spokes._fastpath.io.conn_state cimport ROLE_UDP, EndOps
from spokes._fastpath.link.frame cimport SERVICE_UDP, Open
from spokes._fastpath.link.link_datagrams cimport stream_datagram
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.link.site_links cimport Path, site_is_here, site_pick, site_workers
from spokes._fastpath.link.stream cimport stream_close
from spokes._fastpath.link.stream_open cimport stream_open
from spokes._fastpath.route.route cimport ROUTE_UDP, route_find_port
from spokes._fastpath.route.site cimport SITE_TUNNELS, Site
from spokes._fastpath.route.tunnel cimport Service

cdef enum:
    SWEEP_MS_MAX = 10000


cdef size_t discard_on_data(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
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
    peer_heard(peer, True)
    if listener_send(peer, src, src_bytes) < 0:
        stream.link.loop.stats.datagrams_dropped += 1
    else:
        stream.link.loop.stats.datagrams_out += 1
        stream.link.loop.stats.bytes_out += src_bytes


cdef EndOps peer_ops
peer_ops.on_data = discard_on_data
peer_ops.eof = peer_eof
peer_ops.room = nothing
peer_ops.gone = peer_gone


cdef Peer *peer_new(Conn *conn, const Path *path, Service *service, const Address *address) noexcept nogil:
    cdef Listener *listener = <Listener *>conn.extra
    cdef Peer *peer
    cdef Open open
    cdef uint32_t bucket = peer_bucket(address)
    cdef uint8_t share = address_hash(address, 0) % SHARES
    cdef Peer *leaving = NULL
    if is_crowded(listener, path.tunnel, conn.loop):
        leaving = peer_to_evict(conn, &listener.shares[share])
        if leaving == NULL:
            return NULL
    peer = <Peer *>calloc(1, sizeof(Peer))
    if peer == NULL:
        return NULL
    memset(&open, 0, sizeof(open))
    open.service = SERVICE_UDP
    open.visitor.port = conn.port
    open.visitor.address = address[0]
    peer.stream = stream_open(path.link, path.tunnel, &open, service)
    if peer.stream == NULL:
        free(peer)
        return NULL
    if leaving != NULL:                 # only now that the place is used
        stream_close(leaving.stream, REASON_GONE)
        peer_forget(leaving)
    peer.stream.end.ops = &peer_ops
    peer.stream.end.owner = peer
    peer.stream.on_datagram = peer_datagram
    peer.conn = conn
    peer.address = address[0]
    peer.next = listener.peers[bucket]
    listener.peers[bucket] = peer
    listener.peer_count += 1
    peer.share = share
    listener.shares[share].peer_count += 1
    peer_enlist(peer)
    return peer


cdef bint follow(Conn *conn, const Site *site) noexcept nogil:
    """To a worker that has links, if one is left to be tried."""
    cdef uint64_t *tried = &conn.span.workers_tried
    return conn_hand_over(conn, site_workers(site, conn.loop, 0, tried[0]), tried)


cdef void listener_ready(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    cdef Listener *listener = <Listener *>conn.extra
    cdef sockaddr_storage source
    cdef socklen_t source_bytes
    cdef Address address
    cdef Local local
    cdef Site *site
    cdef Path path
    cdef Peer *peer
    cdef ssize_t n
    cdef int _i
    if conn.worker_next:
        return
    if listener.peer_count == 0:        # go where the links are before reading: what was read cannot go along
        site = route_find_port(loop.routes, ROUTE_UDP, conn.port)
        if site != NULL and site.kind == SITE_TUNNELS and not site_is_here(site, loop) \
                and site_pick(site, loop, 0, conn.span.workers_tried).link == NULL and follow(conn, site):
            return
    for _i in range(UDP_BATCH):
        n = listener_recv(conn, &source, &source_bytes, &local)
        if n < 0:
            return
        address_read(&address, &source)
        peer = peer_find(listener, &address, &local)
        if peer == NULL:
            site = route_find_port(loop.routes, ROUTE_UDP, conn.port)
            if site == NULL or site.kind != SITE_TUNNELS:
                loop.stats.datagrams_dropped += 1
                continue
            path = site_pick(site, loop, 0, conn.span.workers_tried)
            if path.link == NULL:
                loop.stats.datagrams_dropped += 1
                # The socket follows the links, but not for a link that is only full: that would end every peer's flow.
                if not site_is_here(site, loop) and follow(conn, site):
                    forget_peers(conn)
                    return
                continue
            conn.span.workers_tried = 0
            peer = peer_new(conn, &path, site.service, &address)
            if peer == NULL:
                loop.stats.datagrams_dropped += 1
                continue
            peer.local = local
            peer.sockaddr_raw = source
            peer.sockaddr_bytes = source_bytes
        peer_heard(peer, False)
        loop.stats.datagrams_in += 1
        loop.stats.bytes_in += n
        if not stream_datagram(peer.stream, loop.rx, <uint32_t>n):
            loop.stats.datagrams_dropped += 1


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


cdef uint64_t sweep_ms(uint64_t idle_ms) noexcept nogil:
    """The time between two sweeps: a sixth of the idle time, so that no peer stays much longer than that."""
    return idle_ms // 6 if idle_ms // 6 < SWEEP_MS_MAX else SWEEP_MS_MAX


cdef uint64_t port_idle_ms(Loop *loop, uint16_t port) noexcept nogil:
    """The idle time of the port's rule as it is now: a change counts for open flows too."""
    cdef Site *site = route_find_port(loop.routes, ROUTE_UDP, port)
    return site.policy.limits.udp_idle_ms if site != NULL and site.policy.limits.udp_idle_ms else loop.udp_idle_ms


cdef void sweep(void *owner) noexcept nogil:
    cdef Conn *conn = <Conn *>owner
    cdef Listener *listener = <Listener *>conn.extra
    cdef Peer *peer
    cdef Peer *following
    cdef uint64_t idle_ms = port_idle_ms(conn.loop, conn.port)
    cdef int i
    for i in range(PEER_BUCKETS):
        peer = listener.peers[i]
        while peer != NULL:
            following = peer.next
            if conn.loop.now_ms - peer.heard_ms >= idle_ms:
                stream_close(peer.stream, REASON_GONE)
                peer_forget(peer)
            peer = following
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + sweep_ms(idle_ms))


cdef void listener_watch(Conn *conn) noexcept nogil:
    conn.on_ready = listener_ready
    conn.timer.fire = sweep
    conn.timer.owner = conn
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + sweep_ms(port_idle_ms(conn.loop, conn.port)))
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
    listener.is_v6 = is_v6_socket(fd)
    tune_listening(fd)
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
