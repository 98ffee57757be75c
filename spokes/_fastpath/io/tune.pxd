# Socket options, each optional: where a kernel refuses one, the socket goes without it.
from spokes._fastpath.base.types cimport uint32_t, uint64_t

cdef struct PathState:                  # of a TCP socket, as its kernel sees it
    uint32_t rtt_us                     # smoothed
    uint32_t rtt_min_us                 # 0 = not known yet
    uint64_t acked_bytes                # of what was sent, by the other end's kernel

cdef void tune_link(int fd) noexcept nogil              # socket options of a link
cdef void tune_congestion(int fd) noexcept nogil        # once the path's round trip is known
cdef void tune_retries(int fd) noexcept nogil
cdef bint tune_again(int fd, uint32_t rtt_us) noexcept nogil    # as for a long path, once the round trip is as long
cdef void tune_unsent(int fd, int unsent_bytes) noexcept nogil
cdef bint path_state(int fd, PathState *out) noexcept nogil         # False: the kernel does not tell
# No more than about so much unsent and unacknowledged together; 0: as the kernel likes.
cdef void tune_in_flight(int fd, uint32_t bytes) noexcept nogil
cdef void tune_listener(int fd) noexcept nogil          # what accepted conns inherit
# Before a TCP service of this machine is dialled, by a worker with so many conns to services. True: as for a crowd, so
# that it is to prove that it is read.
cdef bint tune_local_upstream(int fd, uint64_t conn_count) noexcept nogil
