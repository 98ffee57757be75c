"""Streams that begin: their ids, their place among a link's streams, OPEN."""
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from spokes._fastpath.base.buf cimport BLOCK_BYTES, SHARE_VISITOR_MAX, holder_bytes, pool_share, slab_get
from spokes._fastpath.base.types cimport atomic_add, atomic_get, uint64_t, uint8_t
from spokes._fastpath.link.frame cimport FRAME_HEADER_BYTES, FRAME_OPEN, OPEN_BYTES_MAX, STREAM_WINDOW_BYTES, open_put
from spokes._fastpath.link.link_send cimport link_ping, link_put
from spokes._fastpath.link.stream cimport stream_find
from spokes._fastpath.link.stream_count cimport stream_serve
from spokes._fastpath.link.stream_credit cimport stream_hold, stream_narrow
from spokes._fastpath.link.stream_kind cimport stream_kind
from spokes._fastpath.link.tunnel_slots cimport address_holder, tunnel_has_slot


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


cdef Stream *stream_new(Link *link, uint32_t id, Tunnel *tunnel) noexcept nogil:
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
    stream.tunnel = tunnel
    if tunnel != NULL:
        atomic_add(&tunnel.stream_count, 1)
    return stream


cdef bint is_newer_id(uint32_t id, uint32_t last_id, bint wrapped) noexcept nogil:
    """Once ids have begun again, half the circle lies ahead of the last one."""
    cdef uint32_t ahead = id - last_id
    return 0 < ahead < (<uint32_t>1 << 31) if wrapped else id > last_id


cdef uint32_t link_next_id(Link *link) noexcept nogil:
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


cdef Stream *stream_open(Link *link, Tunnel *tunnel, const Open *open, Service *service) noexcept nogil:
    cdef uint8_t payload[OPEN_BYTES_MAX]
    cdef uint8_t *place
    cdef uint32_t length
    cdef Stream *stream
    cdef uint64_t *holder
    if link.down or link.draining or link.stream_count >= link.stream_count_max:
        return NULL
    holder = address_holder(&link.loop.pool, &open.visitor.address)
    if not tunnel_has_slot(tunnel, link.loop, open) \
            or (holder != NULL and holder_bytes(atomic_get(holder)) > pool_share(&link.loop.pool, SHARE_VISITOR_MAX)):
        link.loop.stats.streams_refused += 1
        return NULL
    stream = stream_new(link, link_next_id(link), tunnel)
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
