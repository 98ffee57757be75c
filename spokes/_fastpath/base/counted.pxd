# Objects that several hold, freed by the last of them. Their first member counts them: uint64_t references, atomic.
from libc.stdlib cimport calloc, free

from spokes._fastpath.base.types cimport atomic_add, atomic_sub, atomic_sub_acq, uint64_t

# Zeroed, with one reference; NULL: out of memory. `live` counts those of its kind: one that is forgotten is seen.
cdef inline void *counted_new(size_t bytes, uint64_t *live) noexcept nogil:
    cdef uint64_t *references = <uint64_t *>calloc(1, bytes)
    if references != NULL:
        references[0] = 1
        atomic_add(live, 1)
    return references

cdef inline void *counted_hold(void *object) noexcept nogil:
    atomic_add(<uint64_t *>object, 1)
    return object

# True: it was the last one, and what the object holds is to be let go of before counted_free.
cdef inline bint counted_release(void *object) noexcept nogil:
    return object != NULL and atomic_sub_acq(<uint64_t *>object, 1) == 1

cdef inline void counted_free(void *object, uint64_t *live) noexcept nogil:
    atomic_sub(live, 1)
    free(object)
