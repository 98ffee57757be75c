# Memory and kernel buffers taken back from streams that stand still, first of whoever holds most.
from spokes._fastpath.base.types cimport uint64_t
from spokes._fastpath.link.link_state cimport Link, Stream

cdef void stream_reclaim(Stream *stream) noexcept nogil
cdef void link_relieve(Link *link) noexcept nogil
# Resets streams that stand still and whose kernel buffers are too much: at most so many, how many it has.
cdef uint64_t link_relieve_kernel(Link *link, uint64_t count_max) noexcept nogil
