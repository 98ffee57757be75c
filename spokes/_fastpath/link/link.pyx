"""A link's life on its worker: what is ready in one pass leaves in one write, in fair scheduling slots, within credit.

Owns: links, their streams.
Bound: LINK_OUT_BYTES_MAX (+ reserve) waiting to be sent, stream_count_max streams, one backlog of datagrams.
"""
from libc.errno cimport ECONNRESET, EPIPE
from libc.stdlib cimport calloc

from spokes._fastpath.base.buf cimport slab_init
from spokes._fastpath.base.timer cimport timer_set
from spokes._fastpath.base.types cimport RC_DEAD, uint32_t, uint64_t
from spokes._fastpath.io.conn cimport conn_flush
from spokes._fastpath.io.conn_state cimport UNSENT_BYTES_START, End, EndOps, Loop
from spokes._fastpath.io.loop cimport conn_mark_dirty, loop_hold, loop_task
from spokes._fastpath.io.tune cimport tune_congestion, tune_retries
from spokes._fastpath.link.backlog cimport backlog_is_empty
from spokes._fastpath.link.frame cimport FRAME_WINDOW
from spokes._fastpath.link.link_datagrams cimport link_send_backlog
from spokes._fastpath.link.link_end cimport link_fail
from spokes._fastpath.link.link_receive cimport link_read
from spokes._fastpath.link.link_send cimport link_ping, link_put
from spokes._fastpath.link.link_state cimport (
    LINK_DEAD_MS, LINK_GATHER_BYTES_MAX, LINK_OUT_BYTES_MAX, LINK_OUT_BYTES_MIN, LINK_OUT_BYTES_START, PING_ACCEPTOR_MS,
    PING_CONNECTOR_MS, QUEUE_SLOTS, Stream,
)
from spokes._fastpath.link.stream_credit cimport link_send_credits, queue_remove
from spokes._fastpath.link.stream_relief cimport link_relieve

cdef enum:
    FLUSH_ROUNDS = 4
    BROKEN_READS_MAX = 16               # 4 MiB: more than a kernel keeps of a conn that was reset


cdef void link_run_slots(Link *link) noexcept nogil:
    cdef Stream *stream
    cdef uint32_t slots_left = link.stream_count + 1
    while link.queues[QUEUE_SLOTS].first != NULL and link.conn.out.bytes < link.out_limit_bytes and slots_left > 0:
        slots_left -= 1
        stream = link.queues[QUEUE_SLOTS].first
        queue_remove(stream, QUEUE_SLOTS)
        if stream.end.ops != NULL and stream.end.wants_room:
            stream.end.wants_room = 0
            stream.end.ops.room(&stream.end)


cdef void link_flush(Conn *conn) noexcept nogil:
    cdef Link *link = <Link *>conn.end.owner
    cdef int rounds = 0
    cdef size_t before
    if link.down:
        return
    while rounds < FLUSH_ROUNDS:
        rounds += 1
        link_send_credits(link)
        if conn.writable and (conn.tls == NULL or conn.tls.tx.bytes == 0):
            if not backlog_is_empty(&link.backlog):
                link_send_backlog(link)
            link_run_slots(link)
            link_send_credits(link)
        before = conn.out.bytes
        if link.loop.gathering and 0 < before < LINK_GATHER_BYTES_MAX and conn.error == 0:
            loop_hold(conn)             # one record and one call for what several short passes bring
            return
        conn_flush(conn)
        if link.down or conn.closed:
            return
        if not conn.writable:
            # The path is slower than we are: queue less ahead of it.
            link.blocked = 1
            if before > LINK_OUT_BYTES_MIN and link.out_limit_bytes > LINK_OUT_BYTES_MIN:
                link.out_limit_bytes //= 2
            return
        if link.out_limit_bytes < LINK_OUT_BYTES_MAX and before >= link.out_limit_bytes and not link.is_slow:
            link.out_limit_bytes *= 2
        if link.queues[QUEUE_SLOTS].first == NULL and link.credits == NULL and backlog_is_empty(&link.backlog):
            break
    if (link.queues[QUEUE_SLOTS].first != NULL or link.credits != NULL or not backlog_is_empty(&link.backlog)) \
            and not link.loop.starved:
        conn_mark_dirty(conn)


