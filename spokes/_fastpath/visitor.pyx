"""Visitors and links that have just come: admitted or not, then sniffed for what they want, then somebody else's.

Owns: a conn until its first flight has said what it is. Bound: visitor_count_max, visitor_count_per_address_max,
HELLO_MS and HANDSHAKE_MS for whoever has not said what it wants.
Fails: closes that conn.
"""
from libc.string cimport memcpy, memset

from spokes._fastpath.buf cimport chain_append, chain_clear, chain_copy
from spokes._fastpath.conn cimport (
    ROLE_LINK, RX_BYTES, Loop, conn_close, conn_flush, conn_hand_over, conn_handshake, conn_hold, conn_linger,
    conn_recv, conn_start_tls, conn_write, tune_link,
)
from spokes._fastpath.exchange cimport exchange_start
from spokes._fastpath.frame cimport SERVICE_TCP, SERVICE_TLS, Open
from spokes._fastpath.hello cimport HELLO_BYTES_MAX, Hello, hello_parse
from spokes._fastpath.links cimport link_up
from spokes._fastpath.mux cimport Link, Stream, link_pick, stream_open
from spokes._fastpath.relay cimport relay_join
from spokes._fastpath.route cimport (
    ROUTE_TCP, ROUTE_TLS, TARGET_TUNNEL, Target, Tunnel, route_find, route_find_certificate, route_find_port,
)
from spokes._fastpath.shared cimport ADDRESS_COUNTERS, HANDSHAKE_MS, LISTENER_HTTP, LISTENER_TLS, Worker
from spokes._fastpath.throttle cimport throttle_admit
from spokes._fastpath.timer cimport timer_clear, timer_set
from spokes._fastpath.tls cimport SSL, SSL_CTX, tls_has_link_alpn, tls_new
from spokes._fastpath.types cimport atomic_add, atomic_get, atomic_sub, uint8_t, uint32_t, uint64_t

cdef enum:
    HELLO_MS = 5000
    TAG_LINK = 255                      # Conn.tag of a link that is shaking hands; other tags are ListenerKinds


# --- admission --------------------------------------------------------------------------------------------------------

cdef uint64_t *address_counter(Shared *shared, const Address *peer) noexcept nogil:
    """Visitors of one address, IPv6 by its /64. Addresses that share a counter share its cap: the table is bounded."""
    cdef uint32_t h = 2166136261u ^ peer.family
    cdef int i
    for i in range(8):
        h = (h ^ peer.ip[i]) * 16777619u
    return &shared.address_counts[(h ^ (h >> 15)) % ADDRESS_COUNTERS]


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

cdef bint to_tunnel(Conn *conn, const Target *target, uint8_t service, const char *name,
                    uint8_t name_bytes) noexcept nogil:
    """Join a raw visitor to a new stream, or hand it to the worker that has the tunnel's links. False: refused."""
    cdef Tunnel *tunnel = target.tunnel
    cdef Link *link = link_pick(tunnel, conn.loop)
    cdef Stream *stream
    cdef Open open
    if link == NULL:
        return conn_hand_over(conn, atomic_get(&tunnel.worker_mask))
    memset(&open, 0, sizeof(open))
    open.service = service
    open.port = conn.port
    open.visitor = conn.peer
    open.name_bytes = name_bytes
    memcpy(open.name, name, name_bytes)
    stream = stream_open(link, &open, target.service)
    if stream == NULL:
        return False
    relay_join(conn, stream)
    return True


cdef void visitor_tcp(Conn *conn) noexcept nogil:
    cdef Target *target = route_find_port(conn.loop.routes, ROUTE_TCP, conn.port)
    if target == NULL or target.kind != TARGET_TUNNEL or not to_tunnel(conn, target, SERVICE_TCP, b"", 0):
        conn_close(conn, True)


cdef void waiting_expired(void *owner) noexcept nogil:
    """A visitor or a link that did not say in time what it is."""
    cdef Conn *conn = <Conn *>owner
    conn.loop.stats.errors_total += 1
    conn_close(conn, True)


cdef void set_deadline(Conn *conn, uint64_t after_ms) noexcept nogil:
    conn.timer.fire = waiting_expired
    conn.timer.owner = conn
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + after_ms)


