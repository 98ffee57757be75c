"""A worker's links: known to Python by their ids, dialled or arrived, and what their streams are served with.

Owns: the table of slots, from `dial` or `link_up` to LINK_DOWN; the conn of a link that is being made.
Bound: HANDSHAKE_MS from a connect that has begun to a link that stands.
Fails: LINK_DOWN with the reason, once for each id.
"""
from libc.errno cimport ENOMEM, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from spokes._fastpath.base.address cimport Address, address_read, address_text
from spokes._fastpath.base.net cimport (
    SOL_SOCKET, SO_ERROR, close, getpeername, getsockopt, sockaddr, sockaddr_storage, socklen_t,
)
from spokes._fastpath.base.reason cimport REASON_INTERNAL, REASON_LOOP, REASON_NO_SERVICE
from spokes._fastpath.base.timer cimport timer_clear, timer_set
from spokes._fastpath.base.types cimport RC_LOCAL, RC_PROTO, RC_TIMEOUT, RC_TLS, atomic_add, uint16_t, uint32_t, uint8_t
from spokes._fastpath.core.events cimport (
    EVENT_CONTROL, EVENT_DRAIN, EVENT_LINK_CONNECTED, EVENT_LINK_UP, EVENT_LINK_WANTED, EVENT_PONG, emit, emit_down,
    events_have_room,
)
from spokes._fastpath.core.shared cimport HANDSHAKE_MS, LINK_BUCKETS
from spokes._fastpath.flow.exchange_request cimport exchange_start
from spokes._fastpath.flow.own_address cimport NOTED_HOPS_MAX, address_hops, address_tell_loop
from spokes._fastpath.flow.relay cimport relay_datagram, relay_to_tunnel, relay_to_upstream
from spokes._fastpath.flow.udp_flow cimport udp_serve
from spokes._fastpath.io.conn cimport conn_close, conn_flush
from spokes._fastpath.io.conn_life cimport conn_new, conn_watch
from spokes._fastpath.io.conn_state cimport ROLE_LINK
from spokes._fastpath.io.conn_tls cimport conn_handshake, conn_start_tls
from spokes._fastpath.link.frame cimport SERVICE_HTTP, SERVICE_TCP, SERVICE_TLS, SERVICE_UDP, Open
from spokes._fastpath.link.link cimport link_new
from spokes._fastpath.link.link_choice cimport link_is_busy
from spokes._fastpath.link.link_end cimport link_fail, link_free
from spokes._fastpath.link.link_state cimport LinkOps, Stream
from spokes._fastpath.route.outcome cimport FAULT_LOOP, outcome_fault
from spokes._fastpath.route.route cimport ROUTE_TCP, ROUTE_TLS, ROUTE_UDP, route_find, route_find_port
from spokes._fastpath.route.site cimport SITE_TUNNELS, SITE_UPSTREAM, Site, Upstream
from spokes._fastpath.tls.openssl cimport SSL
from spokes._fastpath.tls.tls cimport tls_check_pin, tls_has_link_alpn, tls_new_client
from spokes._fastpath.tls.tls_context cimport client_ask_worker

cdef extern from "stdio.h" nogil:
    int snprintf(char *dst, size_t n, const char *format, ...)


# --- slots ------------------------------------------------------------------------------------------------------------

cdef LinkSlot *slot_find(Worker *worker, uint64_t id) noexcept nogil:
    cdef LinkSlot *slot = worker.slots[id % LINK_BUCKETS]
    while slot != NULL and slot.id != id:
        slot = slot.next
    return slot


cdef void slot_add(Worker *worker, LinkSlot *slot) noexcept nogil:
    slot.next = worker.slots[slot.id % LINK_BUCKETS]
    worker.slots[slot.id % LINK_BUCKETS] = slot


cdef void slot_remove(Worker *worker, uint64_t id) noexcept nogil:
    cdef LinkSlot **place = &worker.slots[id % LINK_BUCKETS]
    cdef LinkSlot *slot
    while place[0] != NULL and place[0].id != id:
        place = &place[0].next
    slot = place[0]
    if slot != NULL:
        place[0] = slot.next
        free(slot)


# --- links that stand -------------------------------------------------------------------------------------------------

