"""How bytes go through an exchange: when its ends are read and how much at once, and what is written to them.

Bound: one read of an end in a pass, no more than the other end has room for and READ_SLACK_BYTES. A body goes on only
  as far as its target has room; a head or a page that finds none waits in a chain.
Fails: an end of file and an error go to the end's owner (`ops`), as for every end.
"""
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from spokes._fastpath.base.buf cimport chain_append, chain_drop, pool_is_half_used
from spokes._fastpath.base.types cimport RC_EOF, uint32_t
from spokes._fastpath.flow.exchange_state cimport (
    DEADLINE_ASK, DEADLINE_RESPONSE, HALF_CLOSED_ASK_MS, HALF_CLOSED_MS, HALF_CLOSED_MUTE_MS, REPLAY_BYTES_MAX,
    REPLAY_TOTAL_BYTES_MAX, REQUEST_BODY, REQUEST_DONE, REQUEST_HEAD, RESPONSE_BODY, RESPONSE_HEAD, RESPONSE_NONE,
    Replay, exchange_deadline, exchange_defer_free, exchange_has_ended, exchange_is_switched,
)
from spokes._fastpath.http.http1 cimport BODY_CHUNKED, BODY_UNTIL_CLOSE, http1_body_done, http1_body_step
from spokes._fastpath.io.conn_state cimport CONN_DIRECT_BYTES, EOF_TOLD, RX_BYTES
from spokes._fastpath.io.end cimport (
    end_can_read_from, end_credit, end_has_ended, end_is_readable, end_read, end_read_from, end_resume, end_room,
    end_wait_room, end_write,
)
from spokes._fastpath.io.loop cimport loop_task
from spokes._fastpath.link.link_state cimport STREAM_SLOT_BYTES

cdef enum:
    READ_BYTES_MAX = RX_BYTES // 4      # of the visitor's end, and of an upstream's while its head is awaited
    READ_SLACK_BYTES = 16384            # a read may be this much more than its target has room for: frames of chunks
    HEAD_READ_BYTES_MIN = 4096          # of a response: as much as its target has room for, and this much …
    HEAD_GROWTH_BYTES = 1024            # … less what we may add to the head


# --- writing ----------------------------------------------------------------------------------------------------------

