"""The access log is a ring of records: a worker writes what has ended, the control plane reads it some seconds later.

Owns: its records. Bound: the capacity it was made with; when it is full, new records are not kept, and the worker
counts them. No lock: either index has one writer.
"""
from libc.stdlib cimport calloc, free

from spokes._fastpath.base.types cimport RC_MEMORY, atomic_get, atomic_set


cdef int access_log_init(AccessLog *ring, uint32_t capacity) noexcept nogil:
    cdef uint32_t size = 1
    while size < capacity:
        size *= 2
    ring.records = <AccessRecord *>calloc(size, sizeof(AccessRecord))
    ring.mask = size - 1
    return 0 if ring.records != NULL else RC_MEMORY


cdef void access_log_free(AccessLog *ring) noexcept nogil:
    free(ring.records)
    ring.records = NULL


cdef bint access_log_put(AccessLog *ring, const AccessRecord *record) noexcept nogil:
    cdef uint64_t written = ring.written
    if written - atomic_get(&ring.taken) > ring.mask:
        return False
    ring.records[written & ring.mask] = record[0]
    atomic_set(&ring.written, written + 1)
    return True


cdef bint access_log_take(AccessLog *ring, AccessRecord *out) noexcept nogil:
    cdef uint64_t taken = ring.taken
    if ring.records == NULL or taken == atomic_get(&ring.written):
        return False
    out[0] = ring.records[taken & ring.mask]
    atomic_set(&ring.taken, taken + 1)
    return True
