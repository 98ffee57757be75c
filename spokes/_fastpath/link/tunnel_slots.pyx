"""How many of a tunnel's streams one visitor address may have, counted in a table of fixed size."""
from spokes._fastpath.base.address cimport address_hash
from spokes._fastpath.base.buf cimport HOLDER_COUNT
from spokes._fastpath.base.throttle cimport throttle_exempts
from spokes._fastpath.base.types cimport atomic_add, atomic_get
from spokes._fastpath.link.frame cimport SERVICE_UDP
from spokes._fastpath.link.link_state cimport TUNNEL_VISITOR_COUNTERS, is_our_id


cdef uint64_t *address_holder(Pool *pool, const Address *address) noexcept nogil:
    if address.family == 0:
        return NULL
    return &pool.budget.held_by_visitor[address_hash(address, 0) % HOLDER_COUNT]


cdef bint tunnel_may_take(const Tunnel *tunnel, const Loop *loop, uint64_t held) noexcept nogil:
    cdef uint64_t limit = loop.tunnel_stream_count_max
    cdef uint64_t used
    if limit == 0 or tunnel == NULL:
        return True
    used = atomic_get(&tunnel.stream_count)
    return used < limit and (limit - used > limit // 4 or held < limit - used)


cdef uint64_t *visitor_counter(const Tunnel *tunnel, const Loop *loop, const Address *address) noexcept nogil:
    """How many of the tunnel's streams are of one address. Those that share a counter share its share."""
    return &loop.tunnel_visitors[
        address_hash(address, tunnel.slot * 0x9E3779B1u) % TUNNEL_VISITOR_COUNTERS]


cdef bint tunnel_has_slot(const Tunnel *tunnel, const Loop *loop, const Open *open) noexcept nogil:
    """One address alone does not fill a tunnel, unless it is one that brings others' visitors. Datagrams have shares of
    their own (udp_peers.pyx), in which who comes gets the place of somebody else."""
    cdef uint64_t limit = loop.tunnel_stream_count_max
    if limit == 0 or tunnel == NULL:
        return True
    if open.service == SERVICE_UDP or open.visitor.address.family == 0 \
            or throttle_exempts(loop.throttle, &open.visitor.address):
        return atomic_get(&tunnel.stream_count) < limit
    return tunnel_may_take(tunnel, loop, atomic_get(visitor_counter(tunnel, loop, &open.visitor.address)))


cdef void stream_count_slot(Stream *stream, uint64_t more) noexcept nogil:
    """`more`: 1, or as many as wrap to one less. Only streams of ours have places, and their links a tunnel."""
    cdef Loop *loop = stream.link.loop
    if loop.tunnel_stream_count_max == 0 or stream.tunnel == NULL or not is_our_id(stream.link, stream.id):
        return
    atomic_add(visitor_counter(stream.tunnel, loop, &stream.visitor.address), more)
    if stream.service == SERVICE_UDP:
        atomic_add(&stream.tunnel.flow_count, more)
