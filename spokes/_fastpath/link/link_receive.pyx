"""Frames that come: each is held against docs/protocol.md and told to its stream or the link's owner.

Fails: a peer that breaks the protocol or a limit is told so, and its link ends.
"""
from libc.string cimport memcpy

from spokes._fastpath.base.buf cimport (
    SHARE_VISITOR, SHARE_VISITOR_MAX, chain_append, chain_clear, chain_copy, pool_is_full,
)
from spokes._fastpath.base.reason cimport REASON_LIMIT, REASON_LOOP
from spokes._fastpath.base.timer cimport timer_set
from spokes._fastpath.base.types cimport RC_GONE, RC_LIMIT, RC_PROTO, atomic_set, uint16_t, uint32_t, uint64_t, uint8_t
from spokes._fastpath.io.conn cimport Conn, conn_recv, conn_rx_keep
from spokes._fastpath.io.conn_state cimport CONN_DIRECT_BYTES, EOF_SEEN, RX_BYTES, End, Loop
from spokes._fastpath.io.end cimport end_resume, end_tell_eof
from spokes._fastpath.io.loop cimport conn_mark_dirty, loop_task
from spokes._fastpath.link.frame cimport (
    FRAME_CONTROL, FRAME_CREDIT, FRAME_DATA, FRAME_DATAGRAM, FRAME_DRAIN, FRAME_FIN, FRAME_HEADER_BYTES, FRAME_OPEN,
    FRAME_PING, FRAME_PONG, FRAME_RESET, FRAME_WINDOW, STREAM_WINDOW_BYTES, Frame, Open, frame_parse, get_u16, get_u32,
    get_u64, open_parse, put_u16,
)
from spokes._fastpath.link.link_end cimport link_fail, link_refuse
from spokes._fastpath.link.link_line cimport link_account
from spokes._fastpath.link.link_send cimport link_ping, link_put
from spokes._fastpath.link.link_state cimport (
    PEER_CONTROLS_PER_S_MAX, PEER_CONTROL_BYTES_PER_S_MAX, PEER_OPENS_PER_S_MAX, PEER_PINGS_PER_S_MAX, QUEUE_CREDIT,
    Link, Stream, is_our_id,
)
from spokes._fastpath.link.stream cimport stream_close, stream_find, stream_gone, stream_wait_room
from spokes._fastpath.link.stream_count cimport stream_count_out
from spokes._fastpath.link.stream_credit cimport (
    link_must_wait, queue_remove, stream_count_held, stream_hold, stream_narrow, stream_taken, visitor_holds_more,
)
from spokes._fastpath.link.stream_open cimport is_newer_id, stream_new
from spokes._fastpath.link.stream_relief cimport link_relieve, stream_reclaim
from spokes._fastpath.link.tunnel_slots cimport address_holder


