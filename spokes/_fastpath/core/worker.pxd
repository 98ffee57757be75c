# One engine thread.
from spokes._fastpath.base.types cimport uint32_t
from spokes._fastpath.core.shared cimport Shared, Worker

cdef int worker_init(Worker *worker, Shared *shared, uint32_t index) noexcept nogil
cdef void worker_configure(Worker *worker) noexcept nogil            # as Shared says by now; before its thread begins
cdef void *worker_main(void *argument) noexcept nogil
cdef void worker_clear(Worker *worker) noexcept nogil               # after every thread has ended
