"""Visitors and links that have just come: admitted or not, then sniffed for what they want, then somebody else's.

Owns: a conn until its first flight has said what it is. Bound: visitor_count_max, visitor_count_per_address_max,
HELLO_MS and HANDSHAKE_MS for whoever has not said what it wants.
Fails: closes that conn.
"""
from libc.string cimport memcpy, memset

from spokes._fastpath.base.address cimport address_hash, address_read, address_text
from spokes._fastpath.base.buf cimport BLOCK_BYTES, Buf, chain_append, pool_is_full
from spokes._fastpath.base.net cimport getsockname, sockaddr, sockaddr_storage, socklen_t
from spokes._fastpath.base.throttle cimport throttle_admit
from spokes._fastpath.base.timer cimport timer_clear, timer_set
from spokes._fastpath.base.types cimport RC_EOF, RC_TLS, atomic_add, atomic_sub, uint32_t, uint64_t, uint8_t
from spokes._fastpath.core.links cimport link_up
from spokes._fastpath.core.shared cimport ADDRESS_COUNTERS, HANDSHAKE_MS, Worker
from spokes._fastpath.flow.exchange cimport exchange_page
from spokes._fastpath.flow.exchange_request cimport exchange_start
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.flow.relay cimport relay_to_tunnel
from spokes._fastpath.http.page cimport PAGE_PLAIN_HTTP
from spokes._fastpath.io.conn cimport conn_close, conn_flush, conn_hand_over, conn_hold, conn_recv, conn_serve
from spokes._fastpath.io.conn_linger cimport conn_alert, conn_alert_last, conn_linger
from spokes._fastpath.io.conn_state cimport (
    ALERT_DECODE_ERROR, ALERT_INTERNAL_ERROR, ALERT_UNRECOGNIZED_NAME, ROLE_LINK, Loop,
)
from spokes._fastpath.io.conn_tls cimport conn_handshake, conn_start_tls
from spokes._fastpath.io.tune cimport tune_link
from spokes._fastpath.link.frame cimport SERVICE_TCP, SERVICE_TLS, Open, Visitor
from spokes._fastpath.link.site_links cimport site_pick, site_workers
from spokes._fastpath.route.route cimport (
    ROUTE_CERTIFICATE, ROUTE_LINK, ROUTE_TCP, ROUTE_TLS, RouteTable, route_find, route_find_certificate,
    route_find_port,
)
from spokes._fastpath.route.site cimport SITE_TUNNELS, Site
from spokes._fastpath.tls.hello cimport (
    HELLO_BYTES_MAX, Hello, HelloWalk, hello_pack, hello_read, hello_unpack, hello_walk,
)
from spokes._fastpath.tls.openssl cimport SSL
from spokes._fastpath.tls.tls cimport tls_has_link_alpn, tls_new_server

cdef enum:
    HELLO_MS = 5000
    TAG_LINK = 255                      # Conn.tag of a link that is shaking hands; other tags are ListenerKinds


# --- admission --------------------------------------------------------------------------------------------------------

cdef uint64_t *address_counter(Shared *shared, const Address *peer) noexcept nogil:
    """Visitors of one address. Addresses that share a counter share its cap: the table is bounded."""
    return &shared.address_counts[address_hash(peer, 0) % ADDRESS_COUNTERS]


cdef bint visitor_admit(Shared *shared, const Address *peer) noexcept nogil:
    cdef uint64_t *counter = address_counter(shared, peer)
    if atomic_add(&shared.visitor_count, 1) >= shared.visitor_count_max:
        atomic_sub(&shared.visitor_count, 1)
        return False
    if atomic_add(counter, 1) >= shared.visitor_count_per_address_max:
        visitor_release(shared, peer)
        return False
    return True


cdef void visitor_release(Shared *shared, const Address *peer) noexcept nogil:
    atomic_sub(&shared.visitor_count, 1)
    atomic_sub(address_counter(shared, peer), 1)


cdef void visitor_closed(Conn *conn) noexcept nogil:
    visitor_release((<Worker *>conn.loop).shared, &conn.peer)


# --- what it wants ----------------------------------------------------------------------------------------------------

cdef Visitor visitor_of(const Conn *conn, bint secure) noexcept nogil:
    cdef Visitor visitor
    memset(&visitor, 0, sizeof(visitor))
    visitor.address = conn.peer
    visitor.port = conn.port
    visitor.secure = secure
    return visitor


cdef bint to_tunnel(Conn *conn, const Site *site, uint8_t service, const char *name,
                    uint8_t name_bytes) noexcept nogil:
    """Join a raw visitor to a new stream, or hand it to the worker that has the tunnel's links. False: refused."""
    cdef Open open
    cdef uint64_t tried = conn.span.workers_tried
    if site_pick(site, conn.loop, 0, tried).link == NULL:
        return conn_hand_over(conn, site_workers(site, conn.loop, 0, tried), &conn.span.workers_tried)
    memset(&open, 0, sizeof(open))
    open.service = service
    open.visitor = visitor_of(conn, False)
    open.name_bytes = name_bytes
    memcpy(open.name, name, name_bytes)
    if relay_to_tunnel(&conn.end, conn.loop, site, &open) != 0:
        return False
    conn.on_ready = conn_serve
    return True


