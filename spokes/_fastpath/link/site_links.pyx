"""Which link carries a site's stream: its tunnels in their order, each with its links on this worker."""
from spokes._fastpath.base.types cimport atomic_get, uint8_t
from spokes._fastpath.link.link_choice cimport link_pick


cdef Link *site_pick(const Site *site, Loop *loop) noexcept nogil:
    cdef Link *link
    cdef uint8_t i
    for i in range(site.tunnel_count):
        link = link_pick(site.tunnels[i], loop)
        if link != NULL:
            return link
    return NULL


cdef bint site_is_here(const Site *site, const Loop *loop) noexcept nogil:
    cdef const Link *link
    cdef uint8_t i
    for i in range(site.tunnel_count):
        link = <const Link *>site.tunnels[i].links[loop.index]
        while link != NULL:
            if not link.draining:
                return True
            link = link.next
    return False


cdef uint64_t site_workers(const Site *site) noexcept nogil:
    cdef uint64_t mask = 0
    cdef uint8_t i
    for i in range(site.tunnel_count):
        mask |= atomic_get(&site.tunnels[i].worker_mask)
    return mask