cdef void exchange_emit(Exchange *x, End *to, Chain *waiting, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef size_t room = 0
    if waiting.bytes == 0:
        room = end_room(to)
        if room > src_bytes:
            room = src_bytes
        if room > 0:
            end_write(to, src, room)
    if room < src_bytes:
        chain_append(&x.loop.pool, waiting, src + room, src_bytes - room, True)
        end_wait_room(to)


cdef void exchange_write_chain(Exchange *x, End *to, Chain *chain, bint is_last) noexcept nogil:
    cdef size_t bytes, bytes_max
    while chain.bytes > 0:
        bytes = chain.first.tail - chain.first.head
        bytes_max = end_credit(to) if is_last else end_room(to)
        if bytes > bytes_max:
            bytes = bytes_max
        if bytes == 0:
            return
        end_write(to, chain.first.data + chain.first.head, bytes)
        chain_drop(&x.loop.pool, chain, bytes)


cdef size_t body_pass(HttpBody *body, End *source, End *to, const Chain *waiting, const uint8_t *src, size_t src_bytes,
                      int *broken) noexcept nogil:
    cdef size_t room = end_room(to) if waiting.bytes == 0 else 0
    cdef size_t taken = 0
    cdef size_t begin = 0               # of the bytes to be passed on that are not written yet
    cdef size_t limit = src_bytes
    cdef ssize_t n
    cdef uint8_t pass_on = 0
    if room < limit:
        limit = room
    while taken < limit and not http1_body_done(body):
        n = http1_body_step(body, src + taken, limit - taken, &pass_on)
        if n < 0:
            broken[0] = <int>n
            return taken
        if n == 0:
            break
        if not pass_on:
            if taken > begin:
                end_write(to, src + begin, taken - begin)
            begin = taken + n
        taken += n
    if taken > begin:
        end_write(to, src + begin, taken - begin)
    if limit < src_bytes and not http1_body_done(body):
        source.paused = 1
        end_wait_room(to)
    return taken


cdef size_t bytes_pass(End *source, End *to, const Chain *waiting, const uint8_t *src,
                       size_t src_bytes) noexcept nogil:
    cdef size_t room = end_room(to) if waiting.bytes == 0 else 0
    if room >= src_bytes:
        end_write(to, src, src_bytes)
        return src_bytes
    if room > 0:
        end_write(to, src, room)
    source.paused = 1
    end_wait_room(to)
    return room


cdef ssize_t body_skip(HttpBody *body, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef size_t taken = 0
    cdef ssize_t n
    cdef uint8_t pass_on = 0
    while taken < src_bytes and not http1_body_done(body):
        n = http1_body_step(body, src + taken, src_bytes - taken, &pass_on)
        if n < 0:
            return n
        if n == 0:
            break
        taken += n
    return <ssize_t>taken


# --- what may be sent again -------------------------------------------------------------------------------------------

cdef void exchange_forget_request(Exchange *x) noexcept nogil:
    if x.replay != NULL:
        x.loop.replay_bytes -= x.replay.size
        free(x.replay)
        x.replay = NULL


cdef bint exchange_keep_request(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """A head is kept in just so many bytes, since many requests may wait for long; a body comes in parts."""
    cdef size_t bytes = x.replay.bytes if x.replay != NULL else 0
    cdef size_t size_before = x.replay.size if x.replay != NULL else 0
    cdef size_t size = bytes + src_bytes
    cdef Replay *grown
    if size > size_before:
        if size_before * 2 > size:
            size = size_before * 2
        if size > REPLAY_BYTES_MAX:
            size = REPLAY_BYTES_MAX
        grown = NULL
        if bytes + src_bytes <= size and x.loop.replay_bytes - size_before + size <= REPLAY_TOTAL_BYTES_MAX:
            grown = <Replay *>realloc(x.replay, sizeof(Replay) + size)
        if grown == NULL:
            exchange_forget_request(x)
            return False
        x.loop.replay_bytes += size - size_before
        grown.size = <uint32_t>size
        x.replay = grown
    memcpy(x.replay.data + bytes, src, src_bytes)
    x.replay.bytes = <uint32_t>(bytes + src_bytes)
    return True


# --- reading ----------------------------------------------------------------------------------------------------------

cdef bint wants_downstream(Exchange *x) noexcept nogil:
    if x.downstream.paused or x.downstream.eof or x.moving:
        return False
    if exchange_is_switched(x) or x.request_phase == REQUEST_BODY:
        return True
    return x.request_phase == REQUEST_HEAD and x.response_phase == RESPONSE_NONE and x.to_downstream.bytes == 0


cdef bint wants_upstream(Exchange *x) noexcept nogil:
    return not x.upstream.paused and not x.upstream.eof and x.to_downstream.bytes == 0


cdef void exchange_half_closed(Exchange *x) noexcept nogil:
    """The visitor has shut its side behind a whole request: it awaits the answer, or it is gone. Both send a FIN."""
    if x.half_closed or exchange_is_switched(x) or x.request_phase != REQUEST_DONE \
            or x.response_phase == RESPONSE_NONE:
        return
    x.half_closed = 1
    if x.response_phase == RESPONSE_BODY:
        exchange_deadline(x, DEADLINE_RESPONSE, HALF_CLOSED_MS)     # a byte of the body finds out
    elif x.minor == 0:
        exchange_deadline(x, DEADLINE_RESPONSE, HALF_CLOSED_MUTE_MS)
    else:
        exchange_deadline(x, DEADLINE_ASK, HALF_CLOSED_ASK_MS)


cdef void exchange_read_head(Exchange *x, size_t room) noexcept nogil:
    """Read a response's head, with little of its body: what the target does not take would be kept here, blocks of it
    for each visitor."""
    room = room - HEAD_GROWTH_BYTES if room > HEAD_READ_BYTES_MIN + HEAD_GROWTH_BYTES else HEAD_READ_BYTES_MIN
    end_read(x.upstream, room if room < READ_BYTES_MAX else READ_BYTES_MAX)


cdef bint can_move_body(Exchange *x) noexcept nogil:
    """What comes next is all body, and there is a way from the upstream's socket into the link's blocks."""
    return end_can_read_from(x.downstream, x.upstream) and (
        exchange_is_switched(x) or (x.response.kind != BODY_CHUNKED and x.response.left > CONN_DIRECT_BYTES))


cdef void exchange_move_body(Exchange *x) noexcept nogil:
    cdef End *upstream = x.upstream
    cdef bint has_length = not exchange_is_switched(x) and x.response.kind != BODY_UNTIL_CLOSE
    cdef ssize_t n = end_read_from(x.downstream, upstream, x.response.left if has_length else STREAM_SLOT_BYTES)
    if n > 0:
        if has_length:
            x.response.left -= n
            if http1_body_done(&x.response):
                upstream.ops.on_data(upstream, NULL, 0)     # sees that the body is complete
    elif n == RC_EOF:
        upstream.eof = EOF_TOLD
        upstream.ops.eof(upstream)
    elif n < 0:
        upstream.ops.gone(upstream, <int>n)


cdef void exchange_read_upstream(Exchange *x) noexcept nogil:
    cdef size_t room = end_room(x.downstream)
    if x.response_phase == RESPONSE_HEAD or x.response_phase == RESPONSE_NONE:
        exchange_read_head(x, room)
    elif room == 0:
        x.upstream.paused = 1
        end_wait_room(x.downstream)
    elif can_move_body(x):
        exchange_move_body(x)
    else:
        end_read(x.upstream, room if pool_is_half_used(&x.loop.pool) else room + READ_SLACK_BYTES)


cdef void exchange_read_downstream(Exchange *x) noexcept nogil:
    cdef End *downstream = x.downstream
    if downstream.rx.bytes > 0 and wants_downstream(x):
        end_resume(downstream)          # first what came first: the next read may find the end
        if exchange_has_ended(x):
            return
    if x.moving:
        return
    if wants_downstream(x):
        end_read(downstream, READ_BYTES_MAX)
        if exchange_has_ended(x):
            return
    if end_has_ended(downstream) and not wants_downstream(x) and not downstream.eof and downstream.rx.bytes == 0:
        end_read(downstream, READ_BYTES_MAX)    # the visitor may have left while its answer is awaited
        if exchange_has_ended(x):
            return
    if wants_downstream(x) and end_is_readable(downstream):
        loop_task(x.loop, &x.task)


cdef void exchange_read_both(Exchange *x) noexcept nogil:
    cdef End *upstream
    if end_is_readable(x.downstream):
        exchange_read_downstream(x)
        if exchange_has_ended(x):
            return
    if end_has_ended(x.downstream):
        exchange_half_closed(x)
    upstream = x.upstream
    if upstream != NULL and end_is_readable(upstream) and wants_upstream(x):
        exchange_read_upstream(x)
        if exchange_has_ended(x) or x.upstream != upstream:
            return
        if end_is_readable(upstream) and wants_upstream(x):
            loop_task(x.loop, &x.task)


cdef void exchange_ready(End *end) noexcept nogil:
    exchange_read_both(<Exchange *>end.owner)


cdef void exchange_task(void *owner) noexcept nogil:
    cdef Exchange *x = <Exchange *>owner
    if exchange_has_ended(x):
        exchange_defer_free(x)
        return
    if x.downstream.rx.bytes > 0 and wants_downstream(x):
        end_resume(x.downstream)
        if exchange_has_ended(x):
            return                      # freed where it ended: the task was not queued then
    exchange_read_both(x)
