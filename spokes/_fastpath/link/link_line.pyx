"""How much a link keeps in the kernel: little on a slow line, so that no stream waits behind another's bytes."""
from spokes._fastpath.base.types cimport uint32_t, uint64_t
from spokes._fastpath.io.conn_state cimport UNSENT_BYTES_MAX, UNSENT_BYTES_MIN
from spokes._fastpath.io.tune cimport PathState, path_state, tune_again, tune_in_flight, tune_unsent
from spokes._fastpath.link.link_state cimport (
    BUSY_BYTES_PER_S, LINE_FREE_MS, LINE_IN_FLIGHT_BYTES_MIN, LINE_MISSES_MAX, LINE_QUEUE_US, LINK_OUT_BYTES_MIN,
)

cdef enum:
    WANTED_INTERVAL_MS = 2000
    RATE_INTERVAL_MS = 250
    UNSENT_BYTES_NEAR = 131072          # in the kernel, of a link that was not blocked, or by a path without distance
    LONG_PATH_US = 8000                 # round trip of a blocked link from which on its path is what is slow
    SLOW_BYTES_PER_S = 1048576          # such a link that carries less is on a slow line


cdef void link_account(Link *link, size_t bytes) noexcept nogil:
    """Bytes a second: new streams avoid a link with bulk traffic, and another link is asked for when all have it."""
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
    """What bbr and cubic keep on their way over a slow line is a queue of ours that no slot can overtake: 18 segments
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
        return                          # a first sample
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
