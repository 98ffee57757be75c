# Pages as the engine sends them, made of what Python gives.
from spokes._fastpath.core.shared cimport Shared

cdef int put_page(Shared *shared, str code, int status, str content_type, bytes body, int retry_after_s) except -1
cdef int put_default_pages(Shared *shared) except -1
cdef void free_pages(Shared *shared) noexcept nogil
