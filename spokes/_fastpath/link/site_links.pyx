"""Which link carries a site's stream: its tunnels in their order, each with its links on this worker; then the node
where a tunnel's links are."""
from spokes._fastpath.base.types cimport atomic_get
from spokes._fastpath.link.link_choice cimport link_is_better, link_pick
from spokes._fastpath.route.tunnel cimport VIA_NODE_SHIFT, WORKER_COUNT_MAX, Node


cdef Path site_pick(const Site *site, Loop *loop, uint8_t hops, uint64_t workers_tried) noexcept nogil:
    cdef Path path
    cdef uint64_t elsewhere
    cdef uint8_t i
    for i in range(site.tunnel_count):
        path.link = link_pick(site.tunnels[i], loop)
        if path.link != NULL:
            path.tunnel = site.tunnels[i]
            return path
    path.tunnel = NULL
    if loop.nodes == NULL or hops != 0:
        return path
    elsewhere = own_workers(site) & ~(workers_tried | <uint64_t>1 << loop.index)
    if elsewhere != 0:
        return path
    for i in range(site.tunnel_count):
        path.link = via_pick(site.tunnels[i], loop)
        if path.link != NULL:
            path.tunnel = site.tunnels[i]
            return path
    return path


cdef Link *via_pick(const Tunnel *tunnel, Loop *loop) noexcept nogil:
    """The best link here that leads to a worker with the tunnel's links, at the node where they are."""
    cdef uint64_t via = atomic_get(&tunnel.via)
    cdef const Node *node
    cdef Tunnel *worker
    cdef Link *link
    cdef Link *best = NULL
    cdef int i
    if via == 0:
        return NULL
    node = &loop.nodes[via >> VIA_NODE_SHIFT]
    for i in range(WORKER_COUNT_MAX):
        if via >> i & 1:
            worker = <Tunnel *>atomic_get(<const uint64_t *>&node.workers[i])
            link = link_pick(worker, loop) if worker != NULL else NULL
            if link != NULL and (best == NULL or link_is_better(link, best)):
                best = link
    return best


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


cdef uint64_t own_workers(const Site *site) noexcept nogil:
    cdef uint64_t mask = 0
    cdef uint8_t i
    for i in range(site.tunnel_count):
        mask |= atomic_get(&site.tunnels[i].worker_mask)
    return mask


cdef uint64_t site_workers(const Site *site, const Loop *loop, uint8_t hops, uint64_t workers_tried) noexcept nogil:
    cdef uint64_t mask = own_workers(site)
    cdef uint64_t via
    cdef const Node *node
    cdef const Tunnel *worker
    cdef int bit
    cdef uint8_t i
    if loop.nodes == NULL or hops != 0 or mask & ~(workers_tried | <uint64_t>1 << loop.index):
        return mask
    for i in range(site.tunnel_count):
        via = atomic_get(&site.tunnels[i].via)
        if via == 0:
            continue
        node = &loop.nodes[via >> VIA_NODE_SHIFT]
        for bit in range(WORKER_COUNT_MAX):
            worker = <const Tunnel *>atomic_get(<const uint64_t *>&node.workers[bit]) if via >> bit & 1 else NULL
            if worker != NULL:
                mask |= atomic_get(&worker.worker_mask)
    return mask