cdef void visitor_tcp(Conn *conn) noexcept nogil:
    cdef Site *site = route_find_port(conn.loop.routes, ROUTE_TCP, conn.port)
    if site == NULL or site.kind != SITE_TUNNELS or not to_tunnel(conn, site, SERVICE_TCP, b"", 0):
        conn_close(conn, True)


cdef void waiting_expired(void *owner) noexcept nogil:
    """A visitor or a link that did not say in time what it is."""
    cdef Conn *conn = <Conn *>owner
    conn.loop.stats.errors_total += 1
    if conn.tag == LISTENER_TLS and conn.tls == NULL and conn.end.rx.bytes > 0:
        conn_alert_last(conn, ALERT_DECODE_ERROR)       # half a ClientHello
    else:
        conn_close(conn, True)


cdef void set_deadline(Conn *conn, uint64_t after_ms) noexcept nogil:
    conn.timer.fire = waiting_expired
    conn.timer.owner = conn
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + after_ms)


cdef int http_begin(Conn *conn, bint secure, uint64_t coverage) noexcept nogil:
    cdef Visitor visitor = visitor_of(conn, secure)
    conn.on_ready = conn_serve
    return exchange_start(&conn.end, conn.loop, &visitor, True, coverage)


cdef void refuse_hello(Conn *conn) noexcept nogil:
    """What came is no ClientHello: plain HTTP gets words that its sender can read, all else an alert."""
    conn.loop.stats.errors_total += 1
    if c'A' <= conn.end.rx.first.data[conn.end.rx.first.head] <= c'Z':
        timer_clear(&conn.loop.wheel, &conn.timer)
        if http_begin(conn, False, 0) < 0:
            conn_close(conn, True)
        else:
            exchange_page(<Exchange *>conn.end.owner, PAGE_PLAIN_HTTP)
    else:
        conn_alert(conn, ALERT_DECODE_ERROR)


cdef int hello_arrives(Conn *conn, Hello *hello) noexcept nogil:
    """1 the ClientHello is read, 0 more of it is awaited, RC_EOF the visitor has left, < 0 it is none."""
    cdef Loop *loop = conn.loop
    cdef HelloWalk walk
    cdef Buf *block = conn.end.rx.first
    cdef ssize_t n
    cdef int rc = 0
    hello_unpack(&walk, <uint64_t>conn.extra)
    if conn.extra == NULL:              # handed over by another worker, perhaps, with what was read there
        while block != NULL and rc == 0:
            rc = hello_walk(&walk, block.data + block.head, block.tail - block.head, NULL)
            block = block.next
    while rc == 0 and conn.readable:
        n = conn_recv(conn, loop.rx, HELLO_BYTES_MAX)
        if n < 0:
            return RC_EOF
        if n == 0:
            break
        if conn.end.rx.bytes + n > BLOCK_BYTES and pool_is_full(&loop.pool):
            return RC_EOF               # at the memory limit nobody keeps more than a block before its first word
        rc = hello_walk(&walk, loop.rx, n, NULL)
        chain_append(&loop.pool, &conn.end.rx, loop.rx, n, True)
    conn.extra = <void *>hello_pack(&walk) if rc == 0 else NULL
    if rc <= 0:
        return rc
    memset(&walk, 0, sizeof(walk))
    block = conn.end.rx.first
    while block != NULL and hello_walk(&walk, block.data + block.head, block.tail - block.head, loop.rx) == 0:
        block = block.next
    return hello_read(hello, loop.rx, walk.message_bytes)


cdef bint handshake_admit(Conn *conn) noexcept nogil:
    """Before what a handshake costs; False: refused and closed. Passed-through TLS costs us none."""
    cdef Worker *worker = <Worker *>conn.loop
    if throttle_admit(&worker.shared.handshakes, &conn.peer, conn.loop.now_ms):
        return True
    conn.loop.stats.visitors_refused += 1
    conn_close(conn, True)
    return False


cdef Site *link_certificate(RouteTable *routes, const Hello *hello) noexcept nogil:
    """What a link is shown: our own key, which clients pin; or what its authorities may vouch for, where that is what
    it goes by."""
    cdef Site *site = NULL
    if hello.has_authority_alpn and hello.name_bytes > 0:
        site = route_find_certificate(routes, hello.name, hello.name_bytes)
    return site if site != NULL else route_find(routes, ROUTE_LINK, b"", 0)


cdef bint go_to_worker(Conn *conn, uint32_t wanted) noexcept nogil:
    """A node's link asks for one of our workers, where it will meet the links of the tunnels that it is for. False: it
    is there, or there is no such worker."""
    cdef Worker *worker = <Worker *>conn.loop
    if wanted == conn.loop.index or wanted >= worker.shared.worker_count:
        return False
    return conn_hand_over(conn, <uint64_t>1 << wanted, &conn.span.workers_tried)


