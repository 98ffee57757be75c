# Streams that begin: their ids, their place among a link's streams, OPEN.
from spokes._fastpath.base.types cimport uint32_t
from spokes._fastpath.link.frame cimport Open
from spokes._fastpath.link.link_state cimport Link, Stream
from spokes._fastpath.route.tunnel cimport Service, Tunnel

cdef Stream *stream_new(Link *link, uint32_t id, Tunnel *tunnel) noexcept nogil
cdef bint is_newer_id(uint32_t id, uint32_t last_id, bint wrapped) noexcept nogil
# NULL: limit. `tunnel`: whose limits and shares it is held to. What it carries is counted for the service, and for the
# tunnel through it; NULL: for the tunnel alone.
cdef Stream *stream_open(Link *link, Tunnel *tunnel, const Open *open, Service *service) noexcept nogil
