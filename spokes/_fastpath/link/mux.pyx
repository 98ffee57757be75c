"""Streams over a link: everything ready in one pass leaves in one write, in fair turns, within credit.

Owns: links, their streams, bytes received on a stream and not yet taken by its owner.
Bound: LINK_OUT_BYTES_MAX (+ reserve) waiting to be sent, one window per stream received, stream_count_max streams,
  one backlog of datagrams.
Fails: a peer that breaks docs/protocol.md ends its link, no other.
"""
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, ENOMEM, EPIPE, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from spokes._fastpath.base.address cimport Address, address_hash
from spokes._fastpath.base.buf cimport (
    BLOCK_BYTES, HOLDER_COUNT, SHARE_TUNNEL, SHARE_VISITOR, SHARE_VISITOR_MAX, Buf, Pool, buf_get, buf_put,
    chain_append, chain_clear, chain_copy, chain_last, chain_push, chain_reserve, iovec, pool_is_full, pool_is_low,
    pool_kernel_is_full, pool_kernel_share_passed, pool_promise, pool_promise_end, pool_share, slab_get, slab_init,
)
from spokes._fastpath.base.reason cimport REASON_GONE, REASON_LIMIT, REASON_LOOP
from spokes._fastpath.base.throttle cimport throttle_exempts
from spokes._fastpath.base.timer cimport timer_set
from spokes._fastpath.base.types cimport (
    RC_DEAD, RC_EOF, RC_GONE, RC_LIMIT, RC_LOCAL, RC_PROTO, atomic_add, atomic_and, atomic_get, atomic_or, atomic_set,
    atomic_sub, atomic_sub_acq,
)
from spokes._fastpath.base.visits cimport Visit, visits_put
from spokes._fastpath.io.conn cimport (
    CONN_DIRECT_BYTES, EOF_SEEN, LINGER_VISITOR_BYTES_MAX, ROLE_VISITOR, RX_BYTES, UNSENT_BYTES_MAX, UNSENT_BYTES_MIN,
    UNSENT_BYTES_START, EndKind, EndOps, Parked, PathState, conn_close, conn_flush, conn_linger, conn_mark_dirty,
    conn_prove, conn_recv, conn_rx_keep, loop_hold, loop_park, loop_task, path_state, tune_again, tune_congestion,
    tune_in_flight, tune_retries, tune_unsent,
)
from spokes._fastpath.io.end cimport end_pull, end_tell_eof
from spokes._fastpath.link.backlog cimport Datagram, backlog_drop, backlog_first, backlog_is_empty, backlog_push
from spokes._fastpath.link.frame cimport (
    FRAME_CONTROL, FRAME_CONTROL_MORE, FRAME_CREDIT, FRAME_DATA, FRAME_DATAGRAM, FRAME_DRAIN, FRAME_FIN,
    FRAME_HEADER_BYTES, FRAME_OPEN, FRAME_PAYLOAD_BYTES_MAX, FRAME_PING, FRAME_PONG, FRAME_RESET, FRAME_WINDOW,
    OPEN_BYTES_MAX, SERVICE_UDP, STREAM_WINDOW_BYTES, Frame, frame_parse, frame_put, get_u16, get_u32, get_u64,
    open_parse, open_put, put_u16, put_u32, put_u64,
)

cdef extern from "sys/uio.h" nogil:
    ssize_t readv(int fd, const iovec *iov, int count)

cdef extern from "string.h" nogil:
    size_t strlen(const char *text)

cdef enum:
    READ_BLOCKS = 4                     # a direct read spans at most so many blocks
    READ_ROOM_BYTES_MIN = 4096          # less left in a block: begin a new one
    FLUSH_ROUNDS = 4
    WANTED_INTERVAL_MS = 2000
    RATE_INTERVAL_MS = 250
    HOLDER_SHIFT = 44                   # of a holder's number: above it how many streams it has, below it bytes
    WINDOW_STREAM_PARTS = 8             # all that are open may begin to hold at once: each this part of an even share
    RELIEF_INTERVAL_MS = 200            # between two looks for streams to end for want of memory …
    RELIEF_COUNT_MAX = 1024             # … which go through so many of those that wait
    WINDOW_SLOW_US = 1000000            # half a window takes longer while bytes wait: it is too large for its reader
    UNSENT_BYTES_NEAR = 131072          # in the kernel, of a link that was not blocked, or by a path without distance
    LONG_PATH_US = 8000                 # round trip of a blocked link from which on its path is what is slow
    SLOW_BYTES_PER_S = 1048576          # such a link that carries less is on a slow line
    BROKEN_READS_MAX = 16               # 4 MiB: more than a kernel keeps of a conn that was reset


cdef uint64_t HOLDER_BYTES = (<uint64_t>1 << 44) - 1


# --- streams ----------------------------------------------------------------------------------------------------------

cdef Stream *stream_find(Link *link, uint32_t id) noexcept nogil:
    cdef Stream *stream
    if link.bucket_count == 0:
        return NULL
    stream = link.buckets[(id >> 1) & (link.bucket_count - 1)]
    while stream != NULL and stream.id != id:
        stream = stream.hash_next
    return stream


cdef int link_grow(Link *link) noexcept nogil:
    cdef uint32_t count = link.bucket_count * 2 if link.bucket_count else 8
    cdef Stream **buckets = <Stream **>calloc(count, sizeof(Stream *))
    cdef Stream *stream
    cdef Stream *following
    cdef uint32_t i, place
    if buckets == NULL:
        return -1
    for i in range(link.bucket_count):
        stream = link.buckets[i]
        while stream != NULL:
            following = stream.hash_next
            place = (stream.id >> 1) & (count - 1)
            stream.hash_next = buckets[place]
            buckets[place] = stream
            stream = following
    free(link.buckets)
    link.buckets = buckets
    link.bucket_count = count
    return 0


