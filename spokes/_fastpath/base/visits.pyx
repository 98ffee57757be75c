"""A ring of visits: a worker writes what has ended, the control plane reads it some seconds later.

Owns: its records. Bound: the capacity it was made with; when it is full, new records are not kept, and the worker
counts them. No lock: either index has one writer.
"""
from libc.stdlib cimport calloc, free

from spokes._fastpath.base.types cimport RC_MEMORY, atomic_get, atomic_set


cdef int visits_init(VisitRing *ring, uint32_t capacity) noexcept nogil:
    cdef uint32_t size = 1
    while size < capacity:
        size *= 2
    ring.visits = <Visit *>calloc(size, sizeof(Visit))
    ring.mask = size - 1
    return 0 if ring.visits != NULL else RC_MEMORY


cdef void visits_free(VisitRing *ring) noexcept nogil:
    free(ring.visits)
    ring.visits = NULL


cdef bint visits_put(VisitRing *ring, const Visit *visit) noexcept nogil:
    cdef uint64_t written = ring.written
    if written - atomic_get(&ring.taken) > ring.mask:
        return False
    ring.visits[written & ring.mask] = visit[0]
    atomic_set(&ring.written, written + 1)
    return True


cdef bint visits_take(VisitRing *ring, Visit *out) noexcept nogil:
    cdef uint64_t taken = ring.taken
    if ring.visits == NULL or taken == atomic_get(&ring.written):
        return False
    out[0] = ring.visits[taken & ring.mask]
    atomic_set(&ring.taken, taken + 1)
    return True
