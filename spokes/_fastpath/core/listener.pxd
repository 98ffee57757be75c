# Listening sockets of a worker.
from spokes._fastpath.base.types cimport uint8_t, uint16_t, uint64_t
from spokes._fastpath.core.shared cimport Worker

cdef void listener_add(Worker *worker, int fd, uint8_t kind, uint16_t port, uint64_t id) noexcept nogil  # takes the fd
cdef void listener_remove(Worker *worker, uint64_t id) noexcept nogil       # conns that came through it go on
cdef void listeners_resume(void *owner) noexcept nogil                      # owner: the worker