cdef int on_open(Link *link, Stream *stream, const Open *open) noexcept nogil:
    """The peer opened a stream. Clients serve them on links that they have bound to their tunnel; servers on links to
    other nodes, whose visitors they are."""
    cdef Site *site = NULL
    cdef Open relayed
    cdef int rc
    cdef uint8_t hops
    if link.tunnel == NULL or (link.is_acceptor and not link.tunnel.is_node):
        return REASON_NO_SERVICE
    if link.tunnel.is_node:
        relayed = open[0]
        relayed.visitor.hops = 1        # whatever it says: nobody's visitor goes through a third node
        open = &relayed
    if open.service == SERVICE_HTTP:    # not the visitor's own end: the node that has it has looked at what it sends
        rc = exchange_start(&stream.end, link.loop, &open.visitor, False, 0)
        return REASON_INTERNAL if rc < 0 else 0
    if open.service == SERVICE_UDP:
        site = route_find_port(link.loop.routes, ROUTE_UDP, open.visitor.port)
    elif open.service == SERVICE_TCP:
        site = route_find_port(link.loop.routes, ROUTE_TCP, open.visitor.port)
    elif open.service == SERVICE_TLS:
        site = route_find(link.loop.routes, ROUTE_TLS, open.name, open.name_bytes)
    if site != NULL and site.kind == SITE_TUNNELS:
        if open.service == SERVICE_UDP:
            stream.on_datagram = relay_datagram
        return relay_to_tunnel(&stream.end, link.loop, site, open)
    if site == NULL or site.kind != SITE_UPSTREAM:
        return REASON_NO_SERVICE
    hops = address_hops(link.loop, &open.visitor, open.service == SERVICE_UDP)
    if hops >= NOTED_HOPS_MAX \
            or (open.service != SERVICE_TLS and leads_back(link, site.upstream, open.visitor.port)):
        link.loop.stats.loops_total += 1
        outcome_fault(&site.upstream.outcomes, FAULT_LOOP, link.loop.wall_ms)
        address_tell_loop(link.loop, &open.visitor, open.service == SERVICE_UDP)
        return REASON_LOOP
    if open.service == SERVICE_UDP:
        return udp_serve(link.loop, stream, open, site.upstream, hops)
    return relay_to_upstream(stream, link.loop, site.upstream, hops)


cdef bint leads_back(const Link *link, const Upstream *upstream, uint16_t port) noexcept nogil:
    """To the server's own address and the port that the visitor came through: whatever translates addresses in between,
    a flow that goes there comes back here."""
    cdef Address address
    cdef int i
    for i in range(upstream.address_count):
        address_read(&address, &upstream.addresses[i])
        if address.port == port and address.family != 0 and address.family == link.conn.peer.family \
                and memcmp(address.ip, link.conn.peer.ip, 16) == 0:
            return True
    return False


