"""What was removed does not stay open: flows of a service or upstream that was ended end with it, or at its time.

Owns: a timer of each worker for what is due later. Bound: one search of all conns and streams in SWEEP_INTERVAL_MS,
however many removals come.
Fails: it cannot; a flow that ends by itself meanwhile is nobody's any more.
"""
from spokes._fastpath.base.reason cimport REASON_GONE, REASON_NO_SERVICE
from spokes._fastpath.base.timer cimport timer_set
from spokes._fastpath.base.types cimport RC_LOCAL, atomic_get, uint32_t, uint64_t
from spokes._fastpath.flow.udp_flow cimport udp_flow_end, udp_flow_upstream
from spokes._fastpath.flow.upstream cimport UpstreamConn
from spokes._fastpath.io.conn cimport Conn, conn_close
from spokes._fastpath.io.conn_state cimport ROLE_LINK, ROLE_UDP, ROLE_UPSTREAM, Loop
from spokes._fastpath.link.link_state cimport Link, Stream
from spokes._fastpath.link.stream cimport stream_end
from spokes._fastpath.route.site cimport Upstream
from spokes._fastpath.route.tunnel cimport END_IDLE, END_NEVER

cdef enum:
    SWEEP_INTERVAL_MS = 100
    FOUND_COUNT_MAX = 1024              # of one search; more of them: another search at once
    FAR = 0x7FFFFFFFFFFFFFFF

cdef struct Found:                      # what a search has found: ending one may close others, so not meanwhile
    Conn *conns[FOUND_COUNT_MAX]
    Stream *streams[FOUND_COUNT_MAX]
    uint32_t conn_count
    uint32_t stream_count
    uint64_t next_ms                    # when the next is due


cdef bint is_due(uint64_t end_ms, uint64_t now_ms, Found *found) noexcept nogil:
    if end_ms <= END_IDLE:
        return False
    if end_ms <= now_ms:
        return True
    if end_ms < found.next_ms:
        found.next_ms = end_ms
    return False


cdef void search_link(Link *link, Found *found) noexcept nogil:
    cdef Stream *stream
    cdef uint32_t i
    for i in range(link.bucket_count):
        stream = link.buckets[i]
        while stream != NULL and found.stream_count < FOUND_COUNT_MAX:
            if stream.serves != NULL and is_due(atomic_get(&stream.serves.end_ms), link.loop.now_ms, found):
                found.streams[found.stream_count] = stream
                found.stream_count += 1
            stream = stream.hash_next


cdef void search_upstream(Conn *conn, Found *found) noexcept nogil:
    cdef UpstreamConn *upstream_conn = <UpstreamConn *>conn.extra
    cdef Upstream *upstream = upstream_conn.upstream if conn.role == ROLE_UPSTREAM else udp_flow_upstream(conn)
    cdef uint64_t end_ms
    if upstream == NULL:
        return
    end_ms = atomic_get(&upstream.end_ms)
    # Nothing is lost with an idle conn, nor with a flow of datagrams: the next one begins another, to the new place.
    if end_ms != END_NEVER and (conn.role == ROLE_UDP or upstream_conn.idle) or is_due(end_ms, conn.loop.now_ms, found):
        found.conns[found.conn_count] = conn
        found.conn_count += 1


cdef void search(Loop *loop, Found *found) noexcept nogil:
    cdef Conn *conn = loop.conns
    found.conn_count = found.stream_count = 0
    found.next_ms = FAR
    while conn != NULL and found.conn_count < FOUND_COUNT_MAX and found.stream_count < FOUND_COUNT_MAX:
        if not conn.closed and conn.extra != NULL and (conn.role == ROLE_UPSTREAM or conn.role == ROLE_UDP):
            search_upstream(conn, found)
        elif conn.role == ROLE_LINK and conn.end.owner != NULL and not conn.closed:
            search_link(<Link *>conn.end.owner, found)
        conn = conn.next


cdef void end_conn(Conn *conn) noexcept nogil:
    if conn.closed or conn.extra == NULL:
        return
    if conn.role == ROLE_UDP:
        udp_flow_end(conn, REASON_GONE)
    elif conn.end.ops != NULL:
        conn.end.ops.gone(&conn.end, RC_LOCAL)
    else:
        conn_close(conn, False)         # idle, or its last bytes are on their way


cdef void sweep(void *owner) noexcept nogil:
    cdef Worker *worker = <Worker *>owner
    cdef Loop *loop = &worker.loop
    cdef Found found
    cdef uint32_t i
    worker.swept_ms = loop.now_ms
    search(loop, &found)
    for i in range(found.stream_count):
        stream_end(found.streams[i], REASON_NO_SERVICE)
    for i in range(found.conn_count):
        end_conn(found.conns[i])
    if found.stream_count == FOUND_COUNT_MAX or found.conn_count == FOUND_COUNT_MAX:
        found.next_ms = loop.now_ms
    if found.next_ms != FAR:
        timer_set(&loop.wheel, &worker.sweep_timer, found.next_ms)


cdef void sweep_soon(Worker *worker) noexcept nogil:
    cdef Loop *loop = &worker.loop
    if loop.now_ms - worker.swept_ms >= SWEEP_INTERVAL_MS:
        sweep(worker)
    else:
        timer_set(&loop.wheel, &worker.sweep_timer, worker.swept_ms + SWEEP_INTERVAL_MS)
