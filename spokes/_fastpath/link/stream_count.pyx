"""What streams carry, counted for their service or tunnel, and the record of each visit that is over."""
from spokes._fastpath.base.types cimport atomic_sub_acq
from spokes._fastpath.base.visits cimport Visit, visits_put
from spokes._fastpath.io.conn_state cimport Loop


cdef void stream_end_visit(Stream *stream) noexcept nogil:
    """The record comes before the count: who sees that no stream serves a service any more finds all its records."""
    cdef Loop *loop = stream.link.loop
    cdef Visit visit
    if stream.serves == NULL:
        return
    if loop.visits.visits != NULL:
        visit.service = stream.serves.id
        visit.bytes_in = stream.visit_bytes_in
        visit.bytes_out = stream.visit_bytes_out
        visit.begin_ms = stream.visit_begin_ms
        visit.end_ms = loop.wall_ms
        visit.visitor = stream.visitor.address
        if not visits_put(&loop.visits, &visit):
            loop.stats.visits_dropped += 1
    atomic_sub_acq(&stream.serves.streams_open, 1)
    stream.serves = NULL


cdef void stream_serve(Stream *stream, Service *service) noexcept nogil:
    if stream.serves == service:
        return
    stream_end_visit(stream)
    if service == NULL:
        return
    stream.serves = service
    stream.visit_begin_ms = stream.link.loop.wall_ms
    stream.visit_bytes_in = stream.visit_bytes_out = 0
    atomic_add(&service.streams_total, 1)
    atomic_add(&service.streams_open, 1)
