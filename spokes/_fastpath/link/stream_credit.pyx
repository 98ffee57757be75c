"""Credit of streams: first windows within the shares of memory, windows that grow and shrink, CREDIT frames."""
from spokes._fastpath.base.buf cimport (
    BLOCK_BYTES, HOLDER_SHIFT, SHARE_TUNNEL, SHARE_VISITOR, Pool, holder_bytes, holder_streams, pool_is_full,
    pool_is_low, pool_promise, pool_promise_end, pool_share,
)
from spokes._fastpath.base.types cimport atomic_add, atomic_get, atomic_sub, uint8_t
from spokes._fastpath.io.conn_state cimport DeferredFree
from spokes._fastpath.io.loop cimport conn_mark_dirty, loop_defer_free
from spokes._fastpath.link.frame cimport FRAME_CREDIT, FRAME_WINDOW, STREAM_WINDOW_BYTES, put_u32, put_u64
from spokes._fastpath.link.link_send cimport link_put
from spokes._fastpath.link.link_state cimport (
    QUEUE_WAITING, STREAM_STALL_MS_MAX, STREAM_WINDOW_BYTES_MAX, STREAM_WINDOW_BYTES_MIN, STREAM_WINDOW_PARTS,
    QueueNode, StreamQueue, is_queued,
)
from spokes._fastpath.link.tunnel_slots cimport stream_count_slot
from spokes._fastpath.route.tunnel cimport Tunnel

cdef enum:
    WINDOW_STREAM_PARTS = 8             # all that are open may begin to hold at once: each this part of an even share
    UINT32_MAX = 0xFFFFFFFF
    WINDOW_SLOW_US = 1000000            # half a window takes longer while bytes wait: it is too large for its reader


cdef void stream_defer_free(Stream *stream) noexcept nogil:
    loop_defer_free(stream.link.loop, <DeferredFree *>stream.nodes, &stream.link.loop.streams_slab, stream)


cdef void queue_add(Stream *stream, int which) noexcept nogil:
    cdef StreamQueue *queue = &stream.link.queues[which]
    cdef QueueNode *place = &stream.nodes[which]
    if is_queued(stream, which):
        return
    stream.queued |= <uint8_t>(1 << which)
    place.next = NULL
    place.prev = queue.last
    if queue.last != NULL:
        queue.last.nodes[which].next = stream
    else:
        queue.first = stream
    queue.last = stream
    queue.count += 1


cdef void queue_remove(Stream *stream, int which) noexcept nogil:
    cdef StreamQueue *queue = &stream.link.queues[which]
    cdef QueueNode *place = &stream.nodes[which]
    if not is_queued(stream, which):
        return
    if place.prev != NULL:
        place.prev.nodes[which].next = place.next
    else:
        queue.first = place.next
    if place.next != NULL:
        place.next.nodes[which].prev = place.prev
    else:
        queue.last = place.prev
    place.next = place.prev = NULL
    stream.queued &= <uint8_t>~(1 << which)
    queue.count -= 1


cdef void stream_count_held(Stream *stream) noexcept nogil:
    """What waits in rx is held by the tunnel and by the visitor's address. Differences wrap, their sum does not."""
    cdef uint32_t blocks = stream.end.rx.blocks
    cdef uint64_t more
    if blocks == stream.held_blocks:
        return
    more = (<uint64_t>blocks - stream.held_blocks) * BLOCK_BYTES
    stream.held_blocks = blocks
    if stream.tunnel != NULL:
        atomic_add(&stream.tunnel.held_bytes, more)
    if stream.holder != NULL:
        atomic_add(stream.holder, more)
    if blocks == 0:
        queue_remove(stream, QUEUE_WAITING)
    elif not is_queued(stream, QUEUE_WAITING):
        stream.waiting_since_ms = <uint32_t>stream.link.loop.now_ms
        stream.waiting_taken = 0
        queue_add(stream, QUEUE_WAITING)


cdef uint32_t window_within(uint32_t window, uint64_t share, uint64_t held, uint64_t stream_count) noexcept nogil:
    """A part of what is left of the share; and of an even one, where so many streams might be read by nobody."""
    cdef uint64_t left = (share - held if share > held else 0) // STREAM_WINDOW_PARTS
    if stream_count > 0 and share // (WINDOW_STREAM_PARTS * stream_count) < left:
        left = share // (WINDOW_STREAM_PARTS * stream_count)
    while window > STREAM_WINDOW_BYTES_MIN and window > left:
        window //= 2
    return window


cdef uint32_t stream_window(const Stream *stream, bint is_new) noexcept nogil:
    """What a stream may be promised now: little where its tunnel or its visitor holds most of a share already. One that
    is not new has shown that it is read."""
    cdef Tunnel *tunnel = stream.tunnel
    cdef Pool *pool = &stream.link.loop.pool
    cdef uint32_t window = STREAM_WINDOW_BYTES
    cdef uint64_t held
    if tunnel != NULL:
        window = window_within(window, pool_share(pool, SHARE_TUNNEL), atomic_get(&tunnel.held_bytes),
                               atomic_get(&tunnel.stream_count) if is_new else 0)
    if stream.holder != NULL:
        held = atomic_get(stream.holder)
        window = window_within(window, pool_share(pool, SHARE_VISITOR), holder_bytes(held),
                               holder_streams(held) if is_new else 0)
    return window


