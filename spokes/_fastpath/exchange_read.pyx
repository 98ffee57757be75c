"""When an exchange's sockets are read, and how much at once.

Bound: one read of a conn in a pass, no more than the other end has room for and PULL_SLACK_BYTES.
Fails: an end of file and an error go to the end's owner (`ops`), as for every end.
"""
from spokes._fastpath.buf cimport chain_clear, chain_copy, pool_is_half_used
from spokes._fastpath.conn cimport (
    CONN_DIRECT_BYTES, END_CONN, END_STREAM, RX_BYTES, Conn, End, Loop, conn_mark_dirty, conn_recv, conn_rx_keep,
    loop_park, loop_task,
)
from spokes._fastpath.exchange_end cimport exchange_answered
from spokes._fastpath.exchange_state cimport (
    DEADLINE_ASK, DEADLINE_RESPONSE, HALF_CLOSED_ASK_MS, HALF_CLOSED_MS, HALF_CLOSED_MUTE_MS, REQUEST_BODY,
    REQUEST_DONE, REQUEST_HEAD, RESPONSE_BODY, RESPONSE_HEAD, RESPONSE_NONE, Exchange, exchange_deadline,
)
from spokes._fastpath.http1 cimport BODY_CHUNKED, BODY_UNTIL_CLOSE, http1_body_done
from spokes._fastpath.mux cimport STREAM_TURN_BYTES, Stream, end_pull, end_room, end_wait_room, stream_read_from
from spokes._fastpath.types cimport RC_EOF

cdef enum:
    PULL_SLACK_BYTES = 16384            # a read may be this much more than its target has room for: frames of chunks
    HEAD_READ_BYTES_MIN = 4096          # of a response: as much as its target has room for, and this much …
    HEAD_GROWTH_BYTES = 1024            # … less what we may add to the head


cdef bint wants_down(Exchange *x) noexcept nogil:
    if x.down.paused or x.down.eof:
        return False
    if x.down.type == END_CONN and (<Conn *>x.down).worker_next:
        return False                    # the other worker will look
    if x.raw or x.request_phase == REQUEST_BODY:
        return True
    return x.request_phase == REQUEST_HEAD and x.response_phase == RESPONSE_NONE and x.to_down.bytes == 0


cdef bint wants_up(Exchange *x) noexcept nogil:
    if x.up.paused or x.up.eof or x.to_down.bytes > 0:
        return False
    return True


cdef void exchange_half_closed(Exchange *x) noexcept nogil:
    """The visitor has said its last byte: it shut one side and awaits the answer, or it is gone. Both send a FIN."""
    if x.half_closed or x.raw or x.request_phase != REQUEST_DONE or x.response_phase == RESPONSE_NONE:
        return
    x.half_closed = 1
    if x.response_phase == RESPONSE_BODY:
        exchange_deadline(x, DEADLINE_RESPONSE, HALF_CLOSED_MS)     # a byte of the body finds out
    elif x.minor == 0:
        exchange_deadline(x, DEADLINE_RESPONSE, HALF_CLOSED_MUTE_MS)
    else:
        exchange_deadline(x, DEADLINE_ASK, HALF_CLOSED_ASK_MS)


