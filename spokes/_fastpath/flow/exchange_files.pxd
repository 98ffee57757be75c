# Files as answers.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.http.http1 cimport HttpHead
from spokes._fastpath.route.site cimport Directory

cdef void exchange_to_directory(Exchange *x, const Directory *directory, const HttpHead *head,
                                const uint8_t *src) noexcept nogil

cdef void exchange_send_file(Exchange *x) noexcept nogil
cdef size_t exchange_discard(Exchange *x, const uint8_t *src, size_t src_bytes, int *broken) noexcept nogil