cdef int link_data(Link *link, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef Stream *stream = stream_find(link, link.data_stream)
    cdef size_t taken = 0
    cdef bint waiting
    cdef End *end
    if stream == NULL:
        return 0                        # over already
    end = &stream.end
    if end.eof:
        return RC_PROTO
    stream.rx_offset += src_bytes
    if stream.rx_offset > stream.rx_limit and stream.rx_offset > STREAM_WINDOW_BYTES:
        return RC_PROTO                 # a WINDOW may have crossed what came
    stream_count_out(stream, src_bytes)
    waiting = end.rx.bytes > 0
    if not waiting and end.ops != NULL and not end.paused:
        taken = end.ops.on_data(end, src, src_bytes)
        if end.closed:
            return 0
        if taken > 0:
            stream_taken(stream, taken)
        if taken < CONN_DIRECT_BYTES and pool_is_full(&link.loop.pool):
            link.stalled = 1            # little gathers in a conn's block: so many of them in one read
    if taken < src_bytes:
        if not waiting:
            stream.taken_ms = <uint32_t>link.loop.now_ms
        if chain_append(&link.loop.pool, &end.rx, src + taken, src_bytes - taken, True) < src_bytes - taken:
            return RC_LIMIT
        stream_count_held(stream)
        if waiting and not end.paused:
            end_resume(end)               # a head that was cut may be whole now
            if end.closed:
                return 0
        # Each stream with a byte to wait takes a block: one read of tiny frames could take thousands.
        link.stalled = link_must_wait(link)
        if visitor_holds_more(stream, SHARE_VISITOR):
            link.crowded = 1
            if visitor_holds_more(stream, SHARE_VISITOR_MAX):
                stream_reclaim(stream)
    return 0


cdef bint link_accept_id(Link *link, uint32_t id) noexcept nogil:
    """The peer opens this stream. False: it may not."""
    if not link.peer_last_id_wrapped and id < link.peer_last_id and is_newer_id(id, link.peer_last_id, True):
        link.peer_last_id_wrapped = 1
    if not is_newer_id(id, link.peer_last_id, link.peer_last_id_wrapped):
        return False
    if link.peer_last_id_wrapped and stream_find(link, id) != NULL:
        return False
    link.peer_last_id = id
    return True


cdef inline void link_rate(Link *link) noexcept nogil:
    if link.loop.now_ms - link.rate_since_ms >= 1000:
        link.rate_since_ms = link.loop.now_ms
        link.peer_pings = link.peer_opens = link.peer_controls = link.peer_control_bytes = 0


cdef int link_frame(Link *link, const Frame *frame, const uint8_t *payload) noexcept nogil:
    cdef Stream *stream = NULL
    cdef Open open
    cdef uint64_t limit
    cdef uint8_t *place
    cdef int rc
    cdef bint never
    if frame.stream != 0 and frame.type != FRAME_OPEN:
        stream = stream_find(link, frame.stream)
        if stream == NULL:
            if is_our_id(link, frame.stream):
                never = is_newer_id(frame.stream, link.last_id, link.last_id_wrapped)
            else:
                never = is_newer_id(frame.stream, link.peer_last_id, link.peer_last_id_wrapped)
            if never:
                return RC_PROTO
            if frame.type == FRAME_DATAGRAM:
                link.loop.stats.datagrams_dropped += 1
            if frame.type != FRAME_DATA:
                return 0                # over already
    if frame.type == FRAME_DATA:
        link.data_stream = frame.stream
        link.data_left = frame.length
    elif frame.type == FRAME_FIN:
        if stream.end.eof:
            return RC_PROTO
        stream.end.eof = EOF_SEEN
        end_tell_eof(&stream.end)
    elif frame.type == FRAME_RESET:
        stream.end.reset_reason = get_u16(payload)
        if stream.end.reset_reason == REASON_LOOP:
            link.loop.stats.loops_total += 1
        stream_gone(stream, RC_GONE)
    elif frame.type == FRAME_CREDIT:
        limit = get_u64(payload)
        if stream.narrowed and limit < stream.tx_limit:
            return 0                    # counted from a WINDOW that came behind more than it allowed
        if limit < stream.tx_limit or limit - stream.tx_limit > (<uint64_t>1 << 40):
            return RC_PROTO
        stream.tx_limit = limit
        queue_remove(stream, QUEUE_CREDIT)
        if stream.end.wants_room:
            stream_wait_room(stream)
    elif frame.type == FRAME_OPEN:
        if is_our_id(link, frame.stream) or not link_accept_id(link, frame.stream):
            return RC_PROTO
        if open_parse(&open, payload, frame.length) < 0:
            return RC_PROTO
        link_rate(link)
        link.peer_opens += 1
        if link.peer_opens > PEER_OPENS_PER_S_MAX:
            return RC_LIMIT
        if link.stream_count >= link.stream_count_max:
            rc = REASON_LIMIT
        else:
            stream = stream_new(link, frame.stream, link.tunnel)
            if stream == NULL:
                return RC_LIMIT
            stream.service = open.service
            stream.visitor = open.visitor
            stream_hold(stream, address_holder(&link.loop.pool, &open.visitor.address))
            stream_narrow(stream)
            if link.rtt_us == 0 and link.ping_sent_us == 0:
                link_ping(link)
            rc = link.ops.open(link, stream, &open)
            if rc != 0 and not stream.end.closed:
                stream_close(stream, <uint16_t>rc)
            return 0
        place = link_put(link, FRAME_RESET, 0, frame.stream, 2)
        if place != NULL:
            put_u16(place, <uint16_t>rc)
    elif frame.type == FRAME_PING:
        link_rate(link)
        link.peer_pings += 1
        if link.peer_pings > PEER_PINGS_PER_S_MAX:
            return RC_LIMIT
        place = link_put(link, FRAME_PONG, 0, 0, 8)
        if place != NULL:
            memcpy(place, payload, 8)
    elif frame.type == FRAME_PONG:
        if link.pong_wanted:                # whichever PING it answers: the peer is there
            link.pong_wanted = 0
            link.ops.pong(link)
        if link.ping_sent_us != 0 and get_u64(payload) == link.ping_sent_us:
            link.rtt_us = <uint32_t>(link.loop.now_us - link.ping_sent_us)
            if link.rtt_us == 0:
                link.rtt_us = 1
            if link.rtt_min_us == 0 or link.rtt_us < link.rtt_min_us:
                link.rtt_min_us = link.rtt_us
            link.ping_sent_us = 0
            if link.tunnel != NULL:
                atomic_set(&link.tunnel.rtt_us, link.rtt_us)
    elif frame.type == FRAME_CONTROL:
        link_rate(link)
        link.peer_controls += 1
        link.peer_control_bytes += frame.length
        if link.peer_controls > PEER_CONTROLS_PER_S_MAX or link.peer_control_bytes > PEER_CONTROL_BYTES_PER_S_MAX:
            return RC_LIMIT
        link.ops.control(link, frame.flags, payload, frame.length)
    elif frame.type == FRAME_DRAIN:
        link.draining = 1
        if not link.peer_drained:       # said again, it is no news
            link.peer_drained = 1
            link.ops.drain(link)
    elif frame.type == FRAME_WINDOW:
        if stream == NULL:
            link.peer_windows = 1
            return 0
        limit = get_u32(payload)
        if stream.narrowed or stream.tx_limit != STREAM_WINDOW_BYTES or limit > STREAM_WINDOW_BYTES:
            return RC_PROTO
        stream.narrowed = 1
        stream.tx_limit = limit if limit > stream.tx_offset else stream.tx_offset
    elif frame.type == FRAME_DATAGRAM:
        if stream.on_datagram != NULL:
            stream_count_out(stream, frame.length)
            stream.on_datagram(stream, payload, frame.length)
    return 0


cdef ssize_t link_feed(Link *link, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Every whole frame, and DATA as far as it has come: bytes taken, or RC_*. The rest is less than one frame, unless
    the link has stalled."""
    cdef size_t pos = 0
    cdef size_t step
    cdef ssize_t rc
    cdef Frame frame
    while pos < src_bytes and not link.down and not link.stalled:
        if link.data_left > 0:
            step = src_bytes - pos if src_bytes - pos < link.data_left else link.data_left
            rc = link_data(link, src + pos, step)
            if rc < 0:
                return rc
            link.data_left -= <uint32_t>step
            pos += step
            continue
        if link.skip_left > 0:
            step = src_bytes - pos if src_bytes - pos < link.skip_left else link.skip_left
            link.skip_left -= <uint32_t>step
            pos += step
            continue
        rc = frame_parse(&frame, src + pos, src_bytes - pos)
        if rc < 0:
            return rc
        if rc == 0:
            break
        if frame.type == 0 or frame.type > FRAME_WINDOW:
            link.skip_left = frame.length
            pos += FRAME_HEADER_BYTES
            continue
        if frame.type != FRAME_DATA and src_bytes - pos < FRAME_HEADER_BYTES + <size_t>frame.length:
            break
        rc = link_frame(link, &frame, src + pos + FRAME_HEADER_BYTES)
        if rc < 0:
            return rc
        pos += FRAME_HEADER_BYTES
        if frame.type != FRAME_DATA:
            pos += frame.length
    return pos


cdef void link_read(void *owner) noexcept nogil:
    cdef Link *link = <Link *>owner
    cdef Conn *conn = link.conn
    cdef Loop *loop = link.loop
    cdef size_t have
    cdef ssize_t n
    if link.down or not (conn.readable or link.stalled):
        return
    if conn.error < 0:
        conn_mark_dirty(conn)           # the flush tells
        return
    if link_must_wait(link) or not link.ops.may_read(link):
        # Not read: the peer's window and the kernel hold it back. Looked at again with the next tick.
        link.last_rx_ms = loop.now_ms
        link.unread = 1
        timer_set(&loop.wheel, &conn.timer, loop.now_ms)
        return
    link.unread = 0
    have = chain_copy(&conn.end.rx, loop.rx, RX_BYTES)
    chain_clear(&loop.pool, &conn.end.rx)
    if link.stalled:                    # what waits comes first
        link.stalled = 0
    else:
        n = conn_recv(conn, loop.rx + have, RX_BYTES - have)
        if n <= 0:
            conn_rx_keep(conn, loop.rx, have)
            if n < 0:
                link_fail(link, link.broken if link.broken < 0 else <int>n)
            return
        loop.stats.link_bytes_in += n
        link_account(link, n)
        have += n
    link.last_rx_ms = loop.now_ms
    if link.tunnel != NULL:
        atomic_set(&link.tunnel.last_heard_ms, loop.wall_ms)
    n = link_feed(link, loop.rx, have)
    if link.down:
        return
    if n < 0:
        link_refuse(link, <int>n)
        return
    if <size_t>n < have:
        conn_rx_keep(conn, loop.rx + n, have - n)
    if link.crowded:
        link.crowded = 0
        link_relieve(link)
        if link.down:
            return
    if conn.readable or link.stalled:
        loop_task(loop, &link.task)
