"""What streams carry, counted for their service or tunnel, and the access record of each that is over."""
from spokes._fastpath.base.types cimport atomic_sub_acq
from spokes._fastpath.base.access_log cimport AccessRecord, access_log_put
from spokes._fastpath.io.conn_state cimport Loop


cdef void stream_log_access(Stream *stream) noexcept nogil:
    """The record comes before the count: who sees that no stream serves a service any more finds all its records."""
    cdef Loop *loop = stream.link.loop
    cdef AccessRecord record
    if stream.serves == NULL:
        return
    if loop.access_log.records != NULL:
        record.service = stream.serves.id
        record.bytes_in = stream.access_bytes_in
        record.bytes_out = stream.access_bytes_out
        record.begin_ms = stream.access_begin_ms
        record.end_ms = loop.wall_ms
        record.visitor = stream.visitor.address
        if not access_log_put(&loop.access_log, &record):
            loop.stats.access_records_dropped += 1
    atomic_sub_acq(&stream.serves.streams_open, 1)
    stream.serves = NULL


cdef void stream_serve(Stream *stream, Service *service) noexcept nogil:
    if stream.serves == service:
        return
    stream_log_access(stream)
    if service == NULL:
        return
    stream.serves = service
    stream.access_begin_ms = stream.link.loop.wall_ms
    stream.access_bytes_in = stream.access_bytes_out = 0
    atomic_add(&service.streams_total, 1)
    atomic_add(&service.streams_open, 1)