cdef Stream *stream_new(Link *link, uint32_t id) noexcept nogil:
    cdef Stream *stream
    cdef uint32_t place
    if link.stream_count >= link.bucket_count and link_grow(link) < 0:
        return NULL
    stream = <Stream *>slab_get(&link.loop.streams_slab)
    if stream == NULL:
        return NULL
    stream.end.kind = &stream_kind
    stream.link = link
    stream.id = id
    stream.tx_limit = stream.rx_limit = STREAM_WINDOW_BYTES
    stream.credit_us = link.loop.now_us
    stream.window_bytes = STREAM_WINDOW_BYTES
    stream.read_bytes = BLOCK_BYTES - FRAME_HEADER_BYTES     # one frame that fills one block
    place = (id >> 1) & (link.bucket_count - 1)
    stream.hash_next = link.buckets[place]
    link.buckets[place] = stream
    link.stream_count += 1
    link.loop.stats.streams_open += 1
    link.loop.stats.streams_total += 1
    if link.tunnel != NULL:
        atomic_add(&link.tunnel.stream_count, 1)
    return stream


cdef void stream_park(Stream *stream) noexcept nogil:
    loop_park(stream.link.loop, <Parked *>stream.places, &stream.link.loop.streams_slab, stream)


cdef inline bint is_queued(const Stream *stream, int which) noexcept nogil:
    return stream.queued >> which & 1


cdef void queue_add(Stream *stream, int which) noexcept nogil:
    cdef StreamQueue *queue = &stream.link.queues[which]
    cdef StreamPlace *place = &stream.places[which]
    if is_queued(stream, which):
        return
    stream.queued |= <uint8_t>(1 << which)
    place.next = NULL
    place.prev = queue.last
    if queue.last != NULL:
        queue.last.places[which].next = stream
    else:
        queue.first = stream
    queue.last = stream
    queue.count += 1


cdef void queue_remove(Stream *stream, int which) noexcept nogil:
    cdef StreamQueue *queue = &stream.link.queues[which]
    cdef StreamPlace *place = &stream.places[which]
    if not is_queued(stream, which):
        return
    if place.prev != NULL:
        place.prev.places[which].next = place.next
    else:
        queue.first = place.next
    if place.next != NULL:
        place.next.places[which].prev = place.prev
    else:
        queue.last = place.prev
    place.next = place.prev = NULL
    stream.queued &= <uint8_t>~(1 << which)
    queue.count -= 1


cdef uint64_t *address_holder(Pool *pool, const Address *address) noexcept nogil:
    if address.family == 0:
        return NULL
    return &pool.budget.held_by_visitor[address_hash(address, 0) % HOLDER_COUNT]


# --- places of a tunnel -----------------------------------------------------------------------------------------------