cdef void exchange_read(Exchange *x, Conn *conn, size_t bytes_max) noexcept nogil:
    """One read of a conn, offered to the exchange; what it does not take is kept."""
    cdef Loop *loop = x.loop
    cdef End *end = &conn.end
    cdef size_t have = chain_copy(&end.rx, loop.rx, RX_BYTES // 2)
    cdef size_t taken
    cdef ssize_t n
    if bytes_max > RX_BYTES - have:
        bytes_max = RX_BYTES - have
    n = conn_recv(conn, loop.rx + have, bytes_max)
    if n < 0:
        if n == RC_EOF:
            end.eof = 1
            if not end.eof_told:
                end.eof_told = 1
                end.ops.eof(end)
        else:
            end.ops.gone(end, <int>n)
        return
    if n == 0:
        return
    chain_clear(&loop.pool, &end.rx)
    have += n
    taken = end.ops.take(end, loop.rx, have)
    if end.closed or conn.end.ops == NULL:
        return
    if taken < have:
        conn_rx_keep(conn, loop.rx + taken, have - taken)


cdef void exchange_read_up(Exchange *x) noexcept nogil:
    cdef Conn *conn = <Conn *>x.up
    cdef size_t room
    cdef ssize_t n
    room = end_room(x.down)
    if x.response_phase == RESPONSE_HEAD or x.response_phase == RESPONSE_NONE:
        # What the target takes with the head is not kept here, where each visitor would hold blocks of it.
        room = room - HEAD_GROWTH_BYTES if room > HEAD_READ_BYTES_MIN + HEAD_GROWTH_BYTES else HEAD_READ_BYTES_MIN
        exchange_read(x, conn, room if room < RX_BYTES // 4 else RX_BYTES // 4)
        return
    if room == 0:
        x.up.paused = 1
        end_wait_room(x.down)
        return
    if x.down.type == END_STREAM and conn.tls == NULL and conn.end.rx.bytes == 0 and (
            x.raw or (x.response.kind != BODY_CHUNKED and x.response.left > CONN_DIRECT_BYTES)):
        # Known to be all body: from the socket into the link's blocks without a copy.
        n = stream_read_from(<Stream *>x.down, conn, x.response.left if not x.raw and
                             x.response.kind != BODY_UNTIL_CLOSE else STREAM_TURN_BYTES)
        if n > 0:
            if not x.raw and x.response.kind != BODY_UNTIL_CLOSE:
                x.response.left -= n
                if http1_body_done(&x.response):
                    exchange_answered(x)
        elif n == RC_EOF:
            conn.end.eof = 1
            conn.end.eof_told = 1
            conn.end.ops.eof(&conn.end)
        elif n < 0:
            conn.end.ops.gone(&conn.end, <int>n)
        return
    exchange_read(x, conn, room if pool_is_half_used(&x.loop.pool) else room + PULL_SLACK_BYTES)


cdef void exchange_read_both(Exchange *x) noexcept nogil:
    cdef Conn *conn
    if x.down.type == END_CONN:
        conn = <Conn *>x.down
        if conn.readable and x.down.rx.bytes > 0 and wants_down(x):
            end_pull(x.down)            # first what came first: the next read may find the end
            if x.dead:
                return
        if conn.readable and not conn.worker_next:
            if wants_down(x):
                exchange_read(x, conn, RX_BYTES // 4)
                if x.dead:
                    return
            if conn.rdhup and not wants_down(x) and not x.down.eof and x.down.rx.bytes == 0:
                exchange_read(x, conn, RX_BYTES // 4)   # the visitor may have left while its answer is awaited
                if x.dead:
                    return
            if conn.readable and wants_down(x):
                loop_task(x.loop, &x.task)
        if conn.rdhup or x.down.eof:
            exchange_half_closed(x)
    if x.up != NULL and x.up.type == END_CONN:
        conn = <Conn *>x.up
        if conn.readable and not conn.connecting and wants_up(x):
            exchange_read_up(x)
            if x.dead or x.up != &conn.end:
                return
            if conn.readable and wants_up(x):
                loop_task(x.loop, &x.task)


cdef void exchange_conn_ready(Conn *conn) noexcept nogil:
    cdef Exchange *x = <Exchange *>conn.end.owner
    if conn.end.ops == NULL:
        conn_mark_dirty(conn)
        return
    if conn.writable and (conn.out.bytes > 0 or conn.end.wants_room or (conn.tls != NULL and conn.tls.tx.bytes > 0)):
        conn_mark_dirty(conn)
    if conn.readable:
        exchange_read_both(x)


cdef void exchange_task(void *owner) noexcept nogil:
    cdef Exchange *x = <Exchange *>owner
    if x.dead:
        loop_park(x.loop, &x.parked, &x.loop.exchanges_slab, x)
        return
    if x.down.rx.bytes > 0 and wants_down(x):
        end_pull(x.down)
        if x.dead:
            return                      # exchange_free has parked it: the task was not queued when it ended
    exchange_read_both(x)
