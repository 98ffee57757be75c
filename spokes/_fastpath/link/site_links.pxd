# From a site to the links of its tunnels, on one worker; where they are at another node, to that node's.
from spokes._fastpath.base.types cimport uint64_t, uint8_t
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.link.link_state cimport Link
from spokes._fastpath.route.site cimport Site
from spokes._fastpath.route.tunnel cimport Tunnel

cdef enum:
    ALL_WORKERS = -1                    # as workers_tried: the visitor stays here

cdef struct Path:                       # what a new stream goes down
    Link *link                          # NULL: none here takes streams
    Tunnel *tunnel                      # of the site: whose link it is, or whose links are at the node that it leads to

# The best link here to the first of its tunnels that has one which takes streams. A tunnel that would go first but has
# its links at another worker does not: to go there would cost more than its turn is worth. A link to another node only
# for a visitor of our own (`hops` 0), and only where no other worker that has not been tried has a tunnel's own.
cdef Path site_pick(const Site *site, Loop *loop, uint8_t hops, uint64_t workers_tried) noexcept nogil
# Whether a link stands here that is not on its way out: one that takes no streams now is full.
cdef bint site_is_here(const Site *site, const Loop *loop) noexcept nogil
# Workers that a visitor may be handed over to: a mask. Those with links of its tunnels; where all of them were tried,
# those with links to their nodes.
cdef uint64_t site_workers(const Site *site, const Loop *loop, uint8_t hops, uint64_t workers_tried) noexcept nogil