cdef bint tunnel_may_take(Link *link, uint64_t held) noexcept nogil:
    cdef uint64_t limit = link.loop.tunnel_stream_count_max
    cdef uint64_t used
    if limit == 0 or link.tunnel == NULL:
        return True
    used = atomic_get(&link.tunnel.stream_count)
    return used < limit and (limit - used > limit // 4 or held < limit - used)


cdef uint64_t *visitor_counter(Link *link, const Address *address) noexcept nogil:
    """How many of the tunnel's streams are of one address. Those that share a counter share its share."""
    return &link.loop.tunnel_visitors[
        address_hash(address, link.tunnel.slot * 0x9E3779B1u) % TUNNEL_VISITOR_COUNTERS]


cdef bint tunnel_has_place(Link *link, const Open *open) noexcept nogil:
    """One address alone does not fill a tunnel, unless it is one that brings others' visitors. Datagrams have shares of
    their own (udp.pyx), in which who comes gets the place of somebody else."""
    cdef uint64_t limit = link.loop.tunnel_stream_count_max
    if limit == 0 or link.tunnel == NULL:
        return True
    if open.service == SERVICE_UDP or open.visitor.address.family == 0 \
            or throttle_exempts(link.loop.throttle, &open.visitor.address):
        return atomic_get(&link.tunnel.stream_count) < limit
    return tunnel_may_take(link, atomic_get(visitor_counter(link, &open.visitor.address)))


cdef void stream_count_place(Stream *stream, uint64_t more) noexcept nogil:
    """`more`: 1, or as many as wrap to one less. Only streams of ours have places, and their links a tunnel."""
    cdef Link *link = stream.link
    if link.loop.tunnel_stream_count_max == 0 or link.tunnel == NULL or not is_our_id(link, stream.id):
        return
    atomic_add(visitor_counter(link, &stream.visitor.address), more)
    if stream.service == SERVICE_UDP:
        atomic_add(&link.tunnel.flow_count, more)


# --- shares of memory -------------------------------------------------------------------------------------------------

cdef void stream_count_held(Stream *stream) noexcept nogil:
    """What waits in rx is held by the tunnel and by the visitor's address. Differences wrap, their sum does not."""
    cdef uint32_t blocks = stream.end.rx.blocks
    cdef uint64_t more
    if blocks == stream.held_blocks:
        return
    more = (<uint64_t>blocks - stream.held_blocks) * BLOCK_BYTES
    stream.held_blocks = blocks
    if stream.link.tunnel != NULL:
        atomic_add(&stream.link.tunnel.held_bytes, more)
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
    cdef Link *link = stream.link
    cdef Pool *pool = &link.loop.pool
    cdef uint32_t window = STREAM_WINDOW_BYTES
    cdef uint64_t held
    if link.tunnel != NULL:
        window = window_within(window, pool_share(pool, SHARE_TUNNEL), atomic_get(&link.tunnel.held_bytes),
                               atomic_get(&link.tunnel.stream_count) if is_new else 0)
    if stream.holder != NULL:
        held = atomic_get(stream.holder)
        window = window_within(window, pool_share(pool, SHARE_VISITOR), held & HOLDER_BYTES,
                               held >> HOLDER_SHIFT if is_new else 0)
    return window


cdef void stream_hold(Stream *stream, uint64_t *holder) noexcept nogil:
    if stream.holder != NULL:
        stream_count_place(stream, <uint64_t>-1)
        atomic_sub(stream.holder, <uint64_t>1 << HOLDER_SHIFT)
    stream.holder = holder
    if holder != NULL:
        atomic_add(holder, <uint64_t>1 << HOLDER_SHIFT)
        stream_count_place(stream, 1)


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
        and atomic_get(stream.holder) & HOLDER_BYTES > pool_share(&stream.link.loop.pool, halves)


cdef bint link_must_wait(Link *link) noexcept nogil:
    """Whose tunnel holds its share is not read: the peer's window and the kernel hold back what comes."""
    cdef Pool *pool = &link.loop.pool
    cdef uint64_t held
    if pool_is_full(pool):
        return True
    if link.tunnel == NULL:
        return pool_is_low(pool)
    held = atomic_get(&link.tunnel.held_bytes)
    return held > 0 and (pool_is_low(pool) or held > pool_share(pool, SHARE_TUNNEL))


cdef bint stream_is_slow(const Stream *stream) noexcept nogil:
    """Its owner would need ten seconds for what waits, or has taken nothing for as long."""
    cdef uint32_t now_ms = <uint32_t>stream.link.loop.now_ms
    cdef uint64_t watched_ms = <uint32_t>(now_ms - stream.waiting_since_ms)
    if <uint32_t>(now_ms - stream.taken_ms) >= STREAM_STALL_MS_MAX:
        return True
    return watched_ms >= STREAM_STALL_MS_MIN \
        and stream.end.rx.bytes * watched_ms > stream.waiting_taken * STREAM_STALL_MS_MAX


cdef void stream_reclaim(Stream *stream) noexcept nogil:
    stream.link.loop.stats.streams_reclaimed += 1
    stream_reset(stream, REASON_LIMIT)
    stream_gone(stream, RC_GONE)


cdef void link_relieve(Link *link) noexcept nogil:
    """Take memory back from slow readers: where the link must wait, of all; else of visitors above their share."""
    cdef Loop *loop = link.loop
    cdef Stream *stream
    cdef uint32_t count = link.queues[QUEUE_WAITING].count
    cdef uint32_t _i
    if loop.now_ms - link.relief_ms < RELIEF_INTERVAL_MS:
        return
    link.relief_ms = loop.now_ms
    if count > RELIEF_COUNT_MAX:
        count = RELIEF_COUNT_MAX
    for _i in range(count):
        stream = link.queues[QUEUE_WAITING].first
        if stream == NULL or link.down:
            return
        queue_remove(stream, QUEUE_WAITING)     # the next look begins where this one ends
        queue_add(stream, QUEUE_WAITING)
        if stream_is_slow(stream) and (visitor_holds_more(stream, SHARE_VISITOR) or link_must_wait(link)):
            stream_reclaim(stream)


cdef bint kernel_share_passed(const Link *link, const uint64_t *holder) noexcept nogil:
    cdef Pool *pool = &link.loop.pool
    if link.tunnel != NULL and pool_kernel_share_passed(pool, atomic_get(&link.tunnel.stream_count)):
        return True
    return holder != NULL and pool_kernel_share_passed(pool, atomic_get(holder) >> HOLDER_SHIFT)


cdef bint stream_stands_still(const Stream *stream, int which, bint of_holder) noexcept nogil:
    """Of whoever passes their share as stream_is_slow does: half a window that took five seconds waits for credit. Of
    others not before it has carried nothing for all of that time."""
    cdef uint32_t now_ms = <uint32_t>stream.link.loop.now_ms
    if which == QUEUE_CREDIT:
        return <uint32_t>(now_ms - stream.credit_since_ms) >= STREAM_STALL_MS_MAX // (2 if of_holder else 1)
    return stream_is_slow(stream) if of_holder else <uint32_t>(now_ms - stream.taken_ms) >= STREAM_STALL_MS_MAX


cdef uint64_t link_relieve_kernel(Link *link, uint64_t count_max) noexcept nogil:
    """Where the other end reads nothing, bytes stand in the buffers of the visitor's conn here; where no credit comes,
    in those of the source's."""
    cdef Stream *stream
    cdef uint64_t ended = 0
    cdef uint32_t count
    cdef bint of_holder
    cdef int which
    for which in range(QUEUE_WAITING, QUEUE_COUNT):
        count = link.queues[which].count
        if count > RELIEF_COUNT_MAX:
            count = RELIEF_COUNT_MAX
        while count > 0 and ended < count_max and not link.down:
            count -= 1
            stream = link.queues[which].first
            if stream == NULL:
                break
            queue_remove(stream, which)         # the next look begins where this one ends
            queue_add(stream, which)
            of_holder = kernel_share_passed(link, stream.holder)
            if (of_holder or pool_kernel_is_full(&link.loop.pool)) and stream_stands_still(stream, which, of_holder):
                stream_reclaim(stream)
                ended += 1
    return ended


# --- streams, life ----------------------------------------------------------------------------------------------------

cdef void stream_end_visit(Stream *stream) noexcept nogil:
    """The record comes before the count: who sees that no stream serves a service any more finds all its records."""
    cdef Loop *loop = stream.link.loop
    cdef Visit visit
    if stream.serves == NULL:
        return
    if loop.visits.visits != NULL:
        visit.service = stream.serves.id
        visit.bytes_in = stream.visit_bytes_in
        visit.bytes_out = stream.visit_bytes_out
        visit.begin_ms = stream.visit_begin_ms
        visit.end_ms = loop.wall_ms
        visit.visitor = stream.visitor.address
        if not visits_put(&loop.visits, &visit):
            loop.stats.visits_dropped += 1
    atomic_sub_acq(&stream.serves.streams_open, 1)
    stream.serves = NULL


cdef void stream_serve(Stream *stream, Service *service) noexcept nogil:
    if stream.serves == service:
        return
    stream_end_visit(stream)
    if service == NULL:
        return
    stream.serves = service
    stream.visit_begin_ms = stream.link.loop.wall_ms
    stream.visit_bytes_in = stream.visit_bytes_out = 0
    atomic_add(&service.streams_total, 1)
    atomic_add(&service.streams_open, 1)


cdef inline Counts *stream_counts(const Stream *stream) noexcept nogil:
    if stream.serves != NULL:
        return &stream.serves.counts
    return &stream.link.tunnel.counts if stream.link.tunnel != NULL else NULL


cdef inline void stream_count_in(Stream *stream, size_t bytes) noexcept nogil:
    cdef Counts *counts = stream_counts(stream)
    stream.visit_bytes_in += bytes
    if counts != NULL:
        atomic_add(&counts.bytes_in, bytes)


cdef inline void stream_count_out(Stream *stream, size_t bytes) noexcept nogil:
    cdef Counts *counts = stream_counts(stream)
    stream.visit_bytes_out += bytes
    if counts != NULL:
        atomic_add(&counts.bytes_out, bytes)


cdef void stream_unpromise(Stream *stream, uint32_t bytes) noexcept nogil:
    """The window becomes smaller by so much: what was promised beyond its first size is given back."""
    cdef uint32_t left = stream.window_bytes - bytes
    if stream.window_bytes > STREAM_WINDOW_BYTES:
        pool_promise_end(&stream.link.loop.pool,
                         stream.window_bytes - (left if left > STREAM_WINDOW_BYTES else STREAM_WINDOW_BYTES))
    stream.window_bytes = left


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
    queue_remove(stream, QUEUE_TURNS)
    queue_remove(stream, QUEUE_CREDIT)
    stream_end_visit(stream)
    chain_clear(&link.loop.pool, &stream.end.rx)
    stream_count_held(stream)
    stream_hold(stream, NULL)
    stream_unpromise(stream, stream.window_bytes)
    link.stream_count -= 1
    link.loop.stats.streams_open -= 1
    if link.tunnel != NULL:
        atomic_sub(&link.tunnel.stream_count, 1)
    if not stream.in_credits:           # else the flush that takes it out of the list parks it
        stream_park(stream)


cdef void link_break(Link *link, int rc) noexcept nogil:
    """The link cannot go on, but somebody is using it just now: the flush ends it."""
    if link.conn.error == 0:
        link.conn.error = rc
    conn_mark_dirty(link.conn)


cdef uint8_t *link_put(Link *link, uint8_t type, uint8_t flags, uint32_t stream, uint32_t length) noexcept nogil:
    """A whole small frame's place at the end of what waits; the caller fills it. NULL: out of memory, the link ends."""
    cdef uint8_t *place
    if link.down:
        return NULL
    place = chain_reserve(&link.loop.pool, &link.conn.out, FRAME_HEADER_BYTES + length)
    if place == NULL:
        link_break(link, -ENOMEM)
        return NULL
    if link.conn.out.bytes > LINK_OUT_BYTES_LIMIT:
        link_break(link, RC_LIMIT)
    frame_put(place, type, flags, stream, length)
    conn_mark_dirty(link.conn)
    return place + FRAME_HEADER_BYTES


cdef bint is_newer_id(uint32_t id, uint32_t last_id, bint wrapped) noexcept nogil:
    """Once ids have begun again, half the circle lies ahead of the last one."""
    cdef uint32_t ahead = id - last_id
    return 0 < ahead < (<uint32_t>1 << 31) if wrapped else id > last_id


cdef uint32_t link_take_id(Link *link) noexcept nogil:
    """Of ids that begin again the ones still in use are left out; streams are far fewer than ids."""
    cdef uint32_t first = 2 if link.is_acceptor else 1
    cdef uint32_t id = link.last_id
    while True:
        id = id + 2 if id != 0 else first
        if id <= 1 and link.last_id > 1:
            id = first                  # past the last one
            link.last_id_wrapped = 1
        if not link.last_id_wrapped or stream_find(link, id) == NULL:
            link.last_id = id
            return id


cdef Stream *stream_open(Link *link, const Open *open, Service *service) noexcept nogil:
    cdef uint8_t payload[OPEN_BYTES_MAX]
    cdef uint8_t *place
    cdef uint32_t length
    cdef Stream *stream
    cdef uint64_t *holder
    if link.down or link.draining or link.stream_count >= link.stream_count_max:
        return NULL
    holder = address_holder(&link.loop.pool, &open.visitor.address)
    if not tunnel_has_place(link, open) \
            or (holder != NULL and atomic_get(holder) & HOLDER_BYTES > pool_share(&link.loop.pool, SHARE_VISITOR_MAX)):
        link.loop.stats.streams_refused += 1
        return NULL
    stream = stream_new(link, link_take_id(link))
    if stream == NULL:
        return NULL
    stream.service = open.service
    stream.visitor = open.visitor
    stream_hold(stream, holder)
    length = <uint32_t>open_put(payload, open)
    place = link_put(link, FRAME_OPEN, 0, stream.id, length)
    if place != NULL:
        memcpy(place, payload, length)
    stream_narrow(stream)
    stream_serve(stream, service)
    if link.rtt_us == 0 and link.ping_sent_us == 0:
        link_ping(link)                 # windows grow by round trips: measure one as soon as it matters
    return stream


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


cdef void link_account(Link *link, size_t bytes) noexcept nogil:
    """Bytes a second: new streams avoid a link with bulk traffic, and a further link is asked for when all have it."""
    cdef uint64_t now_ms = link.loop.now_ms
    link.busy_bytes += bytes
    if now_ms - link.busy_since_ms < RATE_INTERVAL_MS:
        return
    link.busy_rate = <uint32_t>(link.busy_bytes * 1000 // (now_ms - link.busy_since_ms))
    link_tune(link, link.sent_bytes * 1000 // (now_ms - link.busy_since_ms))
    link.busy_since_ms = now_ms
    link.busy_bytes = link.sent_bytes = 0
    if link.busy_rate >= BUSY_BYTES_PER_S and link.tunnel != NULL and now_ms - link.wanted_ms >= WANTED_INTERVAL_MS:
        link.wanted_ms = now_ms
        if link.ops.wanted != NULL:
            link.ops.wanted(link)


cdef void link_free_line(Link *link) noexcept nogil:
    if link.in_flight_bytes > 0:
        link.in_flight_bytes = 0
        tune_in_flight(link.conn.fd, 0)


cdef void link_bound_line(Link *link) noexcept nogil:
    """What bbr and cubic keep on their way over a slow line is a queue of ours that no turn can overtake: 18 segments
    at 1 Mbit/s are 216 ms. It is bounded by what the line carries in its shortest round trip and LINE_QUEUE_US. Where
    half as much comes through then, the round trip was no queue of ours (the path has changed, or others fill it): for
    a while the kernel decides."""
    cdef PathState path
    cdef uint64_t now_ms = link.loop.now_ms
    cdef uint64_t rate, bytes, queue_us
    if not path_state(link.conn.fd, &path) or path.rtt_min_us == 0:
        return
    rate = 0
    if now_ms > link.acked_ms:
        rate = (path.acked_bytes - link.acked_bytes) * 1000 // (now_ms - link.acked_ms)
    bytes = link.acked_bytes
    link.acked_bytes = path.acked_bytes
    link.acked_ms = now_ms
    if bytes == 0 or rate == 0:
        return                          # a first look
    queue_us = path.rtt_us - path.rtt_min_us if path.rtt_us > path.rtt_min_us else 0
    if link.in_flight_bytes > 0 and rate < link.in_flight_rate // 2:
        link.in_flight_misses += 1
        if link.in_flight_misses >= LINE_MISSES_MAX:
            link_free_line(link)
            link.in_flight_ms = now_ms + LINE_FREE_MS
        return
    link.in_flight_misses = 0
    if now_ms < link.in_flight_ms:
        return
    bytes = link.in_flight_bytes
    if queue_us > LINE_QUEUE_US:
        bytes = rate * (path.rtt_min_us + LINE_QUEUE_US) // 1000000
        if bytes < LINE_IN_FLIGHT_BYTES_MIN:
            bytes = LINE_IN_FLIGHT_BYTES_MIN
        if 0 < link.in_flight_bytes <= bytes:
            return
        link.in_flight_rate = rate
    elif queue_us < LINE_QUEUE_US // 4 and bytes > 0:
        bytes += bytes // 2
    if bytes != link.in_flight_bytes:
        link.in_flight_bytes = <uint32_t>bytes
        tune_in_flight(link.conn.fd, <uint32_t>bytes)


cdef void link_tune(Link *link, uint64_t sent_per_s) noexcept nogil:
    """Room in the kernel for ten milliseconds at the present rate, in powers of two so that it rarely changes.

    Only a link that was blocked, with a round trip that shows a queue or a distance, tells what its path carries: one
    that was not may have had little to send, and next door it is the processor or the reader that is slow."""
    cdef uint32_t unsent_bytes = UNSENT_BYTES_NEAR
    cdef uint64_t rate = link.busy_rate
    if link.blocked and sent_per_s < UNSENT_BYTES_NEAR * 100:
        link.long_path = tune_again(link.conn.fd, LONG_PATH_US)
        if link.long_path:
            rate = sent_per_s
        link.is_slow = link.long_path and sent_per_s < SLOW_BYTES_PER_S
    elif link.blocked:
        link.long_path = link.is_slow = 0
    if link.long_path:
        unsent_bytes = UNSENT_BYTES_MIN if link.blocked else link.unsent_bytes
    while unsent_bytes < rate // 100 and unsent_bytes < UNSENT_BYTES_MAX:
        unsent_bytes *= 2
    if unsent_bytes >= LINK_OUT_BYTES_MIN:
        link.is_slow = 0
    if link.is_slow:
        link.out_limit_bytes = unsent_bytes
    link.conn.on_slow_line = link.is_slow
    if not link.is_slow:
        link_free_line(link)
    elif link.blocked:
        link_bound_line(link)
    link.blocked = 0
    if unsent_bytes != link.unsent_bytes:
        link.unsent_bytes = unsent_bytes
        tune_unsent(link.conn.fd, <int>unsent_bytes)


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
    if want > STREAM_TURN_BYTES:
        want = STREAM_TURN_BYTES
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
    elif asked == stream.read_bytes and stream.read_bytes < STREAM_TURN_BYTES:
        stream.read_bytes = stream.read_bytes * 2 if stream.read_bytes * 2 < STREAM_TURN_BYTES else STREAM_TURN_BYTES
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
    if is_queued(stream, QUEUE_TURNS):
        return
    if stream.tx_offset >= stream.tx_limit:     # CREDIT gives it a turn
        if not is_queued(stream, QUEUE_CREDIT):
            stream.credit_since_ms = <uint32_t>link.loop.now_ms
            queue_add(stream, QUEUE_CREDIT)
        return
    queue_add(stream, QUEUE_TURNS)
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
        stream.waiting_taken += bytes
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


# --- as the end of a flow ---------------------------------------------------------------------------------------------

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


cdef size_t farewell_take(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """`owner` counts what was thrown away: who sends more than that means to go on for ever."""
    end.owner = <void *>(<size_t>end.owner + src_bytes)
    if <size_t>end.owner > LINGER_VISITOR_BYTES_MAX:
        stream_close(<Stream *>end, REASON_LIMIT)
    return src_bytes


cdef void farewell_eof(End *end) noexcept nogil:
    stream_close(<Stream *>end, REASON_GONE)


cdef void farewell_room(End *end) noexcept nogil:
    pass


cdef void farewell_gone(End *end, int rc) noexcept nogil:
    pass


cdef EndOps farewell_ops
farewell_ops.take = farewell_take
farewell_ops.eof = farewell_eof
farewell_ops.room = farewell_room
farewell_ops.gone = farewell_gone


cdef void stream_end_linger(End *end, bint is_mid_request) noexcept nogil:
    """A RESET now would throw away what the peer has not passed on yet: wait for its FIN, discard the rest."""
    if end.closed:
        return
    stream_fin(<Stream *>end)
    if end.eof:
        stream_close(<Stream *>end, REASON_GONE)
        return
    end.ops = &farewell_ops
    end.owner = NULL
    end_pull(end)


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


# --- datagrams --------------------------------------------------------------------------------------------------------

cdef bint stream_datagram(Stream *stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    """Queue one datagram; where the link is behind, the oldest waiting ones are dropped. False: dropped."""
    cdef Link *link = stream.link
    cdef int dropped
    if link.down or stream.end.closed:
        return False
    stream_count_in(stream, src_bytes)
    if (backlog_is_empty(&link.backlog) and link.conn.writable
            and link.conn.out.bytes + FRAME_HEADER_BYTES + src_bytes < link.out_limit_bytes):
        datagram_put(link, stream.id, src, src_bytes)
        return True
    dropped = backlog_push(&link.backlog, stream.id, src, src_bytes)
    if dropped < 0:
        return False
    link.loop.stats.datagrams_dropped += <uint64_t>dropped
    if link.conn.writable:
        conn_mark_dirty(link.conn)
    return True


cdef void datagram_put(Link *link, uint32_t id, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    cdef uint8_t header[FRAME_HEADER_BYTES]
    frame_put(header, FRAME_DATAGRAM, 0, id, src_bytes)
    link_append(link, header, src, src_bytes)


cdef void link_send_backlog(Link *link) noexcept nogil:
    cdef Datagram oldest
    while link.conn.out.bytes < link.out_limit_bytes and backlog_first(&link.backlog, &oldest):
        datagram_put(link, oldest.stream, oldest.data, oldest.bytes)
        backlog_drop(&link.backlog, &oldest)


# --- link, sending ----------------------------------------------------------------------------------------------------

cdef void link_ping(Link *link) noexcept nogil:
    cdef uint8_t *place = link_put(link, FRAME_PING, 0, 0, 8)
    if place != NULL:
        link.ping_sent_us = link.loop.now_us
        put_u64(place, link.ping_sent_us)


cdef void link_probe(Link *link) noexcept nogil:
    if not link.down:
        link.pong_wanted = 1
        link_ping(link)


cdef void link_append(Link *link, const uint8_t *header, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """A whole frame that may be larger than a block."""
    cdef Chain *out = &link.conn.out
    if chain_append(&link.loop.pool, out, header, FRAME_HEADER_BYTES, True) < FRAME_HEADER_BYTES \
            or chain_append(&link.loop.pool, out, src, src_bytes, True) < src_bytes:
        link_break(link, -ENOMEM)       # half a frame cannot be taken back
    elif out.bytes > LINK_OUT_BYTES_LIMIT:
        link_break(link, RC_LIMIT)
    conn_mark_dirty(link.conn)


cdef void link_control(Link *link, uint8_t flags, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    cdef uint8_t header[FRAME_HEADER_BYTES]
    if link.down:
        return
    frame_put(header, FRAME_CONTROL, flags, 0, src_bytes)
    link.in_message = flags & FRAME_CONTROL_MORE
    link_append(link, header, src, src_bytes)


cdef void link_drain(Link *link) noexcept nogil:
    if not link.draining:
        link.draining = 1
        link_put(link, FRAME_DRAIN, 0, 0, 0)


cdef void link_send_credits(Link *link) noexcept nogil:
    cdef Stream *stream
    cdef uint8_t *place
    while link.credits != NULL:
        stream = link.credits
        link.credits = stream.credit_next
        stream.in_credits = 0
        stream.credit_next = NULL
        if stream.end.closed:
            stream_park(stream)
            continue
        if stream.end.eof:
            continue
        stream.rx_limit = stream.rx_taken + stream.window_bytes
        stream.credit_us = link.loop.now_us
        place = link_put(link, FRAME_CREDIT, 0, stream.id, 8)
        if place != NULL:
            put_u64(place, stream.rx_limit)


cdef void link_take_turns(Link *link) noexcept nogil:
    cdef Stream *stream
    cdef uint32_t turns = link.stream_count + 1
    while link.queues[QUEUE_TURNS].first != NULL and link.conn.out.bytes < link.out_limit_bytes and turns > 0:
        turns -= 1
        stream = link.queues[QUEUE_TURNS].first
        queue_remove(stream, QUEUE_TURNS)
        if stream.end.ops != NULL and stream.end.wants_room:
            stream.end.wants_room = 0
            stream.end.ops.room(&stream.end)


cdef void link_flush(Conn *conn) noexcept nogil:
    cdef Link *link = <Link *>conn.end.owner
    cdef int rounds = 0
    cdef size_t before
    if link.down:
        return
    while rounds < FLUSH_ROUNDS:
        rounds += 1
        link_send_credits(link)
        if conn.writable and (conn.tls == NULL or conn.tls.tx.bytes == 0):
            if not backlog_is_empty(&link.backlog):
                link_send_backlog(link)
            link_take_turns(link)
            link_send_credits(link)
        before = conn.out.bytes
        if link.loop.gathering and 0 < before < LINK_GATHER_BYTES_MAX and conn.error == 0:
            loop_hold(conn)             # one record and one call for what several short passes bring
            return
        conn_flush(conn)
        if link.down or conn.closed:
            return
        if not conn.writable:
            # The path is slower than we are: queue less ahead of it.
            link.blocked = 1
            if before > LINK_OUT_BYTES_MIN and link.out_limit_bytes > LINK_OUT_BYTES_MIN:
                link.out_limit_bytes //= 2
            return
        if link.out_limit_bytes < LINK_OUT_BYTES_MAX and before >= link.out_limit_bytes and not link.is_slow:
            link.out_limit_bytes *= 2
        if link.queues[QUEUE_TURNS].first == NULL and link.credits == NULL and backlog_is_empty(&link.backlog):
            break
    if (link.queues[QUEUE_TURNS].first != NULL or link.credits != NULL or not backlog_is_empty(&link.backlog)) \
            and not link.loop.starved:
        conn_mark_dirty(conn)


# --- link, receiving --------------------------------------------------------------------------------------------------

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
        taken = end.ops.take(end, src, src_bytes)
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
            end_pull(end)               # a head that was cut may be whole now
            if end.closed:
                return 0
        # Each stream with a byte to wait takes a block: one read of tiny frames could take thousands.
        link.stalled = link_must_wait(link)
        if visitor_holds_more(stream, SHARE_VISITOR):
            link.crowded = 1
            if visitor_holds_more(stream, SHARE_VISITOR_MAX):
                stream_reclaim(stream)
    return 0


cdef inline bint is_our_id(const Link *link, uint32_t id) noexcept nogil:
    return (id & 1) == (not link.is_acceptor)


cdef bint link_hear_id(Link *link, uint32_t id) noexcept nogil:
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
        if is_our_id(link, frame.stream) or not link_hear_id(link, frame.stream):
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
            stream = stream_new(link, frame.stream)
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


cdef void link_ready(Conn *conn) noexcept nogil:
    cdef Link *link = <Link *>conn.end.owner
    if conn.readable and conn.error == 0:
        link_read(link)
    if not conn.closed and conn.writable and (conn.out.bytes > 0 or conn.tls.tx.bytes > 0
                                              or link.queues[QUEUE_TURNS].first != NULL
                                              or not backlog_is_empty(&link.backlog)):
        conn_mark_dirty(conn)


cdef void link_conn_gone(End *end, int rc) noexcept nogil:
    """The peer may have said why before it reset the conn: what came in time is read."""
    cdef Link *link = <Link *>end.owner
    cdef Conn *conn = link.conn
    cdef int _i
    if rc == -EPIPE or rc == -ECONNRESET:
        link.broken = rc
        conn.error = 0
        conn.readable = 1
        for _i in range(BROKEN_READS_MAX):
            if not link.down and conn.readable and conn.error == 0:
                link_read(link)
    link_fail(link, rc)


cdef void link_unread(Link *link, uint64_t ping_ms) noexcept nogil:
    """The peer must go on hearing from us; and visitors that do not read must not hold up all others for ever."""
    if link.loop.now_us - link.ping_sent_us >= ping_ms * 1000:
        link_ping(link)
    link_relieve(link)


cdef void link_tick(void *owner) noexcept nogil:
    """Deadlines of one link; moves with what was last received, so it fires about twice in ten seconds when idle."""
    cdef Link *link = <Link *>owner
    cdef Loop *loop = link.loop
    cdef uint64_t silence_ms = loop.now_ms - link.last_rx_ms
    cdef uint64_t ping_ms = PING_ACCEPTOR_MS if link.is_acceptor else PING_CONNECTOR_MS
    if link.down:
        return
    if link.conn.readable or link.stalled:      # was left unread
        if link.unread:
            link_unread(link, ping_ms)
        loop_task(loop, &link.task)
        timer_set(&loop.wheel, &link.conn.timer, loop.now_ms + 64)
        return
    if silence_ms >= LINK_DEAD_MS:
        link_fail(link, RC_DEAD)
        return
    if silence_ms >= ping_ms:
        link_ping(link)
        ping_ms = LINK_DEAD_MS
    timer_set(&loop.wheel, &link.conn.timer, link.last_rx_ms + ping_ms)


# --- link, life -------------------------------------------------------------------------------------------------------

cdef uint32_t test_last_id = 0          # where ids of new links begin; tests move it

cdef EndOps link_conn_ops
link_conn_ops.take = NULL
link_conn_ops.eof = NULL
link_conn_ops.room = NULL
link_conn_ops.gone = link_conn_gone


cdef Link *link_new(Conn *conn, bint is_acceptor, const LinkOps *ops) noexcept nogil:
    cdef Link *link = <Link *>calloc(1, sizeof(Link))
    cdef Loop *loop = conn.loop
    if link == NULL:
        return NULL
    if loop.streams_slab.object_bytes == 0:
        slab_init(&loop.streams_slab, sizeof(Stream))
    link.conn = conn
    link.loop = loop
    link.ops = ops
    link.is_acceptor = is_acceptor
    if test_last_id != 0:
        link.last_id = test_last_id + (not is_acceptor)
        link.peer_last_id = test_last_id + is_acceptor
    link.out_limit_bytes = LINK_OUT_BYTES_START
    link.unsent_bytes = UNSENT_BYTES_START
    tune_congestion(conn.fd)
    tune_retries(conn.fd)
    link.stream_count_max = 0xFFFFFFFFu
    link.last_rx_ms = loop.now_ms
    link.busy_since_ms = loop.now_ms
    link.task.run = link_read
    link.task.owner = link
    conn.end.owner = link
    conn.end.ops = &link_conn_ops
    conn.on_ready = link_ready
    conn.on_flush = link_flush
    conn.timer.fire = link_tick
    conn.timer.owner = link
    timer_set(&loop.wheel, &conn.timer, loop.now_ms + (PING_ACCEPTOR_MS if is_acceptor else PING_CONNECTOR_MS))
    loop.stats.links_open += 1
    loop.stats.links_total += 1
    link_put(link, FRAME_WINDOW, 0, 0, 0)   # we understand it; who does not skips it
    return link


cdef void link_bind(Link *link, Tunnel *tunnel) noexcept nogil:
    cdef uint32_t worker = link.loop.index
    cdef uint32_t i
    cdef Stream *stream
    if link.tunnel != NULL or link.down:
        return
    link.tunnel = tunnel
    link.prev = NULL
    link.next = <Link *>tunnel.links[worker]
    if link.next != NULL:
        link.next.prev = link
    tunnel.links[worker] = link
    atomic_or(&tunnel.worker_mask, <uint64_t>1 << worker)
    atomic_set(&tunnel.last_heard_ms, link.loop.wall_ms)
    atomic_add(&tunnel.stream_count, link.stream_count)
    for i in range(link.bucket_count):  # the peer's, that came before
        stream = link.buckets[i]
        while stream != NULL:
            atomic_add(&tunnel.held_bytes, <uint64_t>stream.held_blocks * BLOCK_BYTES)
            stream = stream.hash_next


cdef void link_unbind(Link *link) noexcept nogil:
    cdef Tunnel *tunnel = link.tunnel
    cdef uint32_t worker = link.loop.index
    if tunnel == NULL:
        return
    if link.prev != NULL:
        link.prev.next = link.next
    else:
        tunnel.links[worker] = link.next
    if link.next != NULL:
        link.next.prev = link.prev
    if tunnel.links[worker] == NULL:
        atomic_and(&tunnel.worker_mask, ~(<uint64_t>1 << worker))
    link.next = link.prev = NULL


cdef void link_fail(Link *link, int rc) noexcept nogil:
    cdef uint32_t i
    cdef Stream *stream
    if link.down:
        return
    link.down = 1
    link_unbind(link)
    for i in range(link.bucket_count):
        while link.buckets[i] != NULL:
            stream_gone(link.buckets[i], RC_GONE)
    while link.credits != NULL:
        stream = link.credits
        link.credits = stream.credit_next
        stream_park(stream)
    link.loop.stats.links_open -= 1
    if rc != RC_LOCAL and rc != RC_EOF:
        link.loop.stats.errors_total += 1
    if link.closing:
        link.conn.end.owner = NULL
        conn_linger(link.conn)
    else:
        conn_close(link.conn, rc != RC_LOCAL and rc != RC_EOF)
    link.ops.down(link, rc)


cdef const char *bye_of(int rc) noexcept nogil:
    """The only control messages that the engine makes. The peer may come back: its pauses grow by themselves."""
    if rc == RC_LIMIT:
        return b'{"type":"bye","code":"SPK-LIMIT","reason":6,"message":"a limit of the link was passed","retry":true}'
    return b'{"type":"bye","code":"SPK-PROTOCOL","reason":7,"message":"the link protocol was broken","retry":true}'


cdef void link_refuse(Link *link, int rc) noexcept nogil:
    """The peer broke the protocol or a limit. It is told so where the way to it works and little waits; then it has
    LINK_BYE_MS to read it, so that nobody keeps conns and blocks by not reading."""
    cdef const char *bye = bye_of(rc)
    cdef Conn *conn = link.conn
    if link.broken == 0 and conn.error == 0 and not link.in_message \
            and conn.out.bytes + conn.tls.tx.bytes <= LINK_OUT_BYTES_MAX + LINK_OUT_RESERVE_BYTES:
        link_control(link, 0, <const uint8_t *>bye, <uint32_t>strlen(bye))
        link.closing = 1
        conn.span.linger_end_ms = link.loop.now_ms + LINK_BYE_MS
    link_fail(link, rc)


cdef void link_free(Link *link) noexcept nogil:
    cdef Datagram waiting
    free(link.buckets)
    while backlog_first(&link.backlog, &waiting):
        link.loop.stats.datagrams_dropped += 1
        backlog_drop(&link.backlog, &waiting)
    free(link)


cdef void link_close_soon(Link *link) noexcept nogil:
    """The link is gone for us; its conn lingers until the peer has read why."""
    if link.down:
        return
    link.closing = 1
    conn_flush(link.conn)
    link_fail(link, RC_LOCAL)


cdef bint link_is_busy(Link *link) noexcept nogil:
    return link.busy_rate >= BUSY_BYTES_PER_S and link.loop.now_ms - link.busy_since_ms < 3000


cdef Link *link_pick(Tunnel *tunnel, Loop *loop) noexcept nogil:
    """Least busy first (in classes, so that noise does not spread streams), then fewest streams."""
    cdef Link *link = <Link *>tunnel.links[loop.index]
    cdef Link *best = NULL
    while link != NULL:
        if not link.draining and not link.down and link.stream_count < link.stream_count_max:
            if best == NULL or link_is_better(link, best):
                best = link
        link = link.next
    return best


cdef bint link_is_better(Link *link, Link *other) noexcept nogil:
    cdef bint busy = link_is_busy(link)
    if busy != link_is_busy(other):
        return not busy
    return link.stream_count < other.stream_count


# --- test door --------------------------------------------------------------------------------------------------------

def set_last_id(uint32_t last_id):
    """Links made from now on behave as if this were the last id either side had used; even."""
    global test_last_id
    test_last_id = last_id
