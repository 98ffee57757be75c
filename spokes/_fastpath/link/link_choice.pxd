# Which of a tunnel's links carries a new stream.
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.link.link_state cimport Link
from spokes._fastpath.route.tunnel cimport Tunnel

cdef bint link_is_busy(Link *link) noexcept nogil           # it carries bulk
cdef bint link_is_better(Link *link, Link *other) noexcept nogil
cdef Link *link_pick(Tunnel *tunnel, Loop *loop) noexcept nogil     # the best bound link of this worker, or NULL
