# What can be done with an end of a flow, whatever it is: each is a call through the table of its kind.
from spokes._fastpath.base.buf cimport Chain
from spokes._fastpath.base.types cimport uint16_t, uint64_t, uint8_t
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport SOURCE_ENDS, SOURCE_READABLE, End, Loop

cdef inline size_t end_room(End *end) noexcept nogil:
    return end.kind.room(end)

cdef inline size_t end_room_unread(End *end) noexcept nogil:
    return end.kind.room_unread(end)

cdef inline size_t end_credit(End *end) noexcept nogil:
    return end.kind.credit(end)

cdef inline void end_write(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    end.kind.write(end, src, src_bytes)

cdef inline size_t end_push(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    return end.kind.push(end, src, src_bytes)

cdef inline ssize_t end_push_chain(End *end, Chain *chain) noexcept nogil:
    return end.kind.push_chain(end, chain)

cdef inline void end_wait_room(End *end) noexcept nogil:
    end.kind.wait_room(end)

cdef inline void end_fin(End *end) noexcept nogil:
    end.kind.fin(end)

cdef inline void end_taken(End *end, size_t bytes) noexcept nogil:
    end.kind.taken(end, bytes)

cdef inline bint end_is_readable(End *end) noexcept nogil:
    return end.kind.source(end) & SOURCE_READABLE

cdef inline bint end_has_ended(End *end) noexcept nogil:
    """The peer has shut its side, as far as is known: bytes before its end may be unread."""
    return end.eof or end.kind.source(end) & SOURCE_ENDS

cdef inline ssize_t end_recv(End *end, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    return end.kind.recv(end, dst, dst_bytes)

cdef inline bint end_can_read_from(End *to, End *source) noexcept nogil:
    """Is there a way from one to the other without a copy?"""
    return to.kind.read_from != NULL and source.rx.bytes == 0 and source.kind.plain_socket(source) != NULL

cdef inline ssize_t end_read_from(End *to, End *source, size_t bytes_max) noexcept nogil:
    return to.kind.read_from(to, source.kind.plain_socket(source), bytes_max)

cdef inline bint end_hand_over(End *end, uint64_t worker_mask, uint64_t *workers_tried) noexcept nogil:
    return end.kind.hand_over(end, worker_mask, workers_tried)

cdef inline void end_close(End *end) noexcept nogil:
    end.kind.close(end)

cdef inline void end_abort(End *end, uint16_t reason) noexcept nogil:
    end.kind.abort(end, reason)

cdef inline void end_refuse(End *end, uint16_t reason) noexcept nogil:
    end.kind.refuse(end, reason)

cdef inline void end_linger(End *end, bint is_mid_request) noexcept nogil:
    end.kind.linger(end, is_mid_request)

cdef inline void end_finish(End *end) noexcept nogil:
    end.kind.finish(end)

cdef inline Loop *end_loop(End *end) noexcept nogil:
    return end.kind.loop(end)

cdef void end_resume(End *end) noexcept nogil                         # give the owner what waits in rx; reads nothing
cdef void end_tell_eof(End *end) noexcept nogil                     # once, when nothing waits in rx any more
# One read of what is readable, offered to the owner; what it does not take is kept.
cdef void end_read(End *end, size_t bytes_max) noexcept nogil
# One read of source, written to the other: bytes, 0 not now, RC_EOF or < 0. There is room for some.
cdef ssize_t end_move(End *to, End *source, size_t bytes_max) noexcept nogil
