# From a site to the links of its tunnels, on one worker.
from spokes._fastpath.base.types cimport uint64_t
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.link.link_state cimport Link
from spokes._fastpath.route.site cimport Site

# The best link here to the first of its tunnels that has one which takes streams; NULL: none has. A tunnel that would
# go first but has its links elsewhere does not: to go there would cost more than its turn is worth.
cdef Link *site_pick(const Site *site, Loop *loop) noexcept nogil
# Whether a link stands here that is not on its way out: one that takes no streams now is full.
cdef bint site_is_here(const Site *site, const Loop *loop) noexcept nogil
cdef uint64_t site_workers(const Site *site) noexcept nogil         # where links of its tunnels are: a mask
