# The access log: one record for each visitor's conn that is over, from a worker to the control plane.
from spokes._fastpath.base.address cimport Address
from spokes._fastpath.base.types cimport uint32_t, uint64_t

cdef struct AccessRecord:
    uint64_t service                    # Service.id
    uint64_t bytes_in                   # from the visitor
    uint64_t bytes_out
    uint64_t begin_ms                   # wall clock
    uint64_t end_ms
    Address visitor

cdef struct AccessLog:                  # written by one worker, read by the control plane
    AccessRecord *records               # NULL = nobody wants them
    uint32_t mask
    uint64_t written                    # atomic
    uint64_t taken                      # atomic

# The capacity is rounded up to a power of two; 0 or RC_MEMORY.
cdef int access_log_init(AccessLog *ring, uint32_t capacity) noexcept nogil
cdef void access_log_free(AccessLog *ring) noexcept nogil
cdef bint access_log_put(AccessLog *ring, const AccessRecord *record) noexcept nogil    # False: full, not kept
cdef bint access_log_take(AccessLog *ring, AccessRecord *out) noexcept nogil
