# What streams carry, counted for their service or tunnel, and the access record of each that is over.
from spokes._fastpath.base.types cimport atomic_add
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.route.tunnel cimport Counts, Service

cdef void stream_log_access(Stream *stream) noexcept nogil
cdef void stream_serve(Stream *stream, Service *service) noexcept nogil     # from now on

cdef inline Counts *stream_counts(const Stream *stream) noexcept nogil:
    if stream.serves != NULL:
        return &stream.serves.counts
    return &stream.tunnel.counts if stream.tunnel != NULL else NULL

cdef inline void stream_count_in(Stream *stream, size_t bytes) noexcept nogil:
    cdef Counts *counts = stream_counts(stream)
    stream.access_bytes_in += bytes
    if counts != NULL:
        atomic_add(&counts.bytes_in, bytes)

cdef inline void stream_count_out(Stream *stream, size_t bytes) noexcept nogil:
    cdef Counts *counts = stream_counts(stream)
    stream.access_bytes_out += bytes
    if counts != NULL:
        atomic_add(&counts.bytes_out, bytes)
