# Dates of HTTP: IMF-fixdate to and from Unix seconds; sans-io.
from spokes._fastpath.base.types cimport int64_t, uint64_t

cdef enum:
    HTTP_DATE_BYTES = 29                # "Sun, 06 Nov 1994 08:49:37 GMT"

cdef void httpdate_write(char *dst, uint64_t unix_s) noexcept nogil             # HTTP_DATE_BYTES, not terminated
# Unix seconds, or -1. The two obsolete forms are not read: what cannot be read makes no condition.
cdef int64_t httpdate_read(const char *src, size_t src_bytes) noexcept nogil
