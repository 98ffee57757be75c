"""UDP services: at a server one socket per public port and a stream per peer; at a client one socket per stream.

A peer is a source address and the address of ours that it sent to: the answer leaves from that one (RFC 1122, 4.1.3.5),
or whoever asked, and every NAT on the way, would not know it.
Owns: the socket, its peers; one reference to the upstream per flow. Bound: UDP_PEER_COUNT_MAX peers a port, lent to
whoever comes and taken back from the address that holds most (who_leaves), udp_idle_ms each; a congested link drops its
oldest datagrams; a flow keeps one datagram of UDP_KEPT_BYTES_MAX until it is answered.
Fails: what cannot be delivered is dropped and counted, as UDP may. Only the first datagram to an upstream of several
addresses is sent again, to the next one, where an address refuses it.
"""
from libc.errno cimport EADDRNOTAVAIL, EAGAIN, EINTR, EMSGSIZE, ENOBUFS, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from spokes._fastpath.base.address cimport Address, address_hash, address_read, fnv1a
from spokes._fastpath.base.buf cimport iovec
from spokes._fastpath.base.net cimport (
    AF_INET6, AF_UNIX, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOL_SOCKET, close, connect, in6_addr,
    in_addr, recv, send, setsockopt, sockaddr, sockaddr_storage, socket, socklen_t,
)
from spokes._fastpath.base.poller cimport EPOLLIN, poller_add
from spokes._fastpath.base.reason cimport REASON_GONE, REASON_INTERNAL, REASON_NO_SERVICE
from spokes._fastpath.base.timer cimport timer_set
from spokes._fastpath.base.types cimport atomic_get, atomic_set, uint32_t, uint64_t, uint8_t
from spokes._fastpath.flow.fault cimport fault_of_dial, fault_reason
from spokes._fastpath.flow.upstream cimport (
    address_forget, address_is_loop, address_note, upstream_note_fault, upstream_tell_loop,
)
from spokes._fastpath.io.conn cimport conn_close, conn_hand_over
from spokes._fastpath.io.conn_life cimport conn_attach, conn_new
from spokes._fastpath.io.conn_state cimport ROLE_UDP, RX_BYTES, End, EndOps
from spokes._fastpath.link.frame cimport SERVICE_UDP
from spokes._fastpath.link.link_datagrams cimport stream_datagram
from spokes._fastpath.link.link_state cimport Link
from spokes._fastpath.link.site_links cimport site_is_here, site_pick, site_workers
from spokes._fastpath.link.stream cimport stream_close
from spokes._fastpath.link.stream_open cimport stream_open
from spokes._fastpath.link.tunnel_slots cimport tunnel_may_take
from spokes._fastpath.route.outcome cimport FAULT_LOOP, FAULT_NAME, outcome_answered, outcome_fault, outcome_is_loop
from spokes._fastpath.route.route cimport ROUTE_UDP, route_find_port
from spokes._fastpath.route.site cimport SITE_TUNNELS, Site, upstream_hold, upstream_release
from spokes._fastpath.route.tunnel cimport Service

cdef extern from "sys/socket.h" nogil:
    cdef struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *message)
    cmsghdr *CMSG_NXTHDR(msghdr *message, cmsghdr *one)
    uint8_t *CMSG_DATA(cmsghdr *one)
    size_t CMSG_LEN(size_t bytes)
    size_t CMSG_SPACE(size_t bytes)
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int getsockname(int fd, sockaddr *address, socklen_t *n)
    int SO_RXQ_OVFL

cdef extern from "netinet/in.h" nogil:
    cdef struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    cdef struct in6_pktinfo:
        in6_addr ipi6_addr
        unsigned int ipi6_ifindex
    int IPPROTO_IP
    int IPPROTO_IPV6
    int IP_PKTINFO
    int IPV6_PKTINFO
    int IPV6_RECVPKTINFO

cdef enum:
    PEER_BUCKETS = 256
    SHARES = 256
    UNASSURED_MS = 1000                 # so long a peer keeps its place, assured or not: 4096 OPENs a second at most
    SWEEP_MS_MAX = 10000
    WATCH_MS_MAX = 10000
    CONTROL_BYTES = 256                 # of one recvmsg or sendmsg: an address, a counter

cdef struct Local:                      # the address of ours that a datagram came to; no padding: it is compared whole
    uint8_t ip[16]
    uint32_t family                     # 0 = unknown, or one that nothing can leave from
    uint32_t interface                  # of a link-local one

