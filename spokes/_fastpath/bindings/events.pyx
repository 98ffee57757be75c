"""Events as Python has them, in the order in which workers told them."""
from libc.stdlib cimport free

from spokes._fastpath.base.ring cimport (
    Msg, Ring, ring_clear_wake, ring_is_empty, ring_pop, ring_sleep, ring_wake,
)
from spokes._fastpath.base.types cimport atomic_sub
from spokes._fastpath.core.events cimport EVENT_LINK_DOWN

from typing import NamedTuple


class Event(NamedTuple):
    kind: int
    link: int
    code: int
    data: bytes


cdef list drain_events(Threads threads, Links links, int event_count_max):
    cdef Msg msg
    cdef Ring *ring = &threads.shared.events
    cdef list events = []
    cdef bytes data
    if threads.stopped:
        return events
    ring_clear_wake(ring)
    while len(events) < event_count_max:
        if not ring_pop(ring, &msg):
            ring_sleep(ring)
            if ring_is_empty(ring):
                return events
            continue
        data = (<char *>msg.p)[:msg.p_bytes] if msg.p != NULL else b""
        free(msg.p)
        atomic_sub(&threads.shared.event_bytes, msg.p_bytes)
        if msg.kind == EVENT_LINK_DOWN:
            links.tunnels.pop(msg.a, None)
        events.append(Event(msg.kind, msg.a, msg.code, data))
    wake_again(ring)
    return events


cdef void wake_again(Ring *ring) noexcept nogil:
    """More events wait than the caller asked for: its event loop must find the descriptor readable."""
    ring_sleep(ring)
    if not ring_is_empty(ring):
        ring_wake(ring)
