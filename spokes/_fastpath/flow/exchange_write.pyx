"""Bytes on their way out of an exchange: what it makes itself, and bodies that it passes on.

Bound: a body goes on only as far as its target has room; a head or a page that finds none waits in a chain.
Fails: a body whose framing is broken sets `broken` to the code; what came before the break has been passed on.
"""
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from spokes._fastpath.base.buf cimport Chain, chain_append, chain_drop
from spokes._fastpath.base.types cimport uint32_t, uint8_t
from spokes._fastpath.flow.exchange_state cimport REPLAY_BYTES_MAX, REPLAY_TOTAL_BYTES_MAX, Exchange, Replay
from spokes._fastpath.http.http1 cimport HttpBody, http1_body_done, http1_body_step
from spokes._fastpath.io.conn_state cimport End
from spokes._fastpath.io.end cimport end_credit, end_room, end_wait_room, end_write


cdef void end_write_chain(Exchange *x, End *to, Chain *chain) noexcept nogil:
    """Move what waits in chain to the end, as far as it has room."""
    cdef size_t room, step
    while chain.bytes > 0:
        room = end_room(to)
        step = chain.first.tail - chain.first.head
        if step > room:
            step = room
        if step == 0:
            return
        end_write(to, chain.first.data + chain.first.head, step)
        chain_drop(&x.loop.pool, chain, step)


cdef void exchange_write_rest(Exchange *x) noexcept nogil:
    """The last of what we made ourselves (a head, a page): nobody waits for room any more, only credit still counts."""
    cdef size_t step, credit
    while x.to_down.bytes > 0:
        step = x.to_down.first.tail - x.to_down.first.head
        credit = end_credit(x.down)
        if step > credit:
            step = credit
        if step == 0:
            return
        end_write(x.down, x.to_down.first.data + x.to_down.first.head, step)
        chain_drop(&x.loop.pool, &x.to_down, step)


cdef void exchange_emit(Exchange *x, End *to, Chain *waiting, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Bytes we made ourselves: what the end has no room for waits here."""
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


cdef size_t exchange_body(Exchange *x, HttpBody *body, End *source, End *to, const Chain *waiting,
                          const uint8_t *src, size_t src_bytes, int *broken) noexcept nogil:
    """Walk and pass on a body as far as the target has room: bytes taken."""
    cdef size_t room = end_room(to) if waiting.bytes == 0 else 0
    cdef size_t taken = 0
    cdef size_t begin = 0               # of the bytes found fit to be passed on, not written yet
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


cdef void exchange_forget_replay(Exchange *x) noexcept nogil:
    if x.replay != NULL:
        x.loop.replay_bytes -= x.replay.size
        free(x.replay)
        x.replay = NULL


cdef bint exchange_hold(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil:
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
            exchange_forget_replay(x)
            return False
        x.loop.replay_bytes += size - size_before
        grown.size = <uint32_t>size
        x.replay = grown
    memcpy(x.replay.data + bytes, src, src_bytes)
    x.replay.bytes = <uint32_t>(bytes + src_bytes)
    return True


cdef size_t exchange_raw(Exchange *x, End *source, End *to, const Chain *waiting, const uint8_t *src,
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
