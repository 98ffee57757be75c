"""Streams as ends of flows: the second kind."""
from spokes._fastpath.base.buf cimport Chain, pool_is_full
from spokes._fastpath.base.reason cimport REASON_GONE, REASON_LIMIT
from spokes._fastpath.base.types cimport uint16_t, uint64_t, uint8_t
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport LINGER_VISITOR_BYTES_MAX, End, EndOps, Loop
from spokes._fastpath.io.end cimport end_resume
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.link.stream cimport (
    stream_close, stream_fin, stream_read_from, stream_room, stream_wait_room, stream_write,
)
from spokes._fastpath.link.stream_credit cimport stream_taken


cdef size_t stream_end_room(End *end) noexcept nogil:
    return stream_room(<Stream *>end)


cdef size_t stream_end_room_unread(End *end) noexcept nogil:
    cdef Loop *loop = (<Stream *>end).link.loop
    if pool_is_full(&loop.pool):
        loop.starved = 1
        return 0
    return stream_room(<Stream *>end)


cdef size_t stream_end_credit(End *end) noexcept nogil:
    return (<Stream *>end).tx_limit - (<Stream *>end).tx_offset


cdef void stream_end_write(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    stream_write(<Stream *>end, src, src_bytes)


cdef size_t stream_end_push(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef size_t room = stream_room(<Stream *>end)
    if room > src_bytes:
        room = src_bytes
    stream_write(<Stream *>end, src, room)
    return room


cdef ssize_t stream_end_push_chain(End *end, Chain *chain) noexcept nogil:
    return 0                            # each frame has a header in front


cdef void stream_end_wait_room(End *end) noexcept nogil:
    stream_wait_room(<Stream *>end)


cdef void stream_end_fin(End *end) noexcept nogil:
    stream_fin(<Stream *>end)


cdef void stream_end_taken(End *end, size_t bytes) noexcept nogil:
    stream_taken(<Stream *>end, bytes)


cdef uint8_t stream_end_source(End *end) noexcept nogil:
    return 0


cdef Conn *stream_end_plain_socket(End *end) noexcept nogil:
    return NULL


cdef ssize_t stream_end_read_from(End *end, Conn *source, size_t bytes_max) noexcept nogil:
    return stream_read_from(<Stream *>end, source, bytes_max)


cdef bint stream_end_hand_over(End *end, uint64_t worker_mask, uint64_t *workers_tried) noexcept nogil:
    return False                        # it is where its link is


cdef void stream_end_close(End *end) noexcept nogil:
    stream_close(<Stream *>end, REASON_GONE)


cdef void stream_end_abort(End *end, uint16_t reason) noexcept nogil:
    stream_close(<Stream *>end, reason)


cdef size_t drain_close_on_data(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """`owner` counts what was thrown away: who sends more than that means to go on for ever."""
    end.owner = <void *>(<size_t>end.owner + src_bytes)
    if <size_t>end.owner > LINGER_VISITOR_BYTES_MAX:
        stream_close(<Stream *>end, REASON_LIMIT)
    return src_bytes


cdef void drain_close_eof(End *end) noexcept nogil:
    stream_close(<Stream *>end, REASON_GONE)


cdef void drain_close_room(End *end) noexcept nogil:
    pass


cdef void drain_close_gone(End *end, int rc) noexcept nogil:
    pass


cdef EndOps drain_close_ops
drain_close_ops.on_data = drain_close_on_data
drain_close_ops.eof = drain_close_eof
drain_close_ops.room = drain_close_room
drain_close_ops.gone = drain_close_gone


cdef void stream_end_linger(End *end, bint is_mid_request) noexcept nogil:
    """A RESET now would throw away what the peer has not passed on yet: wait for its FIN, discard the rest."""
    if end.closed:
        return
    stream_fin(<Stream *>end)
    if end.eof:
        stream_close(<Stream *>end, REASON_GONE)
        return
    end.ops = &drain_close_ops
    end.owner = NULL
    end_resume(end)


cdef void stream_end_finish(End *end) noexcept nogil:
    stream_close(<Stream *>end, REASON_GONE)


cdef Loop *stream_end_loop(End *end) noexcept nogil:
    return (<Stream *>end).link.loop


cdef EndKind stream_kind
stream_kind.room = stream_end_room
stream_kind.room_unread = stream_end_room_unread
stream_kind.credit = stream_end_credit
stream_kind.write = stream_end_write
stream_kind.push = stream_end_push
stream_kind.push_chain = stream_end_push_chain
stream_kind.wait_room = stream_end_wait_room
stream_kind.fin = stream_end_fin
stream_kind.taken = stream_end_taken
stream_kind.source = stream_end_source
stream_kind.recv = NULL
stream_kind.keep = NULL
stream_kind.plain_socket = stream_end_plain_socket
stream_kind.read_from = stream_end_read_from
stream_kind.hand_over = stream_end_hand_over
stream_kind.close = stream_end_close
stream_kind.abort = stream_end_abort
stream_kind.refuse = stream_end_abort   # whoever has the visitor's socket tells it
stream_kind.linger = stream_end_linger
stream_kind.finish = stream_end_finish
stream_kind.loop = stream_end_loop
