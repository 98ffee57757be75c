# Listeners as Python knows them: by numbers.
from spokes._fastpath.base.types cimport uint64_t
from spokes._fastpath.bindings.threads cimport Threads

cdef class Listeners:
    cdef Threads threads
    cdef uint64_t serial
    cdef dict workers                   # listener -> its worker; -1: any, a UDP socket may move
    cdef uint64_t add(self, int kind, int fd, int worker, int port) except 0
    cdef int remove(self, uint64_t listener) except -1
