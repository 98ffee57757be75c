# How many of a tunnel's streams one visitor address may have, counted in a table of fixed size.
from spokes._fastpath.base.address cimport Address
from spokes._fastpath.base.buf cimport Pool
from spokes._fastpath.base.types cimport uint64_t
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.link.frame cimport Open
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.route.tunnel cimport Tunnel

# Where is counted what a visitor's address holds; NULL: it is not known.
cdef uint64_t *address_holder(Pool *pool, const Address *address) noexcept nogil
# Whether who holds so many of a tunnel's places may have one more: of the last quarter as many as stay free for others,
# as spokes/shares.py has it.
cdef bint tunnel_may_take(const Tunnel *tunnel, const Loop *loop, uint64_t held) noexcept nogil
cdef bint tunnel_has_slot(const Tunnel *tunnel, const Loop *loop, const Open *open) noexcept nogil
cdef void stream_count_slot(Stream *stream, uint64_t more) noexcept nogil