cdef void link_ready(Conn *conn) noexcept nogil:
    cdef Link *link = <Link *>conn.end.owner
    if conn.readable and conn.error == 0:
        link_read(link)
    if not conn.closed and conn.writable and (conn.out.bytes > 0 or conn.tls.tx.bytes > 0
                                              or link.queues[QUEUE_SLOTS].first != NULL
                                              or not backlog_is_empty(&link.backlog)):
        conn_mark_dirty(conn)


cdef void link_conn_gone(End *end, int rc) noexcept nogil:
    """The peer may have said why before it reset the conn: what came in time is read."""
    cdef Link *link = <Link *>end.owner
    cdef Conn *conn = link.conn
    cdef int _i
    if rc == -EPIPE or rc == -ECONNRESET:
        link.broken = rc
        conn.error = 0
        conn.readable = 1
        for _i in range(BROKEN_READS_MAX):
            if not link.down and conn.readable and conn.error == 0:
                link_read(link)
    link_fail(link, rc)


cdef void link_unread(Link *link, uint64_t ping_ms) noexcept nogil:
    """The peer must go on hearing from us; and visitors that do not read must not hold up all others for ever."""
    if link.loop.now_us - link.ping_sent_us >= ping_ms * 1000:
        link_ping(link)
    link_relieve(link)


cdef void link_tick(void *owner) noexcept nogil:
    """Deadlines of one link; moves with what was last received, so it fires about twice in ten seconds when idle."""
    cdef Link *link = <Link *>owner
    cdef Loop *loop = link.loop
    cdef uint64_t silence_ms = loop.now_ms - link.last_rx_ms
    cdef uint64_t ping_ms = PING_ACCEPTOR_MS if link.is_acceptor else PING_CONNECTOR_MS
    if link.down:
        return
    if link.conn.readable or link.stalled:      # was left unread
        if link.unread:
            link_unread(link, ping_ms)
        loop_task(loop, &link.task)
        timer_set(&loop.wheel, &link.conn.timer, loop.now_ms + 64)
        return
    if silence_ms >= LINK_DEAD_MS:
        link_fail(link, RC_DEAD)
        return
    if silence_ms >= ping_ms:
        link_ping(link)
        ping_ms = LINK_DEAD_MS
    timer_set(&loop.wheel, &link.conn.timer, link.last_rx_ms + ping_ms)


cdef EndOps link_conn_ops
link_conn_ops.on_data = NULL
link_conn_ops.eof = NULL
link_conn_ops.room = NULL
link_conn_ops.gone = link_conn_gone


cdef Link *link_new(Conn *conn, bint is_acceptor, const LinkOps *ops) noexcept nogil:
    cdef Link *link = <Link *>calloc(1, sizeof(Link))
    cdef Loop *loop = conn.loop
    if link == NULL:
        return NULL
    if loop.streams_slab.object_bytes == 0:
        slab_init(&loop.streams_slab, sizeof(Stream))
    link.conn = conn
    link.loop = loop
    link.ops = ops
    link.is_acceptor = is_acceptor
    link.out_limit_bytes = LINK_OUT_BYTES_START
    link.unsent_bytes = UNSENT_BYTES_START
    tune_congestion(conn.fd)
    tune_retries(conn.fd)
    link.stream_count_max = 0xFFFFFFFFu
    link.last_rx_ms = loop.now_ms
    link.busy_since_ms = loop.now_ms
    link.task.run = link_read
    link.task.owner = link
    conn.end.owner = link
    conn.end.ops = &link_conn_ops
    conn.on_ready = link_ready
    conn.on_flush = link_flush
    conn.timer.fire = link_tick
    conn.timer.owner = link
    timer_set(&loop.wheel, &conn.timer, loop.now_ms + (PING_ACCEPTOR_MS if is_acceptor else PING_CONNECTOR_MS))
    loop.stats.links_open += 1
    loop.stats.links_total += 1
    link_put(link, FRAME_WINDOW, 0, 0, 0)   # we understand it; who does not skips it
    return link
