# The end of a link, and its tunnel's list of links.
from spokes._fastpath.link.link_state cimport Link
from spokes._fastpath.route.tunnel cimport Tunnel

cdef void link_bind(Link *link, Tunnel *tunnel) noexcept nogil
cdef void link_fail(Link *link, int rc) noexcept nogil      # end it: every stream gone, ops.down
cdef void link_refuse(Link *link, int rc) noexcept nogil
cdef void link_free(Link *link) noexcept nogil              # after ops.down
cdef void link_close_soon(Link *link) noexcept nogil        # send what is queued first
