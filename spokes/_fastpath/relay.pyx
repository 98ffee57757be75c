"""Raw flows: a visitor's or upstream's conn and a stream, each the other's owner.

A conn is read in its stream's turn, straight into the link's blocks; what arrives on the stream goes straight to the
socket. Who cannot take more pauses the other: a slow reader stops its own stream and no other.
"""
from spokes._fastpath.conn cimport (
    ALERT_INTERNAL_ERROR, ALERT_UNRECOGNIZED_NAME, CONN_DIRECT_BYTES, ROLE_UPSTREAM, End, EndOps, conn_alert,
    conn_close, conn_fin, conn_mark_dirty, conn_room, conn_send_from, conn_send_now, conn_takes_now, conn_write,
)
from spokes._fastpath.fault cimport fault_of_conn, fault_reason
from spokes._fastpath.frame cimport REASON_GONE, REASON_INTERNAL, REASON_NO_SERVICE
from spokes._fastpath.mux cimport (
    STREAM_TURN_BYTES, end_pull, end_wait_room, stream_close, stream_fin, stream_read_from, stream_room, stream_taken,
    stream_wait_room,
    stream_write,
)
from spokes._fastpath.outcome cimport FAULT_CLOSED, FAULT_NONE, outcome_answered, outcome_fault, outcome_is_loop
from spokes._fastpath.timer cimport timer_set
from spokes._fastpath.types cimport RC_EOF, uint64_t, uint8_t
from spokes._fastpath.upstream cimport UpstreamConn, upstream_connect_raw


cdef enum:
    FINISH_IDLE_MS = 30000              # for the last bytes of a flow that has ended


cdef void relay_finish(Conn *conn, Stream *stream) noexcept nogil:
    """Both directions have ended: what is queued still goes out."""
    stream_close(stream, REASON_GONE)
    conn.end.ops = NULL
    conn.end.wants_room = 0
    conn.close_when_flushed = 1
    conn.end.owner = NULL
    conn.timer.fire = finish_expired
    conn.timer.owner = conn
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + FINISH_IDLE_MS)
    conn_mark_dirty(conn)


cdef void finish_expired(void *owner) noexcept nogil:
    """Its reader may be slow, but one that takes nothing for a whole interval is gone."""
    cdef Conn *conn = <Conn *>owner
    if conn.out.bytes == <size_t>conn.end.owner:
        conn_close(conn, True)
        return
    conn.end.owner = <void *>conn.out.bytes
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + FINISH_IDLE_MS)


# The stream's side: what its conn's owner is told about it.