cdef struct Peer:                       # server: one source address; client: one stream
    Peer *next
    Stream *stream
    Conn *conn
    uint64_t heard_ms                   # last datagram in either direction
    Peer *older                         # server, as all to sockaddr_raw: in its list, by heard_ms
    Peer *newer
    uint8_t share                       # index
    uint8_t assured                     # it went on after an answer: its address is its own
    Address address
    Local local
    socklen_t sockaddr_bytes
    sockaddr_storage sockaddr_raw
    Upstream *upstream                  # client, as all that follows
    uint8_t *kept                       # the last datagram sent, while an address is yet to answer; NULL = none
    uint32_t kept_bytes
    uint8_t first                       # index of the address that was tried first; the others follow in turn
    uint8_t tried                       # how many have refused
    uint8_t answered                    # at both ends
    uint8_t hops                        # its own address is noted with this number …
    uint64_t *noted                     # … here; NULL = nowhere

cdef struct PeerList:
    Peer *oldest
    Peer *newest

cdef struct Share:                      # the peers of one address (IPv6: one /64), and of others with the same index
    PeerList peers[2]                   # not assured, assured
    uint32_t peer_count

cdef struct Listener:                   # server, Conn.extra
    uint64_t id
    uint32_t peer_count
    uint32_t overflows                  # datagrams that the kernel had no room for, as last heard
    uint8_t is_v6                       # its socket: of IPv6, perhaps with IPv4 inside
    Peer *peers[PEER_BUCKETS]
    Share shares[SHARES]


# --- server -----------------------------------------------------------------------------------------------------------

cdef void tune_listening(int fd) noexcept nogil:
    """Every option is a wish; without the first two an answer leaves from the address that the kernel likes best."""
    cdef int on = 1
    setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on))
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on))
    setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof(on))


cdef bint is_mapped(const uint8_t *ip) noexcept nogil:
    """::ffff:a.b.c.d, as a socket of IPv6 shows IPv4."""
    cdef int i
    for i in range(10):
        if ip[i] != 0:
            return False
    return ip[10] == 0xFF and ip[11] == 0xFF


cdef bint is_link_local(const uint8_t *ip) noexcept nogil:
    return ip[0] == 0xFE and (ip[1] & 0xC0) == 0x80


cdef void local_read(Local *out, const uint8_t *ip, uint32_t interface) noexcept nogil:
    """From IPV6_PKTINFO. A group has no answers of its own."""
    if ip[0] == 0xFF:
        return
    if is_mapped(ip):
        out.family = 4
        memcpy(out.ip, ip + 12, 4)
        return
    out.family = 6
    memcpy(out.ip, ip, 16)
    out.interface = interface if is_link_local(ip) else 0


cdef ssize_t listener_recv(Conn *conn, sockaddr_storage *source, socklen_t *source_bytes, Local *local) noexcept nogil:
    """One datagram into loop.rx, and where it came to; < 0: none."""
    cdef Listener *listener = <Listener *>conn.extra
    cdef uint8_t control[CONTROL_BYTES]
    cdef iovec iov
    cdef msghdr message
    cdef cmsghdr *one
    cdef in_pktinfo v4
    cdef in6_pktinfo v6
    cdef uint32_t overflows
    cdef ssize_t n
    memset(local, 0, sizeof(Local))
    memset(&message, 0, sizeof(message))
    iov.iov_base = conn.loop.rx
    iov.iov_len = RX_BYTES
    message.msg_name = source
    message.msg_namelen = sizeof(sockaddr_storage)
    message.msg_iov = &iov
    message.msg_iovlen = 1
    message.msg_control = control
    message.msg_controllen = CONTROL_BYTES
    n = recvmsg(conn.fd, &message, 0)
    if n < 0:
        return n
    source_bytes[0] = message.msg_namelen
    one = CMSG_FIRSTHDR(&message)
    while one != NULL:
        if one.cmsg_level == IPPROTO_IP and one.cmsg_type == IP_PKTINFO:
            memcpy(&v4, CMSG_DATA(one), sizeof(v4))
            if v4.ipi_spec_dst.s_addr != 0:     # of a broadcast too it is an address of ours; 0 = came too early
                memset(local, 0, sizeof(Local))
                local.family = 4
                memcpy(local.ip, &v4.ipi_spec_dst, 4)
        elif one.cmsg_level == IPPROTO_IPV6 and one.cmsg_type == IPV6_PKTINFO and local.family == 0:
            memcpy(&v6, CMSG_DATA(one), sizeof(v6))
            local_read(local, <const uint8_t *>&v6.ipi6_addr, v6.ipi6_ifindex)
        elif one.cmsg_level == SOL_SOCKET and one.cmsg_type == SO_RXQ_OVFL:
            memcpy(&overflows, CMSG_DATA(one), 4)
            conn.loop.stats.datagrams_dropped += <uint32_t>(overflows - listener.overflows)
            listener.overflows = overflows
        one = CMSG_NXTHDR(&message, one)
    return n


