"""Streams: finding, sending on and ending them.

Owns: bytes received on a stream and not yet taken by its owner.
Bound: LINK_OUT_BYTES_MAX (+ reserve) waiting to be sent on a link, one window per stream received.
"""
from libc.errno cimport EAGAIN, EINTR, errno

from spokes._fastpath.base.buf cimport (
    BLOCK_BYTES, Buf, Chain, buf_get, buf_put, chain_clear, chain_last, chain_push, iovec,
)
from spokes._fastpath.base.types cimport RC_EOF, RC_LOCAL, atomic_sub
from spokes._fastpath.io.conn_socket cimport conn_prove
from spokes._fastpath.io.conn_state cimport ROLE_VISITOR
from spokes._fastpath.io.loop cimport conn_mark_dirty
from spokes._fastpath.link.frame cimport (
    FRAME_DATA, FRAME_FIN, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FRAME_RESET, frame_put, put_u16,
)
from spokes._fastpath.link.link_line cimport link_account
from spokes._fastpath.link.link_send cimport link_append, link_put
from spokes._fastpath.link.link_state cimport (
    LINK_OUT_BYTES_MAX, LINK_OUT_RESERVE_BYTES, QUEUE_CREDIT, QUEUE_SLOTS, STREAM_SLOT_BYTES, is_queued,
)
from spokes._fastpath.link.stream_count cimport stream_count_in, stream_log_access
from spokes._fastpath.link.stream_credit cimport (
    queue_add, queue_remove, stream_count_held, stream_hold, stream_defer_free, stream_unpromise,
)

cdef extern from "sys/uio.h" nogil:
    ssize_t readv(int fd, const iovec *iov, int count)

cdef enum:
    READ_BLOCKS = 4                     # a direct read spans at most so many blocks
    READ_ROOM_BYTES_MIN = 4096          # less left in a block: begin a new one


cdef Stream *stream_find(Link *link, uint32_t id) noexcept nogil:
    cdef Stream *stream
    if link.bucket_count == 0:
        return NULL
    stream = link.buckets[(id >> 1) & (link.bucket_count - 1)]
    while stream != NULL and stream.id != id:
        stream = stream.hash_next
    return stream


cdef void stream_drop(Stream *stream) noexcept nogil:
    """Forget the stream; its memory stays until the pass is over."""
    cdef Link *link = stream.link
    cdef Stream **place = &link.buckets[(stream.id >> 1) & (link.bucket_count - 1)]
    if stream.end.closed:
        return
    while place[0] != stream:
        place = &place[0].hash_next
    place[0] = stream.hash_next
    stream.end.closed = 1
    stream.end.ops = NULL
    queue_remove(stream, QUEUE_SLOTS)
    queue_remove(stream, QUEUE_CREDIT)
    stream_log_access(stream)
    chain_clear(&link.loop.pool, &stream.end.rx)
    stream_count_held(stream)
    stream_hold(stream, NULL)
    stream_unpromise(stream, stream.window_bytes)
    link.stream_count -= 1
    link.loop.stats.streams_open -= 1
    if stream.tunnel != NULL:
        atomic_sub(&stream.tunnel.stream_count, 1)
    if not stream.in_credits:           # else the flush that takes it out of the list parks it
        stream_defer_free(stream)


cdef size_t stream_room(Stream *stream) noexcept nogil:
    cdef Link *link = stream.link
    cdef size_t credit = stream.tx_limit - stream.tx_offset
    cdef size_t queued = link.conn.out.bytes
    cdef size_t limit = LINK_OUT_BYTES_MAX + LINK_OUT_RESERVE_BYTES
    if link.is_slow:
        limit = link.out_limit_bytes * 2
    if queued >= limit or stream.end.closed or stream.end.fin:
        return 0
    queued = limit - queued
    return credit if credit < queued else queued


cdef void stream_sent(Stream *stream, size_t bytes) noexcept nogil:
    cdef Link *link = stream.link
    stream.tx_offset += bytes
    link.loop.stats.link_bytes_out += bytes
    stream_count_in(stream, bytes)
    link.sent_bytes += bytes
    link_account(link, bytes)