cdef size_t stream_take(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Little gathers in the conn until the pass settles; much goes to the kernel at once, and what that does not take
    waits in the stream: one place to queue, and blocks that leave again without a copy."""
    cdef Conn *conn = <Conn *>end.owner
    cdef size_t taken = 0
    if src_bytes < CONN_DIRECT_BYTES or conn.tls != NULL:
        taken = conn_room(conn)
        if taken > src_bytes:
            taken = src_bytes
        if taken > 0:
            conn_write(conn, src, taken)
    elif conn_takes_now(conn):
        taken = conn_send_now(conn, src, src_bytes)
    if taken < src_bytes:
        end.paused = 1
        end_wait_room(&conn.end)
    return taken


cdef void stream_ended(End *end) noexcept nogil:
    cdef Conn *conn = <Conn *>end.owner
    conn_fin(conn)
    if end.fin:
        relay_finish(conn, <Stream *>end)


cdef void stream_has_room(End *end) noexcept nogil:
    """The stream's turn: read its conn."""
    cdef Stream *stream = <Stream *>end
    cdef Conn *conn = <Conn *>end.owner
    cdef ssize_t n
    if conn.end.rx.bytes > 0:
        end_pull(&conn.end)
        if conn.end.rx.bytes > 0 or end.closed:
            return
    if not conn.readable or conn.connecting or end.fin:
        return
    if stream_room(stream) == 0:
        stream_wait_room(stream)
        return
    n = stream_read_from(stream, conn, STREAM_TURN_BYTES)
    if n > 0 and stream.tx_offset == <uint64_t>n:
        relay_answered(conn)
    if n >= 0:
        if conn.readable:
            stream_wait_room(stream)
    elif n == RC_EOF:
        if not end.eof_told:
            relay_lost(conn, stream, FAULT_CLOSED)
        elif stream.tx_offset == 0:
            relay_answered(conn)        # it has heard all of it and has nothing to say
        stream_fin(stream)
        if end.eof_told:
            relay_finish(conn, stream)
    else:
        conn_gone(&conn.end, <int>n)


cdef void stream_lost(End *end, int rc) noexcept nogil:
    conn_close(<Conn *>end.owner, True)


cdef void tls_stream_lost(End *end, int rc) noexcept nogil:
    """Of TLS that is passed through: while nothing has come back, the visitor can be told in its own words."""
    cdef Stream *stream = <Stream *>end
    cdef Conn *conn = <Conn *>end.owner
    if stream.rx_offset > 0 or conn.end.eof:
        conn_close(conn, True)
    else:
        conn_alert(conn, ALERT_UNRECOGNIZED_NAME if stream.reset_reason == REASON_NO_SERVICE else ALERT_INTERNAL_ERROR)


# The conn's side.

cdef size_t conn_take(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Only for bytes that were read before the flow began (a ClientHello)."""
    cdef Stream *stream = <Stream *>end.owner
    cdef size_t room = stream_room(stream)
    if room > src_bytes:
        room = src_bytes
    stream_write(stream, src, room)
    if room < src_bytes:
        end.paused = 1
        stream_wait_room(stream)
    return room


cdef void conn_has_room(End *end) noexcept nogil:
    cdef Conn *conn = <Conn *>end
    cdef Stream *stream = <Stream *>end.owner
    cdef size_t sent
    while stream.end.rx.bytes >= CONN_DIRECT_BYTES and conn_takes_now(conn):
        sent = conn_send_from(conn, &stream.end.rx)
        if sent == 0:
            break
        stream_taken(stream, sent)
    if conn.tls == NULL and stream.end.rx.bytes > 0 and not conn.writable:
        end_wait_room(end)              # the stream stays paused
        return
    end_pull(&stream.end)


cdef void relay_answered(Conn *conn) noexcept nogil:
    if conn.role == ROLE_UPSTREAM:
        outcome_answered(&(<UpstreamConn *>conn.extra).upstream.outcomes, conn.loop.wall_ms)


cdef void relay_lost(Conn *conn, const Stream *stream, uint8_t fault) noexcept nogil:
    """An upstream that ends a flow before it has said a word has not served it: so does a forwarder with nothing behind
    it. Later on an end is the business of those who talk."""
    cdef UpstreamConn *up
    if conn.role != ROLE_UPSTREAM or stream.tx_offset > 0:
        return
    up = <UpstreamConn *>conn.extra
    if outcome_is_loop(&up.upstream.outcomes, conn.loop.wall_ms):
        return
    if up.fault == FAULT_NONE:          # else of dialling, and counted
        up.fault = fault
        outcome_fault(&up.upstream.outcomes, fault, conn.loop.wall_ms)


cdef void conn_gone(End *end, int rc) noexcept nogil:
    cdef uint8_t fault = fault_of_conn(rc)
    if fault != FAULT_NONE:
        if (<Conn *>end).role == ROLE_UPSTREAM and (<UpstreamConn *>(<Conn *>end).extra).fault != FAULT_NONE:
            fault = (<UpstreamConn *>(<Conn *>end).extra).fault         # of dialling
        relay_lost(<Conn *>end, <Stream *>end.owner, fault)
    stream_close(<Stream *>end.owner, fault_reason(fault))
    conn_close(<Conn *>end, True)


cdef void relay_ready(Conn *conn) noexcept nogil:
    if conn.end.ops == NULL:
        conn_mark_dirty(conn)
        return
    if conn.readable:
        stream_wait_room(<Stream *>conn.end.owner)
    if conn.writable and (conn.out.bytes > 0 or conn.end.wants_room or conn.error < 0):
        conn_mark_dirty(conn)


cdef EndOps stream_ops
stream_ops.take = stream_take
stream_ops.eof = stream_ended
stream_ops.room = stream_has_room
stream_ops.gone = stream_lost

cdef EndOps tls_stream_ops
tls_stream_ops.take = stream_take
tls_stream_ops.eof = stream_ended
tls_stream_ops.room = stream_has_room
tls_stream_ops.gone = tls_stream_lost

cdef EndOps conn_ops
conn_ops.take = conn_take
conn_ops.eof = NULL
conn_ops.room = conn_has_room
conn_ops.gone = conn_gone


cdef void relay_join(Conn *conn, Stream *stream, bint is_tls) noexcept nogil:
    conn.end.ops = &conn_ops
    conn.end.owner = stream
    conn.on_ready = relay_ready
    stream.end.ops = &tls_stream_ops if is_tls else &stream_ops
    stream.end.owner = conn
    if conn.readable or conn.end.rx.bytes > 0:
        stream_wait_room(stream)
    end_pull(&stream.end)


cdef int relay_to_upstream(Stream *stream, Upstream *upstream) noexcept nogil:
    cdef Conn *conn = upstream_connect_raw(stream.link.loop, upstream, &conn_ops, stream, relay_ready, stream.hops + 1)
    if conn == NULL:
        return REASON_INTERNAL
    stream.end.ops = &stream_ops
    stream.end.owner = conn
    return 0
