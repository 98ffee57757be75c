"""Conns as ends of flows: the first kind."""
from spokes._fastpath.base.buf cimport Chain
from spokes._fastpath.base.reason cimport REASON_NO_SERVICE
from spokes._fastpath.base.timer cimport timer_set
from spokes._fastpath.base.types cimport uint16_t, uint64_t, uint8_t
from spokes._fastpath.io.conn cimport (
    conn_close, conn_fin, conn_hand_over, conn_recv, conn_room, conn_rx_keep, conn_send_from, conn_send_now,
    conn_takes_now, conn_write,
)
from spokes._fastpath.io.conn_linger cimport conn_alert, conn_linger
from spokes._fastpath.io.conn_state cimport (
    ALERT_INTERNAL_ERROR, ALERT_UNRECOGNIZED_NAME, CONN_DIRECT_BYTES, SOURCE_ENDS, SOURCE_READABLE, Conn, End, Loop,
)
from spokes._fastpath.io.loop cimport conn_mark_dirty

cdef enum:
    FINISH_IDLE_MS = 30000              # for the last bytes of a flow that has ended


cdef size_t conn_end_room(End *end) noexcept nogil:
    return conn_room(<Conn *>end)


cdef size_t conn_end_credit(End *end) noexcept nogil:
    return <size_t>-1                   # TCP's window is the kernel's


cdef void conn_end_write(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    conn_write(<Conn *>end, src, src_bytes)


cdef size_t conn_end_push(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Little gathers until the pass settles; much goes to the kernel at once, and what that does not take waits with
    the owner: one place to queue, and blocks that leave again without a copy."""
    cdef Conn *conn = <Conn *>end
    cdef size_t taken
    if src_bytes < CONN_DIRECT_BYTES or conn.tls != NULL:
        taken = conn_room(conn)
        if taken > src_bytes:
            taken = src_bytes
        if taken > 0:
            conn_write(conn, src, taken)
        return taken
    return conn_send_now(conn, src, src_bytes) if conn_takes_now(conn) else 0


cdef ssize_t conn_end_push_chain(End *end, Chain *chain) noexcept nogil:
    cdef Conn *conn = <Conn *>end
    cdef size_t sent = 0
    if chain.bytes >= CONN_DIRECT_BYTES and conn_takes_now(conn):
        sent = conn_send_from(conn, chain)
    return -1 if sent == 0 and conn.tls == NULL and not conn.writable else <ssize_t>sent


cdef void conn_end_wait_room(End *end) noexcept nogil:
    end.wants_room = 1
    if (<Conn *>end).writable:
        conn_mark_dirty(<Conn *>end)


cdef void conn_end_fin(End *end) noexcept nogil:
    conn_fin(<Conn *>end)


cdef void conn_end_taken(End *end, size_t bytes) noexcept nogil:
    pass                                # the kernel's window follows what is read


cdef uint8_t conn_end_source(End *end) noexcept nogil:
    cdef Conn *conn = <Conn *>end
    if conn.connecting:
        return 0
    return (SOURCE_READABLE if conn.readable else 0) | (SOURCE_ENDS if conn.rdhup else 0)


cdef ssize_t conn_end_recv(End *end, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    return conn_recv(<Conn *>end, dst, dst_bytes)


cdef void conn_end_keep(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    conn_rx_keep(<Conn *>end, src, src_bytes)


cdef Conn *conn_end_plain_socket(End *end) noexcept nogil:
    return <Conn *>end if (<Conn *>end).tls == NULL else NULL


cdef bint conn_end_hand_over(End *end, uint64_t worker_mask, uint64_t *workers_tried) noexcept nogil:
    return conn_hand_over(<Conn *>end, worker_mask, workers_tried)


cdef void conn_end_close(End *end) noexcept nogil:
    conn_close(<Conn *>end, False)


cdef void conn_end_abort(End *end, uint16_t reason) noexcept nogil:
    conn_close(<Conn *>end, True)       # a reset says no more than that


cdef void conn_end_refuse(End *end, uint16_t reason) noexcept nogil:
    conn_alert(<Conn *>end, ALERT_UNRECOGNIZED_NAME if reason == REASON_NO_SERVICE else ALERT_INTERNAL_ERROR)


cdef void conn_end_linger(End *end, bint is_mid_request) noexcept nogil:
    if not end.closed:
        (<Conn *>end).is_mid_request = is_mid_request
    conn_linger(<Conn *>end)


cdef void finish_expired(void *owner) noexcept nogil:
    """Its reader may be slow, but one that takes nothing for a whole interval is gone."""
    cdef Conn *conn = <Conn *>owner
    if conn.out.bytes == <size_t>conn.end.owner:
        conn_close(conn, True)
        return
    conn.end.owner = <void *><size_t>conn.out.bytes
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + FINISH_IDLE_MS)


cdef void conn_end_finish(End *end) noexcept nogil:
    cdef Conn *conn = <Conn *>end
    end.ops = NULL
    end.wants_room = 0
    end.owner = NULL
    conn.close_when_flushed = 1
    conn.timer.fire = finish_expired
    conn.timer.owner = conn
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + FINISH_IDLE_MS)
    conn_mark_dirty(conn)


cdef Loop *conn_end_loop(End *end) noexcept nogil:
    return (<Conn *>end).loop


cdef EndKind conn_kind
conn_kind.room = conn_end_room
conn_kind.room_unread = conn_end_room        # by itself it lets a block wait where memory is short
conn_kind.credit = conn_end_credit
conn_kind.write = conn_end_write
conn_kind.push = conn_end_push
conn_kind.push_chain = conn_end_push_chain
conn_kind.wait_room = conn_end_wait_room
conn_kind.fin = conn_end_fin
conn_kind.taken = conn_end_taken
conn_kind.source = conn_end_source
conn_kind.recv = conn_end_recv
conn_kind.keep = conn_end_keep
conn_kind.plain_socket = conn_end_plain_socket
conn_kind.read_from = NULL
conn_kind.hand_over = conn_end_hand_over
conn_kind.close = conn_end_close
conn_kind.abort = conn_end_abort
conn_kind.refuse = conn_end_refuse
conn_kind.linger = conn_end_linger
conn_kind.finish = conn_end_finish
conn_kind.loop = conn_end_loop