cdef ssize_t listener_send(Peer *peer, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """To the peer, from the address it sent to."""
    cdef Listener *listener = <Listener *>peer.conn.extra
    cdef uint8_t control[CONTROL_BYTES]
    cdef iovec iov
    cdef msghdr message
    cdef cmsghdr *one
    cdef in_pktinfo v4
    cdef in6_pktinfo v6
    cdef uint8_t *ip
    memset(&message, 0, sizeof(message))
    iov.iov_base = <void *>src
    iov.iov_len = src_bytes
    message.msg_name = &peer.sockaddr_raw
    message.msg_namelen = peer.sockaddr_bytes
    message.msg_iov = &iov
    message.msg_iovlen = 1
    if peer.local.family == 0:
        return sendmsg(peer.conn.fd, &message, MSG_NOSIGNAL)
    memset(control, 0, CONTROL_BYTES)
    message.msg_control = control
    message.msg_controllen = CONTROL_BYTES
    one = CMSG_FIRSTHDR(&message)
    if listener.is_v6:
        memset(&v6, 0, sizeof(v6))
        ip = <uint8_t *>&v6.ipi6_addr
        if peer.local.family == 4:
            ip[10] = ip[11] = 0xFF
            memcpy(ip + 12, peer.local.ip, 4)
        else:
            memcpy(ip, peer.local.ip, 16)
        v6.ipi6_ifindex = peer.local.interface
        one.cmsg_level = IPPROTO_IPV6
        one.cmsg_type = IPV6_PKTINFO
        one.cmsg_len = CMSG_LEN(sizeof(v6))
        message.msg_controllen = CMSG_SPACE(sizeof(v6))
        memcpy(CMSG_DATA(one), &v6, sizeof(v6))
    else:
        memset(&v4, 0, sizeof(v4))
        memcpy(&v4.ipi_spec_dst, peer.local.ip, 4)
        one.cmsg_level = IPPROTO_IP
        one.cmsg_type = IP_PKTINFO
        one.cmsg_len = CMSG_LEN(sizeof(v4))
        message.msg_controllen = CMSG_SPACE(sizeof(v4))
        memcpy(CMSG_DATA(one), &v4, sizeof(v4))
    return sendmsg(peer.conn.fd, &message, MSG_NOSIGNAL)


cdef uint32_t peer_bucket(const Address *address) noexcept nogil:
    cdef uint32_t h = fnv1a(2166136261u ^ address.port, address.ip, 16)
    return (h ^ (h >> 16)) % PEER_BUCKETS


cdef void peer_enlist(Peer *peer) noexcept nogil:
    cdef PeerList *peers = &(<Listener *>peer.conn.extra).shares[peer.share].peers[peer.assured]
    peer.newer = NULL
    peer.older = peers.newest
    if peers.newest != NULL:
        peers.newest.newer = peer
    else:
        peers.oldest = peer
    peers.newest = peer


cdef void peer_delist(Peer *peer) noexcept nogil:
    cdef PeerList *peers = &(<Listener *>peer.conn.extra).shares[peer.share].peers[peer.assured]
    if peer.newer != NULL:
        peer.newer.older = peer.older
    else:
        peers.newest = peer.older
    if peer.older != NULL:
        peer.older.newer = peer.newer
    else:
        peers.oldest = peer.newer


cdef void peer_heard(Peer *peer, bint is_answer) noexcept nogil:
    """A datagram came from the peer, or goes there."""
    peer_delist(peer)
    peer.heard_ms = peer.conn.loop.now_ms
    if is_answer:
        peer.answered = 1
    elif peer.answered:
        peer.assured = 1
    peer_enlist(peer)


cdef void peer_forget(Peer *peer) noexcept nogil:
    cdef Listener *listener = <Listener *>peer.conn.extra
    cdef Peer **place = &listener.peers[peer_bucket(&peer.address)]
    while place[0] != peer:
        place = &place[0].next
    place[0] = peer.next
    peer_delist(peer)
    listener.shares[peer.share].peer_count -= 1
    listener.peer_count -= 1
    free(peer)


cdef bint is_crowded(const Listener *listener, Link *link) noexcept nogil:
    """Of the last quarter of a tunnel's places datagrams get as many as stay free for those who have shown that they
    are there: TCP."""
    return listener.peer_count >= UDP_PEER_COUNT_MAX \
        or not tunnel_may_take(link, atomic_get(&link.tunnel.flow_count) if link.tunnel != NULL else 0)


cdef Peer *who_leaves(Conn *conn, const Share *own) noexcept nogil:
    """Whose place a newcomer gets: one of the address that holds most. Where nobody holds more than the one who asks, a
    peer of its own share that nobody has shown to be there: sources are easily forged, and who is served stays."""
    cdef Listener *listener = <Listener *>conn.extra
    cdef const Share *most = own
    cdef Peer *peer
    cdef int i
    for i in range(SHARES):
        if listener.shares[i].peer_count > most.peer_count:
            most = &listener.shares[i]
    if most.peer_count > own.peer_count + 1:
        peer = most.peers[0].oldest if most.peers[0].oldest != NULL else most.peers[1].oldest
    else:
        peer = own.peers[0].oldest
        if peer == NULL or conn.loop.now_ms - peer.heard_ms < UNASSURED_MS:
            return NULL
    return peer


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
    peer_heard(peer, True)
    if listener_send(peer, src, src_bytes) < 0:
        stream.link.loop.stats.datagrams_dropped += 1
    else:
        stream.link.loop.stats.datagrams_out += 1
        stream.link.loop.stats.bytes_out += src_bytes


cdef EndOps peer_ops
peer_ops.take = discard_take
peer_ops.eof = peer_eof
peer_ops.room = nothing
peer_ops.gone = peer_gone


cdef Peer *peer_find(Listener *listener, const Address *address, const Local *local) noexcept nogil:
    cdef Peer *peer = listener.peers[peer_bucket(address)]
    while peer != NULL:
        if memcmp(&peer.address, address, sizeof(Address)) == 0:
            if peer.local.family == 0:      # came before the socket was told to say where to: now it is known
                peer.local = local[0]
            if memcmp(&peer.local, local, sizeof(Local)) == 0:
                return peer
        peer = peer.next
    return NULL


cdef Peer *peer_new(Conn *conn, Link *link, Service *service, const Address *address) noexcept nogil:
    cdef Listener *listener = <Listener *>conn.extra
    cdef Peer *peer
    cdef Open open
    cdef uint32_t bucket = peer_bucket(address)
    cdef uint8_t share = address_hash(address, 0) % SHARES
    cdef Peer *leaving = NULL
    if is_crowded(listener, link):
        leaving = who_leaves(conn, &listener.shares[share])
        if leaving == NULL:
            return NULL
    peer = <Peer *>calloc(1, sizeof(Peer))
    if peer == NULL:
        return NULL
    memset(&open, 0, sizeof(open))
    open.service = SERVICE_UDP
    open.visitor.port = conn.port
    open.visitor.address = address[0]
    peer.stream = stream_open(link, &open, service)
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


cdef void listener_ready(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    cdef Listener *listener = <Listener *>conn.extra
    cdef sockaddr_storage source
    cdef socklen_t source_bytes
    cdef Address address
    cdef Local local
    cdef Site *site
    cdef Link *link
    cdef Peer *peer
    cdef ssize_t n
    cdef int _i
    if conn.worker_next:
        return
    if listener.peer_count == 0:        # go where the links are before reading: what was read cannot go along
        site = route_find_port(loop.routes, ROUTE_UDP, conn.port)
        if site != NULL and site.kind == SITE_TUNNELS and not site_is_here(site, loop) \
                and conn_hand_over(conn, site_workers(site), &conn.span.workers_tried):
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
            link = site_pick(site, loop)
            if link == NULL:
                loop.stats.datagrams_dropped += 1
                # The socket follows the links, but not for a link that is only full: that would end every peer's flow.
                if not site_is_here(site, loop) \
                        and conn_hand_over(conn, site_workers(site), &conn.span.workers_tried):
                    forget_peers(conn)
                    return
                continue
            conn.span.workers_tried = 0
            peer = peer_new(conn, link, site.service, &address)
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
    """A sixth of what it looks for, so that nobody stays much longer."""
    return idle_ms // 6 if idle_ms // 6 < SWEEP_MS_MAX else SWEEP_MS_MAX


cdef uint64_t port_idle_ms(Loop *loop, uint16_t port) noexcept nogil:
    """As its rule says now: a change counts for flows that are open too."""
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


cdef bint is_v6_socket(int fd) noexcept nogil:
    cdef sockaddr_storage bound
    cdef socklen_t n = sizeof(bound)
    return getsockname(fd, <sockaddr *>&bound, &n) == 0 and bound.ss_family == AF_INET6


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


# --- client -----------------------------------------------------------------------------------------------------------

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
    """Until somebody has answered, the last datagram may be wanted at another address."""
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


cdef bint flow_turn(Peer *flow, int rc) noexcept nogil:
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
    """Of the last datagram, which is sent to the next address."""
    if not flow_turn(flow, rc) or flow.kept == NULL or send(flow.conn.fd, flow.kept, flow.kept_bytes, MSG_NOSIGNAL) < 0:
        flow.conn.loop.stats.datagrams_dropped += 1


cdef void flow_in_loop(Peer *flow) noexcept nogil:
    """It came back, and was ended there: so are the flows before it in the ring a part of that loop."""
    upstream_tell_loop(flow.conn.loop, &flow.stream.visitor, True)
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
            flow_turn(flow, -errno)
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
    """Again soon even where its rule is patient, which may change."""
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
flow_ops.take = discard_take
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
