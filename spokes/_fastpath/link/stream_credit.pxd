# Credit of streams: first windows within the shares of memory, windows that grow and shrink, CREDIT frames.
from spokes._fastpath.base.types cimport uint32_t, uint64_t
from spokes._fastpath.link.link_state cimport Link, Stream

cdef void stream_defer_free(Stream *stream) noexcept nogil
cdef void queue_add(Stream *stream, int which) noexcept nogil
cdef void queue_remove(Stream *stream, int which) noexcept nogil
cdef void stream_count_held(Stream *stream) noexcept nogil
cdef void stream_narrow(Stream *stream) noexcept nogil
cdef bint visitor_holds_more(const Stream *stream, uint32_t halves) noexcept nogil
cdef bint link_must_wait(Link *link) noexcept nogil
cdef void stream_unpromise(Stream *stream, uint32_t bytes) noexcept nogil
cdef void stream_taken(Stream *stream, size_t bytes) noexcept nogil  # the owner took bytes out of rx by itself
cdef void link_send_credits(Link *link) noexcept nogil
cdef void stream_hold(Stream *stream, uint64_t *holder) noexcept nogil
