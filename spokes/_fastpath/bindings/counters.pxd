# What workers count, and what Python tells them of the memory that the kernel uses.
from spokes._fastpath.base.types cimport uint64_t
from spokes._fastpath.bindings.threads cimport Threads

cdef list drain_access_records(Threads threads)
cdef dict stats_sums(Threads threads)
cdef list worker_stats(Threads threads)
cdef int note_kernel_memory(Threads threads, uint64_t used_bytes, uint64_t limit_bytes) except -1