cdef void refuse_name(Conn *conn) noexcept nogil:
    """TLS alert unrecognized_name (RFC 6066, section 3), then close."""
    cdef const uint8_t *alert = <const uint8_t *>b"\x15\x03\x01\x00\x02\x02\x70"
    timer_clear(&conn.loop.wheel, &conn.timer)
    chain_clear(&conn.loop.pool, &conn.end.rx)
    conn_write(conn, alert, 7)
    conn_linger(conn)


cdef bint handshake_admit(Conn *conn) noexcept nogil:
    """Before what a handshake costs; False: refused and closed. Passed-through TLS costs us none."""
    cdef Worker *worker = <Worker *>conn.loop
    if throttle_admit(&worker.shared.handshakes, &conn.peer, conn.loop.now_ms):
        return True
    conn.loop.stats.visitors_refused += 1
    conn_close(conn, True)
    return False


cdef void hello_ready(Conn *conn) noexcept nogil:
    """A TLS visitor's first flight decides what it is: a link, ours to terminate, or passed through untouched."""
    cdef Worker *worker = <Worker *>conn.loop
    cdef Loop *loop = conn.loop
    cdef Hello hello
    cdef Target *target = NULL
    cdef SSL *ssl
    cdef ssize_t n = 0
    cdef size_t have
    cdef int rc
    if conn.worker_next:
        return
    have = chain_copy(&conn.end.rx, loop.rx, RX_BYTES // 2)
    if conn.readable:
        n = conn_recv(conn, loop.rx + have, HELLO_BYTES_MAX + 4096 - have if have < HELLO_BYTES_MAX else 1)
        if n < 0:
            conn_close(conn, False)
            return
        chain_append(&loop.pool, &conn.end.rx, loop.rx + have, n, True)
        have += n
    if have == 0:
        return
    rc = hello_parse(&hello, loop.rx, have)
    if rc == 0:
        return
    if rc < 0:
        loop.stats.errors_total += 1
        conn_close(conn, True)
        return
    if hello.has_link_alpn and worker.shared.link_context != NULL:
        if not handshake_admit(conn):
            return
        conn.tag = TAG_LINK             # counted as a visitor until it stands
        tune_link(conn.fd)
        ssl = tls_new(worker.shared.link_context, True, NULL, False)
    else:
        if hello.name_bytes > 0:
            target = route_find_certificate(loop.routes, hello.name, hello.name_bytes)
        if target == NULL and hello.name_bytes > 0:
            target = route_find(loop.routes, ROUTE_TLS, hello.name, hello.name_bytes)
            if target != NULL and target.kind == TARGET_TUNNEL:
                timer_clear(&loop.wheel, &conn.timer)
                if not to_tunnel(conn, target, SERVICE_TLS, hello.name, hello.name_bytes):
                    conn_close(conn, True)
                return
        if target == NULL:
            refuse_name(conn)
            return
        if not handshake_admit(conn):
            return
        conn.extra = <void *>target.coverage
        ssl = tls_new(<SSL_CTX *>target.context, True, NULL, False)
    if ssl == NULL or conn_start_tls(conn, ssl) < 0:
        conn_close(conn, True)
        return
    conn.on_ready = handshake_ready
    set_deadline(conn, HANDSHAKE_MS)
    handshake_ready(conn)


cdef void visitor_left(Conn *conn) noexcept nogil:
    """What looked like a visitor is a link."""
    conn.role = ROLE_LINK
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
        # An alert for the peer may be waiting: one try to send it.
        conn_close(conn, False)
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
        if exchange_start(&conn.end, conn.loop, True, conn.port, coverage) < 0:
            conn_close(conn, True)
            return
    if conn.readable:
        conn.on_ready(conn)


cdef void visitor_begin(Conn *conn) noexcept nogil:
    if conn.tag == LISTENER_HTTP:
        if exchange_start(&conn.end, conn.loop, False, conn.port, 0) < 0:
            conn_close(conn, True)
    elif conn.tag == LISTENER_TLS:
        set_deadline(conn, HELLO_MS)
        hello_ready(conn)
    else:
        visitor_tcp(conn)
