# The peers of a port: a table by address and lists by silence; which one is evicted when all slots are taken.
from spokes._fastpath.base.address cimport Address
from spokes._fastpath.base.types cimport uint32_t
from spokes._fastpath.flow.udp_state cimport Listener, Local, Peer, Share
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.route.tunnel cimport Tunnel

cdef uint32_t peer_bucket(const Address *address) noexcept nogil
cdef void peer_enlist(Peer *peer) noexcept nogil
cdef void peer_heard(Peer *peer, bint is_answer) noexcept nogil
cdef void peer_forget(Peer *peer) noexcept nogil
cdef bint is_crowded(const Listener *listener, const Tunnel *tunnel, const Loop *loop) noexcept nogil
cdef Peer *peer_to_evict(Conn *conn, const Share *own) noexcept nogil
cdef Peer *peer_find(Listener *listener, const Address *address, const Local *local) noexcept nogil