cdef void on_control(Link *link, uint8_t flags, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    emit(<Worker *>link.loop, EVENT_CONTROL, link.id, flags, src, src_bytes)


cdef void on_down(Link *link, int rc) noexcept nogil:
    cdef Worker *worker = <Worker *>link.loop
    emit_down(worker, link.id, rc)
    slot_remove(worker, link.id)
    link.next = worker.ended
    worker.ended = link


cdef void on_wanted(Link *link) noexcept nogil:
    """Only the side that opens links is told, and only when every link of the tunnel here is busy."""
    if not link.is_acceptor and link_pick_busy(link):
        emit(<Worker *>link.loop, EVENT_LINK_WANTED, link.id, 0, NULL, 0)


cdef bint link_pick_busy(Link *link) noexcept nogil:
    cdef Link *other = <Link *>link.tunnel.links[link.loop.index]
    while other != NULL:
        if other != link and not other.draining and not link_is_busy(other):
            return False
        other = other.next
    return True


cdef void on_drain(Link *link) noexcept nogil:
    emit(<Worker *>link.loop, EVENT_DRAIN, link.id, 0, NULL, 0)


cdef void on_pong(Link *link) noexcept nogil:
    emit(<Worker *>link.loop, EVENT_PONG, link.id, 0, NULL, 0)


cdef bint may_read(Link *link) noexcept nogil:
    return events_have_room(<Worker *>link.loop)


cdef LinkOps link_ops
link_ops.open = on_open
link_ops.control = on_control
link_ops.down = on_down
link_ops.wanted = on_wanted
link_ops.drain = on_drain
link_ops.pong = on_pong
link_ops.may_read = may_read


cdef int link_up(Worker *worker, Conn *conn, LinkSlot *slot) noexcept nogil:
    cdef Link *link
    cdef char text[64]
    cdef size_t n
    cdef bint is_acceptor = slot == NULL
    link = link_new(conn, is_acceptor, &link_ops)
    if link == NULL:
        return -ENOMEM
    if slot == NULL:
        slot = <LinkSlot *>calloc(1, sizeof(LinkSlot))
        if slot == NULL:
            link_free(link)
            return -ENOMEM
        slot.id = (<uint64_t>(worker.loop.index + 1) << 56) | atomic_add(&worker.shared.link_serial, 1)
        slot_add(worker, slot)
    slot.conn = conn
    slot.link = link
    link.id = slot.id
    link.stream_count_max = worker.shared.stream_count_max
    n = address_text(text, &conn.peer)
    n += snprintf(text + n, sizeof(text) - n, b" %u", <unsigned>conn.peer.port)
    emit(worker, EVENT_LINK_UP, slot.id, 0, <const uint8_t *>text, <uint32_t>n)
    return 0


# --- dialling ---------------------------------------------------------------------------------------------------------

cdef void dial_failed(Conn *conn, int rc) noexcept nogil:
    cdef Worker *worker = <Worker *>conn.loop
    cdef LinkSlot *slot = <LinkSlot *>conn.extra
    emit_down(worker, slot.id, rc)
    conn_close(conn, True)
    slot_remove(worker, slot.id)


cdef void dial_expired(void *owner) noexcept nogil:
    dial_failed(<Conn *>owner, RC_TIMEOUT)


cdef void dial_ready(Conn *conn) noexcept nogil:
    cdef Worker *worker = <Worker *>conn.loop
    cdef LinkSlot *slot = <LinkSlot *>conn.extra
    cdef SSL *ssl
    cdef int rc
    cdef int error = 0
    cdef socklen_t n = sizeof(error)
    cdef sockaddr_storage address
    cdef socklen_t address_bytes = sizeof(address)
    if conn.connecting:
        if not conn.writable:
            return
        getsockopt(conn.fd, SOL_SOCKET, SO_ERROR, &error, &n)
        if error != 0:
            dial_failed(conn, -error)
            return
        conn.connecting = 0
        emit(worker, EVENT_LINK_CONNECTED, slot.id, 0, NULL, 0)
        if getpeername(conn.fd, <sockaddr *>&address, &address_bytes) == 0:
            address_read(&conn.peer, &address)
        ssl = tls_new_client(slot.context, slot.server_name, slot.has_pin)
        if ssl == NULL or (slot.peer_worker and not client_ask_worker(ssl, slot.peer_worker)) \
                or conn_start_tls(conn, ssl) < 0:
            dial_failed(conn, RC_TLS)
            return
    if conn.writable and conn.tls.tx.bytes > 0:
        conn_flush(conn)
    rc = conn_handshake(conn)
    if rc == 0:
        return
    if rc > 0 and slot.has_pin:
        rc = tls_check_pin(conn.tls.ssl, slot.pin)
        rc = 1 if rc == 0 else rc
    if rc < 0:
        dial_failed(conn, rc)
        return
    if not tls_has_link_alpn(conn.tls.ssl):
        dial_failed(conn, RC_PROTO)
        return
    timer_clear(&conn.loop.wheel, &conn.timer)
    conn.extra = NULL
    rc = link_up(worker, conn, slot)
    if rc < 0:
        conn.extra = slot
        dial_failed(conn, rc)
        return
    if conn.readable:
        conn.on_ready(conn)


cdef void dial(Worker *worker, LinkSlot *slot, int fd, int connect_error) noexcept nogil:
    """fd: a socket whose connect has begun."""
    cdef Conn *conn = conn_new(&worker.loop, fd, ROLE_LINK, dial_ready)
    if conn == NULL:
        close(fd)
        emit_down(worker, slot.id, -ENOMEM)
        free(slot)
        return
    slot.conn = conn
    slot_add(worker, slot)
    conn.peer = slot.peer
    conn.extra = slot
    conn.connecting = 1
    conn.writable = 0
    conn.timer.fire = dial_expired
    conn.timer.owner = conn
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + HANDSHAKE_MS)
    if connect_error < 0:
        dial_failed(conn, connect_error)
    elif conn_watch(conn) < 0:
        dial_failed(conn, -errno)


# --- the end ----------------------------------------------------------------------------------------------------------

cdef void links_free_ended(Worker *worker) noexcept nogil:
    cdef Link *link = worker.ended
    cdef Link *kept = NULL
    cdef Link *following
    while link != NULL:
        following = link.next
        if link.task.queued:
            link.next = kept
            kept = link
        else:
            link_free(link)
        link = following
    worker.ended = kept


cdef void links_close_all(Worker *worker) noexcept nogil:
    cdef int i
    for i in range(LINK_BUCKETS):
        while worker.slots[i] != NULL:
            if worker.slots[i].link != NULL:
                link_fail(worker.slots[i].link, RC_LOCAL)
            else:
                dial_failed(worker.slots[i].conn, RC_LOCAL)
