# Own addresses of raw flows, by which flows that come back to their client are found.
from spokes._fastpath.base.net cimport sockaddr_storage
from spokes._fastpath.base.types cimport uint64_t, uint8_t
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.link.frame cimport Visitor

cdef enum:
    NOTED_HOPS_MAX = 3                  # a raw flow that comes back to its client so often is a loop
    NOTED_COUNT = 16384                 # own addresses of raw flows, all workers together

# A raw flow's own address: a visitor from there is this flow, come back. The port that the visitor came to tells it
# from another flow with the same number; where ports are translated a loop is not found here. NULL: not noted.
cdef uint64_t *address_note(Loop *loop, int fd, const sockaddr_storage *to, uint8_t hops, bint is_udp) noexcept nogil
cdef bint address_forget(uint64_t *noted) noexcept nogil            # True: the flow was found to be a part of a loop
# How often it was here before; 0: it is none of ours.
cdef uint8_t address_hops(Loop *loop, const Visitor *visitor, bint is_udp) noexcept nogil
# Mark the flow that this visitor is, come back, as part of a loop: its owner sees that at its next datagram or its end.
cdef void address_tell_loop(Loop *loop, const Visitor *visitor, bint is_udp) noexcept nogil
cdef bint address_is_loop(uint64_t *noted) noexcept nogil           # True once
