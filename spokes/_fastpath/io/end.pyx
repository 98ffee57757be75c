"""The ends of flows, whatever they are: bytes go to the owner, from what waits first, then from what is read.

Owns: nothing; an end is its kind's, what waits in its rx too. Fails: what a read fails with goes to the owner (`ops`).
"""
from spokes._fastpath.base.buf cimport chain_clear, chain_copy, chain_drop
from spokes._fastpath.base.types cimport RC_EOF
from spokes._fastpath.io.conn_state cimport EOF_SEEN, EOF_TOLD, JOIN_BYTES, RX_BYTES


cdef void end_tell_eof(End *end) noexcept nogil:
    if end.eof == EOF_SEEN and end.rx.bytes == 0 and end.ops != NULL:
        end.eof = EOF_TOLD
        end.ops.eof(end)


cdef void end_resume(End *end) noexcept nogil:
    cdef Loop *loop
    cdef size_t have, taken
    end.paused = 0
    while end.rx.bytes > 0 and end.ops != NULL and not end.closed and not end.paused:
        loop = end_loop(end)
        have = end.rx.first.tail - end.rx.first.head
        taken = end.ops.on_data(end, end.rx.first.data + end.rx.first.head, have)
        if taken == 0 and have < end.rx.bytes and not end.closed and not end.paused:
            # Cut by a block's end: made contiguous, so that a head is seen whole.
            have = chain_copy(&end.rx, loop.join, JOIN_BYTES)
            taken = end.ops.on_data(end, loop.join, have)
        if taken > end.rx.bytes:        # the owner ended and emptied it itself
            taken = end.rx.bytes
        if taken == 0 or end.closed:
            break
        chain_drop(&loop.pool, &end.rx, taken)
        end_taken(end, taken)
    if not end.closed:
        end_tell_eof(end)


cdef void end_read(End *end, size_t bytes_max) noexcept nogil:
    cdef Loop *loop = end_loop(end)
    cdef size_t have = chain_copy(&end.rx, loop.rx, RX_BYTES // 2)
    cdef size_t taken
    cdef ssize_t n
    if bytes_max > RX_BYTES - have:
        bytes_max = RX_BYTES - have
    n = end_recv(end, loop.rx + have, bytes_max)
    if n < 0:
        if n == RC_EOF:
            if end.eof != EOF_TOLD:
                end.eof = EOF_TOLD
                end.ops.eof(end)
        else:
            end.ops.gone(end, <int>n)
        return
    if n == 0:
        return
    chain_clear(&loop.pool, &end.rx)
    have += n
    taken = end.ops.on_data(end, loop.rx, have)
    if end.closed or end.ops == NULL:
        return
    if taken < have:
        end.kind.keep(end, loop.rx + taken, have - taken)


cdef ssize_t end_move(End *to, End *source, size_t bytes_max) noexcept nogil:
    cdef Loop *loop
    cdef size_t room
    cdef ssize_t n
    if end_can_read_from(to, source):
        return end_read_from(to, source, bytes_max)
    loop = end_loop(source)
    room = end_room(to)
    if room > bytes_max:
        room = bytes_max
    n = end_recv(source, loop.rx, room if room < RX_BYTES else RX_BYTES)
    if n > 0:
        end_write(to, loop.rx, n)
    return n