cdef void stream_write(Stream *stream, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef Link *link = stream.link
    cdef uint8_t header[FRAME_HEADER_BYTES]
    cdef size_t step
    if stream.end.closed or link.down:
        return
    stream_sent(stream, src_bytes)
    while src_bytes > 0:
        step = src_bytes if src_bytes < FRAME_PAYLOAD_BYTES_MAX else FRAME_PAYLOAD_BYTES_MAX
        frame_put(header, FRAME_DATA, 0, stream.id, <uint32_t>step)
        link_append(link, header, src, step)
        src += step
        src_bytes -= step


cdef ssize_t stream_read_from(Stream *stream, Conn *conn, size_t bytes_max) noexcept nogil:
    cdef Link *link = stream.link
    cdef Chain *out = &link.conn.out
    cdef iovec iov[READ_BLOCKS]
    cdef Buf *fresh[READ_BLOCKS]
    cdef Buf *buf = chain_last(out)
    cdef int count = 0
    cdef int fresh_count = 0
    cdef int i
    cdef size_t asked = 0
    cdef size_t want = stream_room(stream)
    cdef size_t step, left
    cdef ssize_t n
    cdef uint8_t *header
    if want > bytes_max:
        want = bytes_max
    if want > stream.read_bytes:
        want = stream.read_bytes
    if want > STREAM_SLOT_BYTES:
        want = STREAM_SLOT_BYTES
    if link.is_slow and want > link.out_limit_bytes:
        want = link.out_limit_bytes
    if want == 0:
        return 0
    if conn.error < 0:
        conn.readable = 0
        return conn.error
    if buf == NULL or BLOCK_BYTES - buf.tail < FRAME_HEADER_BYTES + READ_ROOM_BYTES_MIN:
        buf = buf_get(&link.loop.pool, False)
        if buf == NULL:
            link.loop.starved = 1
            return 0                    # at the memory limit: the conn stays readable and is not read
        fresh[0] = buf
        fresh_count = 1
    header = buf.data + buf.tail
    iov[0].iov_base = header + FRAME_HEADER_BYTES
    iov[0].iov_len = BLOCK_BYTES - buf.tail - FRAME_HEADER_BYTES
    if iov[0].iov_len > want:
        iov[0].iov_len = want
    asked = iov[0].iov_len
    count = 1
    while asked < want and count < READ_BLOCKS:
        buf = buf_get(&link.loop.pool, False)
        if buf == NULL:
            break
        fresh[fresh_count] = buf
        fresh_count += 1
        step = BLOCK_BYTES if want - asked > BLOCK_BYTES else want - asked
        iov[count].iov_base = buf.data
        iov[count].iov_len = step
        asked += step
        count += 1
    while True:
        n = readv(conn.fd, iov, count)
        if n >= 0 or errno != EINTR:
            break
    if n <= 0:
        for i in range(fresh_count):
            buf_put(&link.loop.pool, fresh[i])
        conn.readable = 0
        if n == 0:
            return RC_EOF
        return 0 if errno == EAGAIN else -errno
    if <size_t>n < asked:
        if not conn.rdhup:
            conn.readable = 0
        if stream.read_bytes > BLOCK_BYTES and <size_t>n < stream.read_bytes // 4:
            stream.read_bytes //= 2
    elif asked == stream.read_bytes and stream.read_bytes < STREAM_SLOT_BYTES:
        stream.read_bytes = stream.read_bytes * 2 if stream.read_bytes * 2 < STREAM_SLOT_BYTES else STREAM_SLOT_BYTES
    frame_put(header, FRAME_DATA, 0, stream.id, <uint32_t>n)
    # Link what was filled into the chain; give back what was not.
    left = n
    step = iov[0].iov_len if iov[0].iov_len < left else left
    i = 0
    if fresh_count == count:            # the first part is in a fresh block as well
        buf = fresh[0]
        i = 1
        chain_push(out, buf)
    buf = chain_last(out)
    buf.tail += <uint32_t>(FRAME_HEADER_BYTES + step)
    left -= step
    while i < fresh_count:
        buf = fresh[i]
        i += 1
        if left == 0:
            buf_put(&link.loop.pool, buf)
            continue
        step = BLOCK_BYTES if left > BLOCK_BYTES else left
        buf.tail = <uint32_t>step
        left -= step
        chain_push(out, buf)
    out.bytes += FRAME_HEADER_BYTES + <uint32_t>n
    if conn.role == ROLE_VISITOR:
        link.loop.stats.bytes_in += n
    elif conn.unproven_bytes > 0:
        conn_prove(conn, n)
    stream_sent(stream, n)
    conn_mark_dirty(link.conn)
    return n


cdef void stream_wait_room(Stream *stream) noexcept nogil:
    cdef Link *link = stream.link
    if stream.end.closed:
        return
    stream.end.wants_room = 1
    if is_queued(stream, QUEUE_SLOTS):
        return
    if stream.tx_offset >= stream.tx_limit:     # CREDIT gives it a slot
        if not is_queued(stream, QUEUE_CREDIT):
            stream.credit_since_ms = <uint32_t>link.loop.now_ms
            queue_add(stream, QUEUE_CREDIT)
        return
    queue_add(stream, QUEUE_SLOTS)
    if link.conn.writable:
        conn_mark_dirty(link.conn)


cdef void stream_fin(Stream *stream) noexcept nogil:
    if stream.end.fin or stream.end.closed:
        return
    stream.end.fin = 1
    link_put(stream.link, FRAME_FIN, 0, stream.id, 0)


cdef void stream_reset(Stream *stream, uint16_t reason) noexcept nogil:
    cdef uint8_t *place = link_put(stream.link, FRAME_RESET, 0, stream.id, 2)
    if place != NULL:
        put_u16(place, reason)


cdef void stream_close(Stream *stream, uint16_t reason) noexcept nogil:
    if stream.end.closed:
        return
    if not stream.reset and not (stream.end.fin and stream.end.eof):
        stream_reset(stream, reason)
    stream_drop(stream)


cdef void stream_gone(Stream *stream, int rc) noexcept nogil:
    stream.reset = 1
    if stream.end.ops != NULL:
        stream.end.ops.gone(&stream.end, rc)
    stream_drop(stream)


cdef void stream_end(Stream *stream, uint16_t reason) noexcept nogil:
    if stream.end.closed:
        return
    stream.end.reset_reason = reason
    if not (stream.end.fin and stream.end.eof):
        stream_reset(stream, reason)
    stream_gone(stream, RC_LOCAL)
