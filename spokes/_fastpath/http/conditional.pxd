# What a GET or HEAD asks of a file: all of it, a part, nothing if it is still the same; sans-io.
from spokes._fastpath.base.types cimport uint8_t, uint16_t, uint64_t
from spokes._fastpath.http.http1_head cimport HttpHead

cdef enum:
    ETAG_BYTES_MAX = 40

cdef struct Representation:
    uint64_t bytes
    uint64_t modified_s                 # as its Last-Modified says
    uint8_t etag_bytes
    char etag[ETAG_BYTES_MAX]           # with its quotes; strong

cdef struct Selection:
    uint16_t status                     # 200, 206, 304, 412 or 416
    uint64_t first                      # of the bytes to be sent
    uint64_t bytes

# In the order of RFC 9110 section 13.2.2. What cannot be read makes no condition; several ranges are answered whole.
cdef void conditional_select(Selection *out, const Representation *of, const HttpHead *head,
                             const uint8_t *src) noexcept nogil
