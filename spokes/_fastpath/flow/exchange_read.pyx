"""When an exchange's ends are read, and how much at once.

Bound: one read of an end in a pass, no more than the other end has room for and PULL_SLACK_BYTES.
Fails: an end of file and an error go to the end's owner (`ops`), as for every end.
"""
from spokes._fastpath.base.buf cimport pool_is_half_used
from spokes._fastpath.base.types cimport RC_EOF
from spokes._fastpath.flow.exchange_end cimport exchange_answered
from spokes._fastpath.flow.exchange_state cimport (
    DEADLINE_ASK, DEADLINE_RESPONSE, HALF_CLOSED_ASK_MS, HALF_CLOSED_MS, HALF_CLOSED_MUTE_MS, REQUEST_BODY,
    REQUEST_DONE, REQUEST_HEAD, RESPONSE_BODY, RESPONSE_HEAD, RESPONSE_NONE, Exchange, exchange_deadline,
    exchange_defer_free,
)
from spokes._fastpath.http.http1 cimport BODY_CHUNKED, BODY_UNTIL_CLOSE, http1_body_done
from spokes._fastpath.io.conn_state cimport CONN_DIRECT_BYTES, EOF_TOLD, RX_BYTES, End
from spokes._fastpath.io.end cimport (
    end_can_read_from, end_has_ended, end_is_readable, end_resume, end_read, end_read_from, end_room, end_wait_room,
)
from spokes._fastpath.io.loop cimport loop_task
from spokes._fastpath.link.link_state cimport STREAM_SLOT_BYTES

cdef enum:
    PULL_SLACK_BYTES = 16384            # a read may be this much more than its target has room for: frames of chunks
    HEAD_READ_BYTES_MIN = 4096          # of a response: as much as its target has room for, and this much …
    HEAD_GROWTH_BYTES = 1024            # … less what we may add to the head


cdef bint wants_down(Exchange *x) noexcept nogil:
    if x.down.paused or x.down.eof or x.moving:
        return False
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


cdef void exchange_read_up(Exchange *x) noexcept nogil:
    cdef End *up = x.up
    cdef size_t room
    cdef ssize_t n
    room = end_room(x.down)
    if x.response_phase == RESPONSE_HEAD or x.response_phase == RESPONSE_NONE:
        # What the target takes with the head is not kept here, where each visitor would hold blocks of it.
        room = room - HEAD_GROWTH_BYTES if room > HEAD_READ_BYTES_MIN + HEAD_GROWTH_BYTES else HEAD_READ_BYTES_MIN
        end_read(up, room if room < RX_BYTES // 4 else RX_BYTES // 4)
        return
    if room == 0:
        up.paused = 1
        end_wait_room(x.down)
        return
    if end_can_read_from(x.down, up) and (
            x.raw or (x.response.kind != BODY_CHUNKED and x.response.left > CONN_DIRECT_BYTES)):
        # Known to be all body: from the socket into the link's blocks without a copy.
        n = end_read_from(x.down, up, x.response.left if not x.raw and
                          x.response.kind != BODY_UNTIL_CLOSE else STREAM_SLOT_BYTES)
        if n > 0:
            if not x.raw and x.response.kind != BODY_UNTIL_CLOSE:
                x.response.left -= n
                if http1_body_done(&x.response):
                    exchange_answered(x)
        elif n == RC_EOF:
            up.eof = EOF_TOLD
            up.ops.eof(up)
        elif n < 0:
            up.ops.gone(up, <int>n)
        return
    end_read(up, room if pool_is_half_used(&x.loop.pool) else room + PULL_SLACK_BYTES)


cdef void exchange_read_down(Exchange *x) noexcept nogil:
    cdef End *down = x.down
    if down.rx.bytes > 0 and wants_down(x):
        end_resume(down)                  # first what came first: the next read may find the end
        if x.dead:
            return
    if x.moving:
        return
    if wants_down(x):
        end_read(down, RX_BYTES // 4)
        if x.dead:
            return
    if end_has_ended(down) and not wants_down(x) and not down.eof and down.rx.bytes == 0:
        end_read(down, RX_BYTES // 4)   # the visitor may have left while its answer is awaited
        if x.dead:
            return
    if wants_down(x) and end_is_readable(down):
        loop_task(x.loop, &x.task)


cdef void exchange_read_both(Exchange *x) noexcept nogil:
    cdef End *up
    if end_is_readable(x.down):
        exchange_read_down(x)
        if x.dead:
            return
    if end_has_ended(x.down):
        exchange_half_closed(x)
    up = x.up
    if up != NULL and end_is_readable(up) and wants_up(x):
        exchange_read_up(x)
        if x.dead or x.up != up:
            return
        if end_is_readable(up) and wants_up(x):
            loop_task(x.loop, &x.task)


cdef void exchange_ready(End *end) noexcept nogil:
    exchange_read_both(<Exchange *>end.owner)


cdef void exchange_task(void *owner) noexcept nogil:
    cdef Exchange *x = <Exchange *>owner
    if x.dead:
        exchange_defer_free(x)
        return
    if x.down.rx.bytes > 0 and wants_down(x):
        end_resume(x.down)
        if x.dead:
            return                      # exchange_free has deferred it: the task was not queued when it ended
    exchange_read_both(x)