cdef void stream_narrow(Stream *stream) noexcept nogil:
    """Of a new stream. What the peer has sent by then counts; it may be a first window of the usual size."""
    cdef uint32_t window
    cdef uint8_t *place
    if not stream.link.peer_windows:
        return
    window = stream_window(stream, True)
    if window == STREAM_WINDOW_BYTES:
        return
    place = link_put(stream.link, FRAME_WINDOW, 0, stream.id, 4)
    if place != NULL:
        put_u32(place, window)
        stream.window_bytes = window
        stream.rx_limit = window


cdef bint visitor_holds_more(const Stream *stream, uint32_t halves) noexcept nogil:
    return stream.holder != NULL \
        and holder_bytes(atomic_get(stream.holder)) > pool_share(&stream.link.loop.pool, halves)


cdef bint link_must_wait(Link *link) noexcept nogil:
    """Whose tunnel holds its share is not read: the peer's window and the kernel hold back what comes."""
    cdef Pool *pool = &link.loop.pool
    cdef uint64_t held
    if pool_is_full(pool):
        return True
    if link.tunnel == NULL:
        return pool_is_low(pool)
    held = atomic_get(&link.tunnel.held_bytes)
    if link.tunnel.is_node:             # it carries many tunnels' visitors: one that holds too much stops no other
        return pool_is_low(pool) and held > pool_share(pool, SHARE_TUNNEL)
    return held > 0 and (pool_is_low(pool) or held > pool_share(pool, SHARE_TUNNEL))


cdef void stream_unpromise(Stream *stream, uint32_t bytes) noexcept nogil:
    """The window becomes smaller by so much: what was promised beyond its first size is given back."""
    cdef uint32_t left = stream.window_bytes - bytes
    if stream.window_bytes > STREAM_WINDOW_BYTES:
        pool_promise_end(&stream.link.loop.pool,
                         stream.window_bytes - (left if left > STREAM_WINDOW_BYTES else STREAM_WINDOW_BYTES))
    stream.window_bytes = left


cdef bint stream_may_grow(Stream *stream) noexcept nogil:
    """By as much again. Up to its usual size a window grows within the shares, beyond it as the pool promises too."""
    cdef uint32_t window = stream_window(stream, False)
    if stream.window_bytes < STREAM_WINDOW_BYTES:
        return stream.window_bytes * 2 <= window
    return stream.window_bytes < STREAM_WINDOW_BYTES_MAX and window == STREAM_WINDOW_BYTES \
        and pool_promise(&stream.link.loop.pool, stream.window_bytes)


cdef void stream_taken(Stream *stream, size_t bytes) noexcept nogil:
    cdef Link *link = stream.link
    cdef uint32_t watched_ms
    stream.rx_taken += bytes
    stream.taken_ms = <uint32_t>link.loop.now_ms
    if is_queued(stream, QUEUE_WAITING):
        stream.waiting_taken = <uint32_t>(stream.waiting_taken + bytes) if bytes < UINT32_MAX - stream.waiting_taken \
            else UINT32_MAX
        watched_ms = stream.taken_ms - stream.waiting_since_ms
        if watched_ms > 2 * STREAM_STALL_MS_MAX:
            stream.waiting_since_ms += watched_ms // 2
            stream.waiting_taken //= 2
    stream_count_held(stream)
    if stream.end.eof or stream.end.closed or stream.in_credits:
        return
    if stream.rx_limit > stream.rx_taken + stream.window_bytes // 2:
        return
    if stream.end.rx.bytes > 0 and stream.window_bytes > STREAM_WINDOW_BYTES_MIN \
            and link.loop.now_us - stream.credit_us > WINDOW_SLOW_US + 8 * <uint64_t>link.rtt_us:
        stream_unpromise(stream, stream.window_bytes // 2)
        if stream.rx_limit > stream.rx_taken + stream.window_bytes // 2:
            return
    elif link.loop.now_us - stream.credit_us < 2 * <uint64_t>link.rtt_min_us and stream_may_grow(stream):
        # Half a window passed in under two of the shortest round trips: it is smaller than four times bandwidth x
        # delay. That much lets the path's own start-up double every round and covers the round a loss takes. Larger
        # would only queue, and what queues goes cold.
        stream.window_bytes *= 2
    stream.in_credits = 1
    stream.credit_next = link.credits
    link.credits = stream
    conn_mark_dirty(link.conn)


cdef void link_send_credits(Link *link) noexcept nogil:
    cdef Stream *stream
    cdef uint8_t *place
    while link.credits != NULL:
        stream = link.credits
        link.credits = stream.credit_next
        stream.in_credits = 0
        stream.credit_next = NULL
        if stream.end.closed:
            stream_defer_free(stream)
            continue
        if stream.end.eof:
            continue
        stream.rx_limit = stream.rx_taken + stream.window_bytes
        stream.credit_us = link.loop.now_us
        place = link_put(link, FRAME_CREDIT, 0, stream.id, 8)
        if place != NULL:
            put_u64(place, stream.rx_limit)


cdef void stream_hold(Stream *stream, uint64_t *holder) noexcept nogil:
    if stream.holder != NULL:
        stream_count_slot(stream, <uint64_t>-1)
        atomic_sub(stream.holder, <uint64_t>1 << HOLDER_SHIFT)
    stream.holder = holder
    if holder != NULL:
        atomic_add(holder, <uint64_t>1 << HOLDER_SHIFT)
        stream_count_slot(stream, 1)
