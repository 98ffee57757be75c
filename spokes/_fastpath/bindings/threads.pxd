# The threads of one engine and what they share, as Python holds them.
from spokes._fastpath.base.ring cimport Msg
from spokes._fastpath.base.types cimport uint32_t
from spokes._fastpath.core.shared cimport Shared

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t

cdef class Threads:
    cdef Shared *shared
    cdef pthread_t *ids
    cdef bint started, stopped
    cdef int set_throttle(self, uint32_t rate_per_s, list networks) except -1
    cdef int start(self) except -1
    cdef int stop(self) except -1               # waits for every worker; idempotent
    cdef int push(self, uint32_t worker, const Msg *msg) except -1
    cdef int push_all(self, uint32_t kind) except -1