cdef Site *nameless_certificate(Conn *conn) noexcept nogil:
    """Who names no host gets the certificate of the address that it came to, else the server's own."""
    cdef sockaddr_storage here
    cdef socklen_t here_bytes = sizeof(here)
    cdef Address address
    cdef char text[64]
    cdef Site *site = NULL
    if getsockname(conn.fd, <sockaddr *>&here, &here_bytes) == 0:
        address_read(&address, &here)
        site = route_find(conn.loop.routes, ROUTE_CERTIFICATE, text, address_text(text, &address))
    return site if site != NULL else route_find(conn.loop.routes, ROUTE_CERTIFICATE, b"", 0)


cdef void hello_ready(Conn *conn) noexcept nogil:
    """A TLS visitor's first flight decides what it is: a link, ours to terminate, or passed through untouched."""
    cdef Worker *worker = <Worker *>conn.loop
    cdef Loop *loop = conn.loop
    cdef Hello hello
    cdef Site *site = NULL
    cdef SSL *ssl
    cdef int rc
    if conn.worker_next:
        return
    rc = hello_arrives(conn, &hello)
    if rc <= 0:
        if rc == RC_EOF:
            conn_close(conn, False)
        elif rc < 0:
            refuse_hello(conn)
        return
    if hello.has_link_alpn and worker.shared.link_context != NULL:
        if hello.worker and go_to_worker(conn, hello.worker - 1):
            return
        site = link_certificate(loop.routes, &hello)
        if site == NULL:
            conn_alert(conn, ALERT_INTERNAL_ERROR)
            return
        if not handshake_admit(conn):
            return
        conn.tag = TAG_LINK             # counted as a visitor until it stands
        tune_link(conn.fd)
        ssl = tls_new_server(worker.shared.link_context, site.certificate, True)
    else:
        if hello.name_bytes > 0:
            # A site that wants its TLS as it comes goes before a certificate of ours that happens to cover its name.
            site = route_find(loop.routes, ROUTE_TLS, hello.name, hello.name_bytes)
            if site != NULL and site.kind == SITE_TUNNELS:
                timer_clear(&loop.wheel, &conn.timer)
                if not to_tunnel(conn, site, SERVICE_TLS, hello.name, hello.name_bytes):
                    conn_alert(conn, ALERT_INTERNAL_ERROR)
                return
            site = route_find_certificate(loop.routes, hello.name, hello.name_bytes)
        else:
            site = nameless_certificate(conn)
        if site == NULL:
            conn_alert(conn, ALERT_UNRECOGNIZED_NAME)
            return
        if not handshake_admit(conn):
            return
        conn.extra = <void *>site.certificate.coverage
        ssl = tls_new_server(worker.shared.visitor_context, site.certificate, False)
    if ssl == NULL or conn_start_tls(conn, ssl) < 0:
        conn_close(conn, True)
        return
    conn.on_ready = handshake_ready
    set_deadline(conn, HANDSHAKE_MS)
    handshake_ready(conn)


cdef void visitor_left(Conn *conn) noexcept nogil:
    """What looked like a visitor is a link."""
    conn.role = ROLE_LINK
    conn.span.linger_end_ms = 0         # while it looked like a raw flow it may have tried other workers
    conn.unproven_bytes = 0
    conn.on_close = NULL
    visitor_closed(conn)
    conn_hold(conn, NULL)
    conn.loop.stats.visitors_open -= 1
    conn.loop.stats.visitors_total -= 1


cdef void handshake_ready(Conn *conn) noexcept nogil:
    cdef Worker *worker = <Worker *>conn.loop
    cdef uint64_t coverage
    cdef int rc
    if conn.writable and conn.tls.tx.bytes > 0:
        conn_flush(conn)
    rc = conn_handshake(conn)
    if rc == 0:
        return
    if rc < 0:
        conn.loop.stats.errors_total += 1
        if conn.error < 0 or rc != RC_TLS:
            conn_close(conn, False)
        else:
            conn_linger(conn)           # closing with unread input would destroy the alert on its way
        return
    timer_clear(&conn.loop.wheel, &conn.timer)
    if conn.tag == TAG_LINK:
        visitor_left(conn)
        if not tls_has_link_alpn(conn.tls.ssl) or link_up(worker, conn, NULL) < 0:
            conn_close(conn, True)
            return
    else:
        coverage = <uint64_t>conn.extra
        conn.extra = NULL
        conn.tag = LISTENER_HTTP
        if http_begin(conn, True, coverage) < 0:
            conn_close(conn, True)
            return
    if conn.readable:
        conn.on_ready(conn)


cdef void visitor_begin(Conn *conn) noexcept nogil:
    if conn.tag == LISTENER_HTTP:
        if http_begin(conn, False, 0) < 0:
            conn_close(conn, True)
    elif conn.tag == LISTENER_TLS:
        set_deadline(conn, HELLO_MS)
        hello_ready(conn)
    else:
        visitor_tcp(conn)
